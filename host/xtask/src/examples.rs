//! What the example producers and receivers run on.

use anyhow::bail;

use crate::tools::{node, python};
use crate::{root, step};

/// Installs the packages that the examples in Python and JavaScript name, and gives the tools that
/// are left out; none may be where `must` is true.
pub(crate) fn set_up(must: bool) -> anyhow::Result<Vec<&'static str>> {
    let mut left_out = Vec::new();
    for (tool, set_up) in [
        ("node", npm as fn() -> anyhow::Result<()>),
        ("python3", venv),
    ] {
        match set_up() {
            Ok(()) => {}
            Err(why) if must => bail!("the examples with {tool} cannot be run: {why:#}"),
            Err(why) => {
                step(&format!("left out: the examples with {tool}: {why:#}"));
                left_out.push(tool);
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
