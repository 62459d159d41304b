//! Debian's packages.

use std::process::{Command, Stdio};

use super::works;
use crate::step;

/// Installs packages where that takes no asking: by root, or where sudo asks for no password.
pub(crate) fn install(packages: &[&str], why: &str) -> bool {
    if !works("apt-get", &["--version"]) {
        return false;
    }
    step(&format!(
        "installing from Debian, {why}: {}",
        packages.join(" ")
    ));
    let prefix: &[&str] = if works("sh", &["-c", "test \"$(id -u)\" = 0"]) {
        &[]
    } else {
        &["sudo", "-n"]
    };
    let install: Vec<&str> = ["install", "-y"]
        .into_iter()
        .chain(packages.iter().copied())
        .collect();
    apt(prefix, &install) || (apt(prefix, &["update"]) && apt(prefix, &install))
}

fn apt(prefix: &[&str], words: &[&str]) -> bool {
    let all: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["apt-get", "-q"])
        .chain(words.iter().copied())
        .collect();
    let Some((program, words)) = all.split_first() else {
        return false;
    };
    Command::new(program)
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
