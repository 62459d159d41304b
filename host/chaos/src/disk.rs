//! A disk that can be full.
//!
//! Where file systems can be mounted, as root, it is one of its own in memory, which is made no larger
//! than what is on it. Elsewhere the host is forbidden to write to any file, which it sees as an error
//! of the disk too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit};

/// Far more than a run writes.
const SIZE: &str = "4g";

/// The disk of the embedded store.
#[derive(Debug)]
pub(crate) enum Disk {
    Mounted(PathBuf),
    Limited,
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Mounted(path) = self {
            let _ = quiet(Command::new("umount").arg("--lazy").arg(path));
        }
    }
}

impl Disk {
    /// Makes it for this folder.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        let mounted = quiet(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "tmpfs"])
                .arg(path),
        );
        Ok(if mounted {
            Self::Mounted(path.to_owned())
        } else {
            Self::Limited
        })
    }

    /// How it is made full.
    pub(crate) fn means(&self) -> &'static str {
        match self {
            Self::Mounted(_) => "a file system without room",
            Self::Limited => {
                "a limit on the host's files, for this user may not mount a file system"
            }
        }
    }

    /// Takes all room away from the host.
    pub(crate) fn fill(&self, host: Option<u32>) -> anyhow::Result<()> {
        match self {
            Self::Mounted(path) => fill(path),
            Self::Limited => limit(host, Some(0)),
        }
    }

    /// Gives it back.
    pub(crate) fn clear(&self, host: Option<u32>) -> anyhow::Result<()> {
        match self {
            Self::Mounted(path) => remount(path, SIZE),
            Self::Limited => limit(host, None),
        }
    }
}

/// Makes the file system no larger than what is on it. While that is looked at, more is written.
fn fill(path: &Path) -> anyhow::Result<()> {
    for _ in 0..100 {
        let now = rustix::fs::statvfs(path).context("cannot look at the disk")?;
        let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
        // A fault that does not bite proves nothing.
        if remount(path, &used.to_string()).is_ok() && !has_room(path) {
            return Ok(());
        }
    }
    bail!("{} cannot be filled", path.display())
}

fn has_room(path: &Path) -> bool {
    let probe = path.join("probe");
    let written = std::fs::write(&probe, vec![0; 64 * 1024]).is_ok();
    let _ = std::fs::remove_file(&probe);
    written
}

fn remount(path: &Path, size: &str) -> anyhow::Result<()> {
    let options = format!("remount,size={size}");
    ensure!(
        quiet(Command::new("mount").args(["-o", &options]).arg(path)),
        "cannot set the size of {}",
        path.display()
    );
    Ok(())
}

fn limit(host: Option<u32>, bytes: Option<u64>) -> anyhow::Result<()> {
    let pid = host
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw)
        .context("the host does not run")?;
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    rustix::process::prlimit(Some(pid), Resource::Fsize, limit)
        .context("cannot limit the host's files")?;
    Ok(())
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
