//! What a plugin's author can say: `wasmhook plugin …`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::commands::plugin::{Language, name};

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
    /// Tells the version of the contract, what the component exports, each import and whether it is
    /// granted, its size, how long compiling takes, and what a fresh instance costs. A manifest beside
    /// the file (`10-redact.toml` beside `10-redact.wasm`) is honoured.
    #[command(
        after_help = "Example:\n  wasmhook plugin check target/wasm32-wasip2/release/redact.wasm"
    )]
    Check {
        /// The component.
        file: PathBuf,
    },
}
