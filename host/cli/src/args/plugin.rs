//! What a plugin's author can say: `wasmhook plugin …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::commands::plugin::{Given, Language, Named, SecretFile, name};

/// The author's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// Write a project that builds with the language's own tools.
    ///
    /// It goes into a new folder of that name: a source that works, the contract, a manifest, two
    /// example events, and a README of how to build it, try it out and drop it.
    #[command(after_help = "Example:\n  wasmhook plugin new --lang rust redact-cards")]
    New {
        /// The language.
        #[arg(long)]
        lang: Language,
        /// The name of the project, its folder and its component: a-z 0-9 -.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Build a project with its own tools, and check the component that comes out.
    ///
    /// Runs build.sh if there is one, otherwise cargo, npm, or componentize-py, by the files in the
    /// folder. Packages that npm or Python need are installed into the folder first if they are
    /// missing. The component of a Cargo package is copied into the folder.
    #[command(
        after_help = "Examples:\n  wasmhook plugin build\n  wasmhook plugin build redact-cards"
    )]
    Build {
        /// The project's folder.
        #[arg(default_value = ".", value_name = "DIR")]
        folder: PathBuf,
    },
    /// Check a component file as the host would when it is dropped.
    ///
    /// Tells the version of the contract, what the component exports and when that is called, each import
    /// and whether it is granted, its size, how long compiling takes, and what a fresh instance costs. A
    /// manifest beside the file (`10-redact.toml` beside `10-redact.wasm`) is honoured.
    #[command(
        after_help = "Example:\n  wasmhook plugin check target/wasm32-wasip2/release/redact.wasm"
    )]
    Check {
        /// The component.
        file: PathBuf,
    },
    /// Run events through a plugin under the host's limits, and show what it does and what that costs.
    ///
    /// Nothing is sent and nothing is stored. For each event: who receives it, what changes in the body,
    /// headers that are added, how it is signed, what receivers' answers are taken for, processor time and
    /// the most memory. Limits are those of the configuration, and of the manifest beside the file. Exits
    /// with 1 when a call fails, or with --against when an answer differs.
    #[command(after_help = "Examples:\n  \
        wasmhook plugin test redact.wasm --events events.ndjson\n  \
        wasmhook plugin test redact.wasm --events events.ndjson --against redact-old.wasm\n  \
        wasmhook plugin test route.wasm --events events.ndjson --endpoint eu=https://eu.example.com/hooks\n  \
        wasmhook plugin test sign.wasm --events events.ndjson --secret-file secrets/acme/main\n  \
        wasmhook plugin test judge.wasm --events events.ndjson --answer 409 \\\n    \
            --answer '{\"status\": 200, \"body\": {\"ok\": false}}'\n\n\
        Each line of the events is what `event push` takes; `events record` records real ones.")]
    Test(TestPlugin),
    /// Measure what calls of a plugin take, on fresh instances and on reused ones.
    ///
    /// The events are given one after the other, over and over. Times are of this machine and this
    /// program: measure with an optimised one. A row ends after 30 s at the latest.
    #[command(
        after_help = "Example:\n  wasmhook plugin bench redact.wasm --events events.ndjson --calls 10000"
    )]
    Bench(BenchPlugin),
}

/// What to try a plugin out with.
#[derive(Debug, Args)]
pub(crate) struct TestPlugin {
    /// The component.
    pub(crate) file: PathBuf,
    /// Events, one a line, as `event push` takes them.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: PathBuf,
    /// Another version, whose answers are compared with.
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) receivers: Receivers,
}

/// Who receives what is tried out.
#[derive(Debug, Args)]
pub(crate) struct Receivers {
    /// An endpoint that events go to; repeatable. If missing, those of the configuration's tenants
    /// that subscribe to the event, or one called `main`.
    ///
    /// The plugin, if it signs, signs for each that is named here, and of the tenants' for those that
    /// name it as their signer.
    #[arg(long = "endpoint", value_name = "[ID=]URL")]
    pub(crate) endpoints: Vec<Named>,
    /// A secret that endpoints name, in this file, for a plugin that signs; repeatable, as during a
    /// rotation. If missing, the tenants' own, or a key of this run that is called `main`.
    #[arg(long = "secret-file", value_name = "[NAME=]FILE")]
    pub(crate) secret_files: Vec<SecretFile>,
    /// What receivers answer, for a plugin that judges answers; repeatable.
    ///
    /// A status, JSON such as {"status": 429, "headers": {"retry-after": "60"}, "body": {"ok": false}}, or
    /// @FILE with one a line. A body that is a text is sent as it is, any other as JSON.
    #[arg(long = "answer", value_name = "STATUS|JSON|@FILE")]
    pub(crate) answers: Vec<Given>,
}

/// What to measure a plugin with.
#[derive(Debug, Args)]
pub(crate) struct BenchPlugin {
    /// The component.
    pub(crate) file: PathBuf,
    /// Events, one a line, as `event push` takes them.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: PathBuf,
    #[command(flatten)]
    pub(crate) receivers: Receivers,
    /// Calls of each row, up to 100000; a tenth more go before them.
    #[arg(long, default_value_t = 1_000, value_parser = calls)]
    pub(crate) calls: usize,
}

fn calls(text: &str) -> Result<usize, &'static str> {
    match text.parse() {
        Ok(calls @ 1..=100_000) => Ok(calls),
        _ => Err("expected a number from 1 to 100000"),
    }
}
