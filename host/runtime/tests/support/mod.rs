//! A host on a folder of its own, and the guests of this repository.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "only tests call it")]

pub mod wasm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use wasmhook_runtime::{
    CallResult, Compiler, EndpointView, EventView, Limits, Plugin, PluginHost, PluginHostConfig,
    PluginStatus, Request, Resolution, Reuse, TenantPlugins, Verdict,
};

/// Bounds a test that would hang; no test depends on how long anything takes.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A tenants folder, and what keeps it loaded.
pub struct World {
    pub folder: TempDir,
    pub host: Arc<PluginHost>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PluginHostConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tenants")).unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let host = Arc::new(PluginHost::new(config).unwrap());
        Self { folder, host }
    }

    pub fn file(&self, tenant: &str, file: &str) -> PathBuf {
        let folder = self
            .folder
            .path()
            .join("tenants")
            .join(tenant)
            .join("plugins");
        fs::create_dir_all(&folder).unwrap();
        folder.join(file)
    }

    /// Put a file in a tenant's folder, the way a careful deployment does: all of it at once.
    pub fn put(&self, tenant: &str, file: &str, bytes: impl AsRef<[u8]>) {
        let path = self.file(tenant, file);
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    /// Put a hostile guest with a behaviour, under `10-hostile`.
    pub fn put_hostile(&self, tenant: &str, behaviour: &str, manifest: &str) {
        self.put(
            tenant,
            "10-hostile.toml",
            format!("{manifest}\n[config]\nbehaviour = \"{behaviour}\"\n"),
        );
        self.put(tenant, "10-hostile.wasm", guest("hostile"));
    }

    pub fn remove(&self, tenant: &str, file: &str) {
        fs::remove_file(self.file(tenant, file)).unwrap();
    }

    /// Take up what is in the folder, all of it.
    pub async fn load(&self) {
        tokio::time::timeout(PATIENCE, async {
            self.host.rescan().await;
            self.host.settled().await;
        })
        .await
        .expect("loading hangs");
    }

    pub fn tenant(&self, tenant: &str) -> Arc<TenantPlugins> {
        self.host.tenant(tenant)
    }

    pub fn transform(&self, tenant: &str) -> Arc<Plugin> {
        let plugins = self.tenant(tenant);
        let found = plugins.transforms.first();
        Arc::clone(found.unwrap_or_else(|| panic!("no transform: {:?}", plugins.unready)))
    }

    pub fn status(&self, tenant: &str, name: &str) -> PluginStatus {
        let all = self.host.status();
        all.into_iter()
            .find(|s| &*s.tenant == tenant && &*s.name == name)
            .expect("no such plugin")
    }

    pub fn refusal(&self, tenant: &str, name: &str) -> String {
        self.status(tenant, name)
            .refused
            .expect("nothing was refused")
    }
}

/// Small enough for several hosts in one process, and with so much time for each call that only a
/// test that lowers it runs out of it, however busy the machine.
pub fn config(folder: &Path) -> PluginHostConfig {
    PluginHostConfig {
        limits: Limits {
            cpu_time_ms: 20_000,
            wait_time_ms: 60_000,
            wall_time_ms: 60_000,
            ..Limits::default()
        },
        max_concurrent_calls: 8,
        max_concurrent_calls_per_plugin: 4,
        place_wait: Duration::from_secs(60),
        max_idle_instances: 8,
        compiler: compiler(),
        ..PluginHostConfig::new(folder.join("tenants"))
    }
}

/// The compiler in a process of its own, as a host has it.
pub fn compiler() -> Compiler {
    Compiler::Child {
        program: env!("CARGO_BIN_EXE_wasmhook-compile").into(),
        arguments: Vec::new(),
        environment: Vec::new(),
    }
}

pub const ENDPOINT: EndpointView<'static> = EndpointView {
    id: "ep_1",
    url: "https://example.test/hook",
};

pub fn event(payload: &str) -> EventView<'_> {
    EventView {
        id: "evt_1",
        tenant: "acme",
        event_type: "invoice.paid",
        occurred_at: "2026-01-02T03:04:05Z",
        payload: payload.as_bytes(),
    }
}

pub async fn transform(plugin: &Plugin, payload: &str) -> CallResult<Verdict> {
    tokio::time::timeout(PATIENCE, plugin.transform(&event(payload), &ENDPOINT))
        .await
        .expect("the call hangs")
}

pub async fn resolve(plugin: &Plugin, payload: &str) -> CallResult<Resolution> {
    tokio::time::timeout(PATIENCE, plugin.resolve(&event(payload), &[ENDPOINT]))
        .await
        .expect("the call hangs")
}

pub fn request(verdict: Verdict) -> Request {
    match verdict {
        Verdict::Deliver(request) => request,
        Verdict::Skip(reason) => panic!("skipped: {reason}"),
    }
}

/// The body that a transform gives.
pub async fn body(plugin: &Plugin, payload: &str) -> String {
    let call = transform(plugin, payload).await.unwrap();
    String::from_utf8(request(call.value).body.to_vec()).unwrap()
}

pub const FRESH: &str = "reuse = \"fresh\"";
pub const REUSED: Reuse = Reuse::UpTo {
    calls: 100,
    seconds: 3_600,
};

/// The same component with another digest: a custom section more.
pub fn variant(mut component: Vec<u8>, number: u8) -> Vec<u8> {
    component.extend([0, 3, 1, b'v', number]);
    component
}

/// The bytes of a guest in `plugins/`, which is built first if it is not there.
pub fn guest(name: &str) -> Vec<u8> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let file = plugins
        .join("target/wasm32-wasip2/release")
        .join(format!("{}.wasm", name.replace('-', "_")));
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    if !file.exists() {
        build(&plugins);
    }
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn build(plugins: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new("timeout")
        .arg("600")
        .arg(cargo)
        .args([
            "build",
            "--locked",
            "--release",
            "--target",
            "wasm32-wasip2",
            "--manifest-path",
        ])
        .arg(plugins.join("Cargo.toml"))
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .expect("cargo cannot be started");
    assert!(
        built.success(),
        "the guests in plugins/ do not build; is the target there? rustup target add wasm32-wasip2"
    );
}
