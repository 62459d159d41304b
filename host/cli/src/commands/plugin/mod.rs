//! `wasmhook plugin …`: what a plugin's author does, on a machine of their own and without a host.

mod answer;
mod bench;
mod build;
mod check;
mod difference;
mod endpoints;
mod guest_lines;
mod input;
mod keys;
mod language;
mod new;
mod question;
mod receiver_answer;
mod report;
mod template;
mod test;
mod trial;

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use wasmhook_runtime::{PluginHost, Services};

use crate::args::{Global, Plugin};
use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::host;

pub(crate) use check::check;
pub(crate) use endpoints::Named;
pub(crate) use keys::SecretFile;
pub(crate) use language::Language;
pub(crate) use new::name;
pub(crate) use receiver_answer::Given;

/// Runs an author's command.
pub(crate) async fn run(global: &Global, command: Plugin, json: bool) -> anyhow::Result<()> {
    let config = || Config::load(global);
    match command {
        Plugin::New { lang, name } => new::new(lang, &name, json),
        Plugin::Build { folder } => build::build(&config()?, &folder, json).await,
        Plugin::Check { file } => check(&config()?, &file, json).await,
        Plugin::Test(args) => test::test(&config()?, args, json).await,
        Plugin::Bench(args) => bench::bench(&config()?, args, json).await,
    }
}

/// The runtime of plugins as the configuration sets it up, which gives them these services. Without a configuration file, what is
/// compiled is kept in the user's cache instead of a folder beside the project.
fn runtime(config: &Config, services: Services) -> anyhow::Result<PluginHost> {
    let mut config = config.clone();
    if config.file.is_none()
        && config.plugins.cache == crate::config::Plugins::default().cache
        && let Some(folder) = user_cache()
    {
        config.plugins.cache = folder;
    }
    host::plugins(&config, false, services)
}

/// `$XDG_CACHE_HOME/wasmhook/plugins`, or the same under `~/.cache`.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("wasmhook/plugins"))
}

/// Refuses a path that is no file, before anything is set up for it.
fn must_exist(file: &Path) -> anyhow::Result<()> {
    must_be(file, "a file", Metadata::is_file)
}

fn must_be(path: &Path, what: &str, is: fn(&Metadata) -> bool) -> anyhow::Result<()> {
    let (exit, found) = match fs::metadata(path) {
        Ok(metadata) if is(&metadata) => return Ok(()),
        Ok(_) => (Exit::NotFound, format!("is not {what}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            (Exit::NotFound, "does not exist".to_owned())
        }
        Err(error) => (Exit::Failure, format!("cannot be read: {error}")),
    };
    Err(Coded::new(exit, format!("{} {found}", path.display())))
}

/// Says why the host would not serve a file.
fn refused(file: &Path, reason: &dyn std::fmt::Display) -> anyhow::Error {
    Coded::new(
        Exit::Refused,
        format!("{} would be refused: {reason}", file.display()),
    )
}

/// Shows on a terminal that a component is being compiled, which can take a while, until it is dropped.
struct Compiling(ProgressBar);

impl Compiling {
    fn show(file: &Path) -> Self {
        let bar = ProgressBar::new_spinner().with_message(format!("compiling {}", file.display()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes for people.
fn bytes(count: usize) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "one digit behind the point is shown"
    )]
    let count_f = count as f64;
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=1_048_575 => format!("{:.1} KiB", count_f / 1024.0),
        _ => format!("{:.1} MiB", count_f / (1024.0 * 1024.0)),
    }
}

/// A number of microseconds or bytes as JSON has it.
fn whole<T: TryInto<u64>>(number: T) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}
