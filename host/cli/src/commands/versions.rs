//! `wasmhook plugins history`, `rollback`, `pin`, `unpin` and `promote`
//!
//! What became of versions is read from the folder where the host on this machine keeps them. What is
//! to serve is said with files in the tenant's folder, which every host that shares it takes up.

use serde::Serialize;
use wasmhook_runtime::{
    ArchiveError, ControlError, Digest, PluginFiles, VersionArchive, VersionRecord,
};

use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::output;

/// One version, in JSON.
#[derive(Serialize)]
struct Version {
    #[serde(flatten)]
    record: VersionRecord,
    /// Whether the host can go back to it.
    kept: bool,
    /// Whether it is what lies in the plugin's file.
    in_file: bool,
    /// Whether it is pinned.
    pinned: bool,
}

/// A plugin whose versions are looked at or chosen.
struct Plugin<'a> {
    tenant: &'a str,
    name: &'a str,
    archive: VersionArchive,
    files: PluginFiles,
}

impl<'a> Plugin<'a> {
    fn new(config: &Config, tenant: &'a str, name: &'a str) -> anyhow::Result<Self> {
        Ok(Self {
            tenant,
            name,
            archive: VersionArchive::look(&config.path(&config.plugins.versions)),
            files: PluginFiles::new(&config.plugin_folders(), tenant, name).map_err(refusal)?,
        })
    }

    fn versions(&self) -> anyhow::Result<Vec<(VersionRecord, bool)>> {
        let versions = self.archive.versions(self.tenant, self.name)?;
        if versions.is_empty() {
            let words = format!(
                "no host on this configuration knows a version of plugin {} of tenant {}",
                self.name, self.tenant
            );
            return Err(Coded::new(Exit::NotFound, words));
        }
        Ok(versions)
    }

    /// The version that a digest, or the beginning of one, names.
    fn find(&self, wanted: &str) -> anyhow::Result<Digest> {
        let versions = self.versions()?;
        let mut matching = versions
            .iter()
            .map(|(record, _)| record.digest)
            .filter(|digest| digest.to_string().starts_with(&wanted.to_lowercase()));
        match (matching.next(), matching.next()) {
            (Some(digest), None) => Ok(digest),
            (None, _) => Err(Coded::new(
                Exit::NotFound,
                format!("plugin {} had no version {wanted} on this host", self.name),
            )),
            _ => Err(Coded::new(
                Exit::Refused,
                format!(
                    "more than one version of plugin {} begins with {wanted}; give more of the digest",
                    self.name
                ),
            )),
        }
    }

    fn component(&self, digest: Digest) -> anyhow::Result<Vec<u8>> {
        let kept = self.archive.get(self.tenant, self.name, digest);
        kept.map(|kept| kept.component).map_err(|error| {
            let exit = match error {
                ArchiveError::NotKept(_) => Exit::NotFound,
                _ => Exit::Failure,
            };
            Coded::new(exit, error.to_string())
        })
    }

    /// Tells what was done.
    fn done(&self, digest: Option<Digest>, words: &str, json: bool) -> anyhow::Result<()> {
        if json {
            return output::json(&Done {
                tenant: self.tenant,
                name: self.name,
                digest,
            });
        }
        output::line(format!(
            "plugin {} of tenant {} {words}",
            self.name, self.tenant
        ));
        Ok(())
    }
}

#[derive(Serialize)]
struct Done<'a> {
    tenant: &'a str,
    name: &'a str,
    digest: Option<Digest>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "errors are handed over by value where it stands"
)]
fn refusal(error: ControlError) -> anyhow::Error {
    let exit = match error {
        ControlError::NoPlugin { .. } | ControlError::Name(_) | ControlError::NoGlobal => {
            Exit::NotFound
        }
        _ => Exit::Failure,
    };
    Coded::new(exit, error.to_string())
}

fn short(digest: Digest) -> String {
    output::short(&digest.to_string()).to_owned()
}

/// Tells what became of each version, newest change first.
pub(crate) fn history(config: &Config, tenant: &str, name: &str, json: bool) -> anyhow::Result<()> {
    let plugin = Plugin::new(config, tenant, name)?;
    let versions = plugin.versions()?;
    let in_file = plugin.files.version().map_err(refusal)?;
    let pinned = plugin.files.pinned().map_err(refusal)?;
    let versions: Vec<Version> = versions
        .into_iter()
        .rev()
        .map(|(record, kept)| Version {
            in_file: in_file == Some(record.digest),
            pinned: pinned == Some(record.digest),
            record,
            kept,
        })
        .collect();
    if json {
        return output::json(&versions);
    }
    let rows = versions
        .into_iter()
        .map(|version| {
            let record = version.record;
            let marks = [
                (version.in_file, "in the file"),
                (version.pinned, "pinned"),
                (version.kept, "kept"),
            ];
            let marks: Vec<_> = marks
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, word)| *word)
                .collect();
            [
                short(record.digest),
                record.state.as_str().to_owned(),
                output::time(record.since),
                marks.join(", "),
                record.calls.to_string(),
                record.faults.to_string(),
                record.why.unwrap_or_default(),
            ]
        })
        .collect();
    let header = ["version", "state", "since", "is", "calls", "faults", "why"];
    output::table(header, rows, "no versions");
    Ok(())
}

/// Puts a former version in the place of the plugin's file.
pub(crate) fn rollback(
    config: &Config,
    tenant: &str,
    name: &str,
    digest: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let plugin = Plugin::new(config, tenant, name)?;
    if let Some(pinned) = plugin.files.pinned().map_err(refusal)? {
        let words = format!(
            "plugin {name} is pinned to {}; unpin it first",
            short(pinned)
        );
        return Err(Coded::new(Exit::Refused, words));
    }
    let digest = match digest {
        Some(wanted) => plugin.find(wanted)?,
        None => last_good(&plugin)?,
    };
    plugin
        .files
        .replace(&plugin.component(digest)?)
        .map_err(refusal)?;
    let words = format!("goes back to version {}", short(digest));
    plugin.done(Some(digest), &words, json)
}

/// The version that served last and is kept, other than the one in the file.
fn last_good(plugin: &Plugin<'_>) -> anyhow::Result<Digest> {
    let in_file = plugin.files.version().map_err(refusal)?;
    plugin
        .versions()?
        .into_iter()
        .rev()
        .filter(|(record, kept)| *kept && record.state.is_good())
        .map(|(record, _)| record.digest)
        .find(|digest| Some(*digest) != in_file)
        .ok_or_else(|| {
            let words = format!("plugin {} has no good version to go back to", plugin.name);
            Coded::new(Exit::NotFound, words)
        })
}

/// Lets a version serve until it is unpinned.
pub(crate) fn pin(
    config: &Config,
    tenant: &str,
    name: &str,
    digest: &str,
    json: bool,
) -> anyhow::Result<()> {
    let plugin = Plugin::new(config, tenant, name)?;
    let digest = plugin.find(digest)?;
    plugin
        .files
        .pin(&plugin.component(digest)?)
        .map_err(refusal)?;
    let words = format!("is pinned to version {}", short(digest));
    plugin.done(Some(digest), &words, json)
}

/// Lets the plugin's file serve again.
pub(crate) fn unpin(config: &Config, tenant: &str, name: &str, json: bool) -> anyhow::Result<()> {
    let plugin = Plugin::new(config, tenant, name)?;
    if !plugin.files.unpin().map_err(refusal)? {
        let words = format!("plugin {name} of tenant {tenant} is not pinned");
        return Err(Coded::new(Exit::NotFound, words));
    }
    let digest = plugin.files.version().map_err(refusal)?;
    plugin.done(digest, "is served from its file again", json)
}

/// Lets the version in the plugin's file serve at once.
pub(crate) fn promote(config: &Config, tenant: &str, name: &str, json: bool) -> anyhow::Result<()> {
    let plugin = Plugin::new(config, tenant, name)?;
    let digest = plugin.files.version().map_err(refusal)?.ok_or_else(|| {
        let words = format!("tenant {tenant} has no plugin {name}");
        Coded::new(Exit::NotFound, words)
    })?;
    plugin.files.promote(digest).map_err(refusal)?;
    let words = format!("serves version {}, the one in its file", short(digest));
    plugin.done(Some(digest), &words, json)
}
