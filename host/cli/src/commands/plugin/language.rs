//! The languages that a project can be written in, and the words for each.

use clap::ValueEnum;
use serde::Serialize;

/// A language of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    /// Rust.
    Rust,
    /// JavaScript.
    #[value(name = "js", alias = "javascript")]
    #[serde(rename = "js")]
    JavaScript,
    /// TypeScript.
    #[value(name = "ts", alias = "typescript")]
    #[serde(rename = "ts")]
    TypeScript,
    /// Python.
    Python,
    /// C.
    C,
    /// Go.
    Go,
}

/// What a project's README says of its language.
pub(super) struct Words {
    pub(super) language: &'static str,
    /// What the sample does.
    pub(super) what: &'static str,
    pub(super) needs: &'static str,
    /// The build without this program.
    pub(super) build: &'static str,
    /// What is worth knowing besides.
    pub(super) more: &'static str,
}

const REDACTS: &str = "it blanks the fields that `fields` names and adds `schema_version`";
const REDACTS_AND_ROUTES: &str = "it blanks the fields that `fields` names and adds \
                                  `schema_version`, and sends an event to the endpoint that `field` names";
const ONE_MORE_EXPORT: &str = "To choose endpoints as well, name the world `plugin` instead of \
                               `transformer` and export `resolve`.";
const ONE_LESS_EXPORT: &str = "To export one interface only, name the world `transformer` or \
                               `resolver` instead of `plugin`.";

impl Language {
    pub(super) fn words(self) -> Words {
        match self {
            Self::Rust => Words {
                language: "Rust",
                what: REDACTS,
                needs: "Rust, and its target: `rustup target add wasm32-wasip2`",
                build: "cargo build --release --target wasm32-wasip2",
                more: ONE_MORE_EXPORT,
            },
            Self::JavaScript => Words {
                language: "JavaScript",
                what: REDACTS_AND_ROUTES,
                needs: "Node.js 20 or newer with npm",
                build: "npm ci && npm run build",
                more: ONE_LESS_EXPORT,
            },
            Self::TypeScript => Words {
                language: "TypeScript",
                what: REDACTS,
                needs: "Node.js 20 or newer with npm",
                build: "npm ci && npm run build",
                more: ONE_MORE_EXPORT,
            },
            Self::Python => Words {
                language: "Python",
                what: REDACTS_AND_ROUTES,
                needs: "Python 3.10 or newer",
                build: "./build.sh",
                more: ONE_LESS_EXPORT,
            },
            Self::C => Words {
                language: "C",
                what: REDACTS,
                needs: "`cargo install wit-bindgen-cli`, and clang with lld, wasi-libc and compiler-rt for \
                        wasm32 (Debian: `clang lld wasi-libc libclang-rt-dev-wasm32`) or a wasi-sdk",
                build: "./build.sh",
                more: ONE_MORE_EXPORT,
            },
            Self::Go => Words {
                language: "Go",
                what: REDACTS_AND_ROUTES,
                needs: "Go 1.27 and `cargo install wit-bindgen-cli wasm-tools`",
                build: "./build.sh",
                more: ONE_LESS_EXPORT,
            },
        }
    }

    /// Whether the sample chooses endpoints, too.
    pub(super) fn resolves(self) -> bool {
        matches!(self, Self::JavaScript | Self::Python | Self::Go)
    }
}
