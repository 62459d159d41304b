//! What the example producers and receivers run on.

use anyhow::bail;

use crate::tools::{debian, node, python, works};
use crate::{root, step};

/// Installs what the examples in Python, JavaScript and shell need, and gives what the names of the
/// tests begin with that cannot be run; there may be none where `must` is true.
pub(crate) fn set_up(must: bool) -> anyhow::Result<Vec<String>> {
    let mut left_out = Vec::new();
    for (examples, set_up) in [
        ("javascript", npm as fn() -> anyhow::Result<()>),
        ("python", venv),
        ("curl", curl),
    ] {
        match set_up() {
            Ok(()) => {}
            Err(why) if must => bail!("the examples with {examples} cannot be run: {why:#}"),
            Err(why) => {
                step(&format!("left out: the examples with {examples}: {why:#}"));
                left_out.push(format!("{examples}_pushes_"));
            }
        }
    }
    Ok(left_out)
}

fn npm() -> anyhow::Result<()> {
    let examples = root().join("examples");
    node::packages(&examples.join("producers"))?;
    node::packages(&examples.join("receivers"))
}

fn venv() -> anyhow::Result<()> {
    let examples = root().join("examples");
    let requirements =
        ["producers", "receivers"].map(|folder| examples.join(folder).join("requirements.txt"));
    python::environment(&root().join("target/examples/python"), &requirements)?;
    Ok(())
}

fn curl() -> anyhow::Result<()> {
    let works = || works("curl", &["--version"]);
    if works() || (debian::install(&["curl"], "for an example") && works()) {
        return Ok(());
    }
    bail!("there is no curl on the path")
}
