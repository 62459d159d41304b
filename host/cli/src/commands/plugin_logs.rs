//! `wasmhook plugins logs`: what a tenant's plugins logged on this machine's host.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use wasmhook_runtime::{GLOBAL, LogLine, log_files};

use crate::config::Config;
use crate::output;

/// How often a file that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Which lines to show.
pub(crate) struct Wanted {
    pub(crate) tenant: String,
    pub(crate) plugin: Option<String>,
    /// At most so many of those there are already.
    pub(crate) lines: usize,
}

impl Wanted {
    fn wants(&self, line: &LogLine) -> bool {
        let own = line.plugin.strip_prefix(GLOBAL);
        let name = own.map_or(&*line.plugin, |own| own.trim_start_matches('/'));
        self.plugin.as_deref().is_none_or(|wanted| wanted == name)
    }
}

/// Shows the lines that there are, and with `follow` those that come.
pub(crate) async fn run(
    config: &Config,
    wanted: &Wanted,
    follow: bool,
    json: bool,
) -> anyhow::Result<()> {
    let tenant = &*wanted.tenant;
    let folder = config.path(&config.plugins.log.folder);
    let [older, newer] = log_files(&folder, tenant);
    let mut tail = Tail::new(newer);
    let mut lines = parse(&read(&older)?);
    lines.extend(parse(&tail.read()?));
    lines.retain(|line| wanted.wants(line));
    let skipped = lines.len().saturating_sub(wanted.lines);
    if lines.is_empty() && !follow && !json {
        output::line(format!(
            "nothing logged by plugins of {tenant} on this host"
        ));
    }
    for line in &lines[skipped..] {
        show(line, json)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(LOOK).await;
        for line in parse(&tail.read()?) {
            if wanted.wants(&line) {
                show(&line, json)?;
            }
        }
    }
}

fn show(line: &LogLine, json: bool) -> anyhow::Result<()> {
    if json {
        output::line(serde_json::to_string(line)?);
    } else {
        output::line(format!(
            "{} {:<5} {}{}: {}",
            output::time(line.at),
            line.level,
            line.plugin,
            line.tenant
                .as_ref()
                .map_or_else(String::new, |tenant| format!(" for {tenant}")),
            line.message
        ));
    }
    Ok(())
}

/// The whole lines of a text; a line of a newer version may be of another form, and is left out.
fn parse(text: &[u8]) -> Vec<LogLine> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A file that grows, and is put aside for a new one when it is full.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// Begun and not ended.
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            rest: Vec::new(),
        }
    }

    /// The whole lines that came since the last time.
    fn read(&mut self) -> anyhow::Result<Vec<u8>> {
        let cannot = || format!("cannot read {}", self.path.display());
        let mut text = std::mem::take(&mut self.rest);
        // What was written before it was put aside is read to its end first.
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut text).with_context(cannot)?;
        }
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(cannot),
            Ok(mut now) => {
                if !self.file.as_ref().is_some_and(|file| is_same(file, &now)) {
                    now.seek(SeekFrom::Start(0)).with_context(cannot)?;
                    now.read_to_end(&mut text).with_context(cannot)?;
                    self.file = Some(now);
                }
            }
        }
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.rest = text.split_off(whole);
        Ok(text)
    }
}

fn is_same(one: &File, other: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_followed_over_its_replacement_and_half_lines_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.ndjson");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.read().unwrap(), b"");
        fs::write(&path, "one\ntw").unwrap();
        assert_eq!(tail.read().unwrap(), b"one\n");
        fs::write(&path, "one\ntwo\n").unwrap();
        fs::rename(&path, folder.path().join("older.ndjson")).unwrap();
        fs::write(&path, "three\n").unwrap();
        assert_eq!(tail.read().unwrap(), b"two\nthree\n");
        assert_eq!(tail.read().unwrap(), b"");
    }
}
