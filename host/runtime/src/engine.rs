//! The one engine, its clock, and how much may run in it at once.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel,
    PoolingAllocationConfig,
};

use crate::bindings::{config, http_client, key_value, log, signing};
use crate::config::PluginHostConfig;
use crate::error::RuntimeError;
use crate::keepers::Keepers;
use crate::lane::Lane;
use crate::state::State;
use crate::tenant_log::TenantLogs;
use crate::v0_1;
use crate::wasi;

/// Time between two ticks of the epoch: the longest that a guest keeps a thread to itself.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without a call after which the clock sleeps.
const IDLE_TICKS: u32 = 50;
/// How often the sleeping clock looks whether its engine still exists.
const LOOK: Duration = Duration::from_secs(1);
/// Stack of a guest: wasmtime's own default, where guests in Rust, C and JavaScript fit.
const WASM_STACK: usize = 512 << 10;
/// Stack of the fiber that a guest runs on: the above and as much again for the host calls in it.
const FIBER_STACK: usize = 1 << 20;
/// Bytes of each linear memory that are zeroed and kept when an instance ends, rather than given back
/// to the operating system and faulted in again. 256 KiB is what a small guest touches.
const MEMORY_KEPT: usize = 256 << 10;
/// The same for tables.
const TABLE_KEPT: usize = 16 << 10;
/// The same for stacks.
const STACK_KEPT: usize = 32 << 10;
/// A page of WebAssembly memory.
pub(crate) const PAGE: usize = 64 << 10;

/// What all plugins share.
pub(crate) struct Shared {
    pub(crate) config: PluginHostConfig,
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) clock: Clock,
    pub(crate) logs: TenantLogs,
    /// A permit for each call that may run.
    pub(crate) calls: Arc<Semaphore>,
    /// Where guests that run for long take turns, on all cores but one.
    pub(crate) lane: Lane,
    pub(crate) keepers: Keepers,
    idle_instances: Arc<Semaphore>,
    idle_pages: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(config: PluginHostConfig) -> Result<Self, RuntimeError> {
        let describe = |error: wasmtime::Error| RuntimeError::Engine(format!("{error:#}"));
        let engine = Engine::new(&engine_config(&config)).map_err(describe)?;
        let linker = linker(&engine).map_err(describe)?;
        let clock = Clock::start(engine.weak()).map_err(RuntimeError::Thread)?;
        let logs = TenantLogs::start(config.logs.clone()).map_err(RuntimeError::Thread)?;
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            engine,
            linker,
            clock,
            logs,
            calls: Arc::new(Semaphore::new(config.max_concurrent_calls as usize)),
            lane: Lane::start(cores - 1).map_err(RuntimeError::Thread)?,
            keepers: Keepers::default(),
            idle_instances: Arc::new(Semaphore::new(config.max_idle_instances as usize)),
            idle_pages: Arc::new(Semaphore::new(config.max_idle_bytes / PAGE)),
            config,
        })
    }

    /// Room for an idle instance with `bytes` of memory, if there is any.
    pub(crate) fn idle_room(&self, bytes: usize) -> Option<IdleRoom> {
        let pages = u32::try_from(bytes.div_ceil(PAGE)).ok()?;
        Some(IdleRoom {
            pages,
            _instance: Arc::clone(&self.idle_instances).try_acquire_owned().ok()?,
            _pages: Arc::clone(&self.idle_pages)
                .try_acquire_many_owned(pages)
                .ok()?,
        })
    }
}

/// The right to keep one instance for reuse.
pub(crate) struct IdleRoom {
    pub(crate) pages: u32,
    _instance: OwnedSemaphorePermit,
    _pages: OwnedSemaphorePermit,
}

fn engine_config(settings: &PluginHostConfig) -> Config {
    let limits = settings.most();
    // Each call, each idle instance, and each trial start of a new version holds one.
    let components = settings
        .max_concurrent_calls
        .saturating_add(settings.max_idle_instances)
        .max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(components)
        .total_stacks(components)
        .total_core_instances(components.saturating_mul(limits.instances))
        .max_core_instances_per_component(limits.instances)
        .total_memories(components.saturating_mul(limits.memories))
        .max_memories_per_component(limits.memories)
        .max_memories_per_module(limits.memories)
        .max_memory_size(limits.memory_bytes)
        .linear_memory_keep_resident(MEMORY_KEPT)
        // Where Linux has it (6.7), only pages that were touched are reset when an instance ends: a
        // fresh instance of a Rust guest took 35 µs a call with it and 53 µs without.
        .pagemap_scan(Enabled::Auto)
        .total_tables(components.saturating_mul(limits.tables))
        .max_tables_per_component(limits.tables)
        .max_tables_per_module(limits.tables)
        .table_elements(limits.table_elements)
        .table_keep_resident(TABLE_KEPT)
        .async_stack_keep_resident(STACK_KEPT);
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What compiled code depends on: the same for who compiles and for who runs it, who checks that.
pub(crate) fn code_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // A compilation stays on its one thread; the others are for deliveries.
        .parallel_compilation(false)
        // Guests come optimised by their own compilers. What Cranelift could add takes a fifth of the
        // processor time of compiling (the sample in Rust: 0.13 s with it, 0.10 s without) and gains a call
        // of that sample nothing; those in JavaScript and Python, which interpret, get a tenth faster
        // (`examples/call_cost.rs`), which makes up for it after some hundred thousand calls.
        .cranelift_opt_level(OptLevel::None)
        // A backtrace holds names that the guest chose, and no one would read it: nothing is to find the
        // way from code back to the component, or through its frames, which is a tenth of the code's file.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false);
    config
}

/// What a guest may import: the log, its configuration, WASI 0.2 with nothing granted, and what only
/// some are granted, as loading them made sure of.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    log::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    config::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    signing::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    http_client::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    key_value::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    v0_1::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Advances the engine's epoch while calls run, and sleeps while none do.
pub(crate) struct Clock {
    running: Arc<AtomicUsize>,
    thread: Thread,
}

impl Clock {
    fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let running = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&running);
        let thread = thread::Builder::new()
            .name("plugin-clock".to_owned())
            .spawn(move || tick(&engine, &seen))?
            .thread()
            .clone();
        Ok(Self { running, thread })
    }

    /// Keep ticking until the returned guard is dropped.
    pub(crate) fn keep_running(&self) -> Running<'_> {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Running(self)
    }
}

/// Held while a guest may run.
pub(crate) struct Running<'a>(&'a Clock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engine: &EngineWeak, running: &AtomicUsize) {
    let mut idle = 0;
    while let Some(engine) = engine.upgrade() {
        if running.load(Ordering::SeqCst) > 0 {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle > IDLE_TICKS {
            drop(engine);
            thread::park_timeout(LOOK);
        } else {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    }
}
