//! Tools that are no part of a Rust installation: found, installed where that takes no asking, or
//! named in one sentence.

pub(crate) mod clang;
pub(crate) mod componentize;
pub(crate) mod debian;
pub(crate) mod go;
pub(crate) mod node;
pub(crate) mod python;
pub(crate) mod valkey;

use std::process::{Command, Stdio};

/// Whether a command runs and succeeds. It is not seen.
pub(crate) fn works(program: &str, words: &[&str]) -> bool {
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What a command that succeeds prints.
pub(crate) fn output(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The first number in a text such as `v20.1.0` or `go1.27`, and the second, zero if there is none.
fn version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text[start..]
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read_from_what_tools_print() {
        assert_eq!(version("v20.20.2"), Some((20, 20)));
        assert_eq!(version("go version go1.27.3 linux/amd64"), Some((1, 27)));
        assert_eq!(version("clang 14"), Some((14, 0)));
        assert_eq!(version("none"), None);
    }
}
