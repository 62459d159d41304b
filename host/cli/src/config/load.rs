//! Reading and checking the configuration.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use secrecy::ExposeSecret as _;
use wasmhook_core::Catalog;
use wasmhook_store::redis::RedisConfig;

use super::nearest::nearest;
use super::{Config, StoreKind, environment};
use crate::args::Global;
use crate::exit::{Coded, Exit};

/// How the variables begin that are settings.
const PREFIX: &str = "WASMHOOK_";
/// The most deliveries in flight on one host: each may be a socket, and no system opens so many.
const MOST_IN_FLIGHT: usize = 1_000_000;
/// The file that is read when none is named and it exists.
const DEFAULT_FILE: &str = "wasmhook.toml";

/// `--set KEY=VALUE`, as a source of its own so that errors can name it.
struct Flags(Dict);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("--set")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

impl Config {
    /// Reads file, environment and flags. Every error names the key and where it was set.
    pub(crate) fn load(global: &Global) -> anyhow::Result<Self> {
        let file = match &global.config {
            Some(file) if !file.is_file() => {
                let is = match file.metadata() {
                    Ok(_) => "is not a file".to_owned(),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        "does not exist".to_owned()
                    }
                    Err(error) => format!("cannot be read: {error}"),
                };
                return Err(wrong(format!(
                    "the configuration file {} {is}",
                    file.display()
                )));
            }
            Some(file) => Some(file.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_file()),
        };
        let mut figment = Figment::new();
        if let Some(file) = &file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let environment = Env::prefixed(PREFIX)
            .filter(|name| {
                let name = name.as_str().to_ascii_lowercase();
                let value = || std::env::var(format!("{PREFIX}{}", name.to_uppercase())).ok();
                environment::is_setting(&name, value)
            })
            .split("__");
        figment = figment.merge(environment).merge(Flags(flags(&global.set)?));
        let mut config: Self = figment.extract().map_err(|error| describe(&error))?;
        config.base = file
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned)
            .unwrap_or_default();
        config.file = file;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Some(token) = &self.http.token {
            if token.expose_secret().len() < 16 {
                return Err(key("http.token", "expected at least 16 characters"));
            }
        } else if !self.http.listen.ip().is_loopback() {
            return Err(key(
                "http.listen",
                "expected a loopback address such as 127.0.0.1:8080, for there is no http.token",
            ));
        }
        for (name, span) in [
            ("delivery.timeout", self.delivery.timeout),
            ("plugins.budget", self.plugins.budget),
            ("worker.recording_room", self.worker.recording_room),
            ("tenants.rescan", self.tenants.rescan),
            ("redis.connect_timeout", self.redis.connect_timeout),
        ] {
            if span.0.is_zero() {
                return Err(key(name, "expected more than zero"));
            }
        }
        for (name, number) in [
            ("worker.concurrency", self.worker.concurrency),
            ("worker.max_per_endpoint", self.worker.max_per_endpoint),
            (
                "worker.max_per_tenant",
                self.worker.max_per_tenant.unwrap_or(1) as usize,
            ),
            ("worker.batch", self.worker.batch),
            ("intake.max_payload_bytes", self.intake.max_payload_bytes),
            ("http.max_body_bytes", self.http.max_body_bytes),
            ("plugins.concurrency", self.plugins.concurrency as usize),
            (
                "plugins.max_per_plugin",
                self.plugins.max_per_plugin as usize,
            ),
            ("plugins.versions_kept", self.plugins.versions_kept),
            ("retry.max_attempts", self.retry.max_attempts as usize),
        ] {
            if number == 0 {
                return Err(key(name, "expected at least 1"));
            }
        }
        for (name, number) in [
            ("worker.concurrency", self.worker.concurrency),
            ("worker.batch", self.worker.batch),
        ] {
            if number > MOST_IN_FLIGHT {
                return Err(key(name, &format!("expected at most {MOST_IN_FLIGHT}")));
            }
        }
        if self.intake.max_memory_percent > 100 {
            let words = "expected a whole number from 0 to 100";
            return Err(key("intake.max_memory_percent", words));
        }
        if self.store.kind == StoreKind::Redis {
            self.redis()?;
        }
        if !(0.0..=1.0).contains(&self.retry.jitter) {
            return Err(key("retry.jitter", "expected a number from 0.0 to 1.0"));
        }
        Ok(())
    }

    /// The settings of the Redis store.
    pub(crate) fn redis(&self) -> anyhow::Result<RedisConfig> {
        self.redis
            .settings(&self.base)
            .map_err(|wrong| key(&format!("redis.{}", wrong.key), &wrong.expected))
    }

    /// The catalog; only commands that take events in need one.
    pub(crate) fn catalog(&self) -> anyhow::Result<Catalog> {
        Catalog::new(&self.catalog.types).map_err(|error| key("catalog.types", &error.to_string()))
    }
}

fn wrong(words: String) -> anyhow::Error {
    Coded::new(Exit::Configuration, words)
}

fn key(name: &str, words: &str) -> anyhow::Error {
    wrong(format!("configuration key `{name}`: {words}"))
}

fn flags(set: &[String]) -> anyhow::Result<Dict> {
    let mut all = Dict::new();
    for text in set {
        let Some((name, value)) = text.split_once('=') else {
            return Err(wrong(
                "--set: expected KEY=VALUE, such as http.listen=127.0.0.1:9090".to_owned(),
            ));
        };
        let value: Value = value.parse().unwrap_or_else(|never| match never {});
        insert(&mut all, name.trim(), value);
    }
    Ok(all)
}

fn insert(dict: &mut Dict, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            dict.insert(name.to_owned(), value);
        }
        Some((table, rest)) => {
            let entry = dict
                .entry(table.to_owned())
                .or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

/// One sentence: key, what was expected, and where it was set. Values are not quoted: they may be
/// secrets.
fn describe(error: &figment::Error) -> anyhow::Error {
    let mut path = error.path.join(".");
    let metadata = error.metadata.as_ref();
    let of_environment = metadata.is_some_and(|it| it.name.contains("environment variable"));
    let variable = |path: &str| format!("{PREFIX}{}", path.replace('.', "__").to_uppercase());
    let words = match &error.kind {
        Kind::UnknownField(field, expected) => {
            // Some sources name the field in the path already.
            if error.path.last() != Some(field) {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(field);
            }
            let nearest = nearest(&path).map(|name| {
                let name = if of_environment {
                    variable(&name)
                } else {
                    name
                };
                format!("; did you mean `{name}`?")
            });
            format!(
                "unknown; expected one of {}{}",
                expected.join(", "),
                nearest.unwrap_or_default()
            )
        }
        Kind::InvalidType(actual, expected) => {
            format!("expected {}, found {}", plainly(expected), kind_of(actual))
        }
        Kind::InvalidValue(_, expected) => format!("expected {}", plainly(expected)),
        Kind::MissingField(field) => format!("the key `{field}` is missing"),
        Kind::UnknownVariant(_, expected) => format!("expected one of {}", expected.join(", ")),
        Kind::Message(message) => without_snippet(message),
        other => other.to_string(),
    };
    let source = metadata
        .map(|metadata| {
            match metadata
                .source
                .as_ref()
                .and_then(figment::Source::file_path)
            {
                Some(file) => format!(" (set in {})", file.display()),
                None if of_environment && !path.is_empty() => {
                    format!(" (set by the variable {})", variable(&path))
                }
                None => format!(" (set by {})", metadata.name),
            }
        })
        .unwrap_or_default();
    if path.is_empty() {
        wrong(format!("configuration: {words}{source}"))
    } else {
        wrong(format!("configuration key `{path}`: {words}{source}"))
    }
}

/// A TOML error quotes the line it is about, which may hold a secret: its first and last line say
/// where and what.
fn without_snippet(message: &str) -> String {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first.to_owned(),
    }
}

/// What was expected, without the words of Rust.
fn plainly(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "f64" => "a number",
        "a string" => "a text",
        "a sequence" => "an array",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

fn kind_of(actual: &figment::error::Actual) -> &'static str {
    use figment::error::Actual;
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "an array",
        Actual::Map => "a table",
        _ => "something else",
    }
}
