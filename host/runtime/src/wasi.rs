//! WASI 0.2 with nothing granted, each call to it counted.
//!
//! The functions are those of `wasmtime-wasi`, one interface after the other as its own
//! `add_to_linker_async` adds them: what they are given of the state counts the call on the way.

use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliCtxView, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksCtxView, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, sockets};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtxView, WasiSocketsView as _};
use wasmtime_wasi_io::bindings::wasi::io;

use crate::budget::Import;
use crate::state::State;

/// Streams and pollables live in the table of resources alone.
struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

fn cli_of(state: &mut State) -> WasiCliCtxView<'_> {
    state.budget.note(Import::Cli);
    state.cli()
}

fn clocks_of(state: &mut State) -> WasiClocksCtxView<'_> {
    state.budget.note(Import::Clocks);
    state.clocks()
}

fn filesystem_of(state: &mut State) -> WasiFilesystemCtxView<'_> {
    state.budget.note(Import::Filesystem);
    state.filesystem()
}

fn sockets_of(state: &mut State) -> WasiSocketsCtxView<'_> {
    state.budget.note(Import::Sockets);
    state.sockets()
}

fn table_of(state: &mut State) -> &mut ResourceTable {
    state.budget.note(Import::Io);
    &mut state.table
}

/// Provide all of it.
pub(crate) fn add_to_linker(l: &mut Linker<State>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<_, Table>(l, table_of)?;
    io::poll::add_to_linker::<_, Table>(l, table_of)?;
    io::streams::add_to_linker::<_, Table>(l, table_of)?;

    clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, clocks_of)?;
    clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, clocks_of)?;

    random::add_to_linker::<_, HasSelf<State>>(l, |state| state)?;
    insecure::add_to_linker::<_, HasSelf<State>>(l, |state| state)?;
    insecure_seed::add_to_linker::<_, HasSelf<State>>(l, |state| state)?;

    cli::exit::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::environment::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, cli_of)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, cli_of)?;

    filesystem::types::add_to_linker::<_, WasiFilesystem>(l, filesystem_of)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, filesystem_of)?;

    let network = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<_, WasiSockets>(l, &network, sockets_of)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(l, sockets_of)?;
    sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, sockets_of)?;
    sockets::tcp::add_to_linker::<_, WasiSockets>(l, sockets_of)?;
    sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, sockets_of)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(l, sockets_of)?;
    sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, sockets_of)
}

/// Bytes of a 64-bit number.
const WORD: u64 = 8;

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.budget.draw(len)?;
        self.wasi.random().get_random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.budget.draw(WORD)?;
        self.wasi.random().get_random_u64()
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.budget.draw(len)?;
        self.wasi.random().get_insecure_random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.budget.draw(WORD)?;
        self.wasi.random().get_insecure_random_u64()
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.budget.draw(2 * WORD)?;
        self.wasi.random().insecure_seed()
    }
}
