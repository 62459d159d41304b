//! What can be said on the command line.

mod ids;
mod plugin;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wasmhook_core::{DeliveryId, DeliveryState, EventId, EventType, OrderingKey, TenantId};

use crate::commands::events::Field;

pub(crate) use plugin::{BenchPlugin, Plugin, Receivers, TestPlugin};

/// Outbound webhooks for many tenants, with their own WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong configuration, 4 store or host not \
                  reachable, 5 not found, 6 refused (event, plugin or replay).\n\n\
                  Examples:\n  \
                  wasmhook serve --config wasmhook.toml\n  \
                  wasmhook event push --tenant acme --type invoice.paid --payload '{\"total\": 12}'\n  \
                  wasmhook deliveries list --tenant acme --state dead-letter\n  \
                  wasmhook deliveries show whdel_…\n  \
                  wasmhook plugin new --lang rust redact-cards"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration file; `wasmhook.toml` in the current folder if it is there and this is not given.
    #[arg(
        long,
        short,
        global = true,
        env = "WASMHOOK_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Set one key of the configuration, over file and environment; repeatable.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print JSON instead of tables and sentences.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole job on this machine: events, plugins, signatures, retries, replay, hot reload.
    Demo(Demo),
    /// Run the host.
    #[command(
        after_help = "Example:\n  wasmhook serve --config examples/wasmhook.toml\n\n\
                            SIGTERM or Ctrl-C stops taking work and finishes or gives back what is in flight; a \
                            second one exits at once. Neither loses anything."
    )]
    Serve,
    /// Push events.
    #[command(subcommand)]
    Event(Event),
    /// Look at events.
    #[command(subcommand)]
    Events(Events),
    /// Find, follow and replay deliveries.
    #[command(subcommand)]
    Deliveries(Deliveries),
    /// Check the queue and mend it.
    #[command(subcommand)]
    Queue(Queue),
    /// Clean up after tenants.
    #[command(subcommand)]
    Tenants(Tenants),
    /// Write, build, check and try out a plugin, without a host.
    #[command(subcommand)]
    Plugin(Plugin),
    /// Look at plugins, and choose which of their versions serve.
    #[command(subcommand)]
    Plugins(Plugins),
    /// Look at everything a host stands on, and say what is wrong and what to do about it.
    #[command(
        after_help = "Example:\n  wasmhook doctor --config wasmhook.toml\n\nExits with 0 when nothing is \
                      wrong; warnings alone do not count."
    )]
    Doctor,
    /// Receive webhooks on this machine, verify their signatures and print them.
    Listen(Listen),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Compile one component, within bounds: what the host starts a process of its own for.
    #[command(hide = true)]
    CompileComponent {
        /// What the host asks for.
        job: String,
    },
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  wasmhook completions bash > /etc/bash_completion.d/wasmhook"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Folder with the compiled sample components; `cargo xtask demo` builds them and passes it.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "plugins/target/wasm32-wasip2/release"
    )]
    pub(crate) components: PathBuf,
    /// Show the host's own log as well.
    #[arg(long)]
    pub(crate) log: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    /// Push one event from flags, or many from NDJSON on standard input.
    #[command(after_help = "Examples:\n  \
        wasmhook event push --tenant acme --type invoice.paid --id evt_1 --payload '{\"total\": 12}'\n  \
        wasmhook event push --tenant acme --type invoice.paid --payload @invoice.json\n  \
        wasmhook event push --tenant acme --type invoice.paid --payload '{}' --deliver-at 2027-01-31T09:00:00Z\n  \
        wasmhook event push < events.ndjson\n\n\
        Each line of NDJSON is {\"tenant\", \"type\", \"id\", \"payload\", \"occurred_at\"?, \"deliver_at\"?, \
        \"ordering_key\"?}. Events go to the Redis stream when the configuration names Redis, otherwise to the host's HTTP API.")]
    Push(Push),
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The tenant. Without it, events are read from standard input.
    #[arg(long, requires = "event_type", requires = "payload", value_parser = ids::tenant)]
    pub(crate) tenant: Option<TenantId>,
    /// The event type.
    #[arg(long = "type", value_name = "TYPE", requires = "tenant", value_parser = ids::event_type)]
    pub(crate) event_type: Option<EventType>,
    /// The event id; made up if missing. Pushing an id twice makes no second delivery.
    #[arg(long, requires = "tenant", value_parser = ids::event)]
    pub(crate) id: Option<EventId>,
    /// JSON, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON", requires = "tenant")]
    pub(crate) payload: Option<String>,
    /// When it happened, RFC 3339; now if missing.
    #[arg(long, value_name = "TIME", requires = "tenant", value_parser = ids::time)]
    pub(crate) occurred_at: Option<String>,
    /// When to deliver it, RFC 3339, at most a year ahead; at once if missing.
    #[arg(long, value_name = "TIME", requires = "tenant", value_parser = ids::time)]
    pub(crate) deliver_at: Option<String>,
    /// Endpoints that ask for order by key get the events of one key in order.
    #[arg(long, value_name = "KEY", requires = "tenant", value_parser = ids::ordering_key)]
    pub(crate) ordering_key: Option<OrderingKey>,
    /// Push to this host over HTTP, whatever the configuration says.
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// List events that were refused, newest first, with the reason.
    #[command(after_help = "Example:\n  wasmhook events rejected --limit 50 --json")]
    Rejected {
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Write a tenant's newest events that are kept, to try plugins out with.
    ///
    /// One a line, oldest first, as `event push` and `plugin test` take them. Each value in a field that
    /// is masked becomes one of the same type: texts become stars, numbers 0, and a long text stays long.
    /// Names of fields, the ids of events and their ordering keys are written as they are, white space is
    /// left out. When no event has a field that is to be masked nothing is written, for its name may be
    /// wrong.
    #[command(after_help = "Examples:\n  \
        wasmhook events record --tenant acme --mask email --mask card.number -o events.ndjson\n  \
        wasmhook events record --tenant acme --type invoice.paid --limit 10 --mask /customer/name")]
    Record(RecordEvents),
}

/// What to record.
#[derive(Debug, Args)]
pub(crate) struct RecordEvents {
    /// The tenant.
    #[arg(long, value_parser = ids::tenant)]
    pub(crate) tenant: TenantId,
    /// Of this type only.
    #[arg(long = "type", value_name = "TYPE", value_parser = ids::event_type)]
    pub(crate) event_type: Option<EventType>,
    /// At most this many, up to 10000.
    #[arg(long, default_value_t = 100, value_parser = limit)]
    pub(crate) limit: usize,
    /// Mask this field: a name wherever it is and in whatever case, one inside another (`customer.email`), or a
    /// JSON pointer (`/lines/0/name`), which is exact; repeatable.
    #[arg(long, value_name = "FIELD")]
    pub(crate) mask: Vec<Field>,
    /// Write although no event has a field that is to be masked.
    #[arg(long, requires = "mask")]
    pub(crate) allow_unmatched: bool,
    /// The file to write, readable by its owner only; standard output if missing.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

fn limit(text: &str) -> Result<usize, &'static str> {
    match text.parse() {
        Ok(limit @ 1..=10_000) => Ok(limit),
        _ => Err("expected a number from 1 to 10000"),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Deliveries {
    /// List deliveries, newest first.
    #[command(after_help = "Examples:\n  \
        wasmhook deliveries list --tenant acme\n  \
        wasmhook deliveries list --tenant acme --state dead-letter --limit 100")]
    List {
        /// Of this tenant; of all, if missing.
        #[arg(long, value_parser = ids::tenant)]
        tenant: Option<TenantId>,
        /// In this state only: pending, leased, failed, succeeded or dead-letter.
        #[arg(long)]
        state: Option<DeliveryState>,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Go on where the previous page ended; needs --tenant.
        #[arg(long, requires = "tenant")]
        cursor: Option<String>,
    },
    /// Tell the whole story of one delivery.
    #[command(
        after_help = "Example:\n  wasmhook deliveries show whdel_5fe54a7806badae94ec7332ad4a45386"
    )]
    Show {
        /// The delivery id, which the receiver knows as `webhook-id`.
        #[arg(value_parser = ids::delivery)]
        id: DeliveryId,
        /// Its tenant; looked for if missing.
        #[arg(long, value_parser = ids::tenant)]
        tenant: Option<TenantId>,
        /// Show what the receiver answered, too. It is the tenant's.
        #[arg(long)]
        response: bool,
    },
    /// Deliver finished deliveries again.
    #[command(after_help = "Examples:\n  \
        wasmhook deliveries replay --tenant acme whdel_5fe54a7806badae94ec7332ad4a45386\n  \
        wasmhook deliveries replay --tenant acme --dead-letters")]
    Replay {
        /// The tenant.
        #[arg(long, value_parser = ids::tenant)]
        tenant: TenantId,
        /// The delivery ids.
        #[arg(required_unless_present = "dead_letters", value_parser = ids::delivery)]
        ids: Vec<DeliveryId>,
        /// All dead letters of the tenant.
        #[arg(long, conflicts_with = "ids")]
        dead_letters: bool,
    },
    /// Let sequences go on that these dead letters block.
    ///
    /// An endpoint with `ordering = { …, on_dead_letter = "block" }` gets nothing more of a sequence when one
    /// of it is a dead letter: until that is replayed and succeeds, or is skipped.
    #[command(after_help = "Example:\n  \
        wasmhook deliveries skip --tenant acme whdel_5fe54a7806badae94ec7332ad4a45386")]
    Skip {
        /// The tenant.
        #[arg(long, value_parser = ids::tenant)]
        tenant: TenantId,
        /// The delivery ids; `deliveries show` of one that waits names the one that it waits for.
        #[arg(required = true, value_parser = ids::delivery)]
        ids: Vec<DeliveryId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queue {
    /// Prove that every open delivery is in exactly one place, and that counts and indexes agree.
    ///
    /// Hosts may go on working. Everything is read, in small pieces; exits with 0 when the queue is
    /// sound or all that was found has been repaired, and with 1 otherwise.
    #[command(after_help = "Examples:\n  \
        wasmhook queue check\n  \
        wasmhook queue check --repair --json\n\n\
        Hosts repair by themselves, some minutes after their start and every hour.")]
    Check {
        /// Mend what can be mended.
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// Remove what is kept of a tenant that is gone: its plugins' keys and values, log and versions.
    ///
    /// Keys and values are in the store; logs and versions are on each host's machine, so run this on each
    /// that has a data folder of its own. Deliveries are left to retention, secrets to whoever keeps them. A
    /// tenant that still has a folder is refused. It can be run again, as after an error.
    #[command(after_help = "Example:\n  rm -r tenants/acme && wasmhook tenants forget acme")]
    Forget {
        /// The tenant.
        #[arg(value_parser = ids::tenant)]
        tenant: TenantId,
        /// Remove it although the tenant has a folder, or the tenants folder cannot be read. A host that
        /// serves its plugins may write down again what it knows of them.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugins {
    /// List the plugins of all tenants: version, state, and why a newer file was refused.
    List {
        /// Of this tenant only; `@global` for the operator's own.
        #[arg(long, value_parser = ids::tenant_or_global)]
        tenant: Option<String>,
    },
    /// Show what a tenant's plugins logged on this host, oldest first.
    #[command(after_help = "Examples:\n  \
        wasmhook plugins logs acme\n  \
        wasmhook plugins logs acme 10-redact --lines 20 --follow")]
    Logs {
        /// The tenant; `@global` for the operator's own plugins.
        #[arg(value_parser = ids::tenant_or_global)]
        tenant: String,
        /// Of this plugin only.
        #[arg(value_parser = ids::plugin)]
        name: Option<String>,
        /// At most this many of the latest lines.
        #[arg(long, default_value_t = 100)]
        lines: usize,
        /// Go on with what is logged from now on, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },
    /// Tell what became of each version of a plugin on this host.
    #[command(after_help = "Example:\n  wasmhook plugins history acme 10-redact")]
    History {
        /// The tenant; `@global` for the operator's own plugins.
        #[arg(value_parser = ids::tenant_or_global)]
        tenant: String,
        /// The plugin: its file without `.wasm`.
        #[arg(value_parser = ids::plugin)]
        name: String,
    },
    /// Put a former version of a plugin in the place of its file.
    ///
    /// Every host that shares the folder takes it up within a second, and a newer file replaces it as
    /// usual. The manifest is left as it is.
    #[command(after_help = "Examples:\n  \
        wasmhook plugins rollback acme 10-redact\n  \
        wasmhook plugins rollback acme 10-redact 5fe54a78")]
    Rollback {
        /// The tenant; `@global` for the operator's own plugins.
        #[arg(value_parser = ids::tenant_or_global)]
        tenant: String,
        /// The plugin: its file without `.wasm`.
        #[arg(value_parser = ids::plugin)]
        name: String,
        /// The version, or its beginning; the last good one before the file's, if missing.
        digest: Option<String>,
    },
    /// Let a version of a plugin serve until it is unpinned, whatever is dropped.
    #[command(after_help = "Example:\n  wasmhook plugins pin acme 10-redact 5fe54a78")]
    Pin {
        /// The tenant; `@global` for the operator's own plugins.
        #[arg(value_parser = ids::tenant_or_global)]
        tenant: String,
        /// The plugin: its file without `.wasm`.
        #[arg(value_parser = ids::plugin)]
        name: String,
        /// The version, or its beginning.
        digest: String,
    },
    /// Let the plugin's file serve again.
    #[command(after_help = "Example:\n  wasmhook plugins unpin acme 10-redact")]
    Unpin {
        /// The tenant; `@global` for the operator's own plugins.
        #[arg(value_parser = ids::tenant_or_global)]
        tenant: String,
        /// The plugin: its file without `.wasm`.
        #[arg(value_parser = ids::plugin)]
        name: String,
    },
    /// Let the version in the plugin's file serve at once, though it was rolled back.
    #[command(after_help = "Example:\n  wasmhook plugins promote acme 10-redact")]
    Promote {
        /// The tenant; `@global` for the operator's own plugins.
        #[arg(value_parser = ids::tenant_or_global)]
        tenant: String,
        /// The plugin: its file without `.wasm`.
        #[arg(value_parser = ids::plugin)]
        name: String,
    },
    /// The same as `plugin check`.
    #[command(hide = true)]
    Check {
        /// The component.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  wasmhook listen --port 9000 --secret-file examples/secrets/acme/main --status 503"
)]
pub(crate) struct Listen {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: std::net::IpAddr,
    /// Port to listen on; 0 for any free one.
    #[arg(long, default_value_t = 9000)]
    pub(crate) port: u16,
    /// File with a signing secret; repeatable during a rotation.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Vec<PathBuf>,
    /// A signing secret. Visible to others in the process list; prefer --secret-file.
    #[arg(long, env = "WASMHOOK_LISTEN_SECRET", hide_env_values = true)]
    pub(crate) secret: Option<String>,
    /// Answer this status to what verifies; what does not verify gets 400.
    #[arg(long, default_value_t = 204, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub(crate) status: u16,
    /// Stop after this many requests.
    #[arg(long)]
    pub(crate) count: Option<usize>,
}

impl Listen {
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Read configuration, tenants, secrets and plugins, and say what is wrong with them.
    #[command(after_help = "Example:\n  wasmhook config check --config examples/wasmhook.toml")]
    Check,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}
