//! `wasmhook queue check`

use serde::Serialize;
use wasmhook_store::check::{Example, Found};
use wasmhook_store::{CheckReport, CheckRequest, Finding};

use crate::config::Config;
use crate::exit::{Coded, Exit};
use crate::{output, stores};

#[derive(Serialize)]
struct Checked<'a> {
    sound: bool,
    /// How much was found and not mended.
    left: u64,
    #[serde(flatten)]
    report: &'a CheckReport,
}

/// Checks the queue and, if asked to, mends it.
pub(crate) async fn check(config: &Config, repair: bool, json: bool) -> anyhow::Result<()> {
    let store = stores::open(config, false).await?.store;
    let request = CheckRequest {
        repair,
        gentle: false,
    };
    let report = store.check(request).await?;
    if json {
        output::json(&Checked {
            sound: report.is_sound(),
            left: report.left(),
            report: &report,
        })?;
    } else {
        tell(&report);
    }
    let left = report.left();
    if left == 0 {
        return Ok(());
    }
    let words = if repair {
        format!("{left} of what was found cannot be repaired")
    } else {
        format!(
            "{} found; `wasmhook queue check --repair` mends what can be mended",
            output::count(left, "fault")
        )
    };
    Err(Coded::new(Exit::Failure, words))
}

fn tell(report: &CheckReport) {
    let looked = &report.looked;
    output::line(format!(
        "looked at {}, {} of them open: {} due in {}, {} waiting, {} behind others in their sequence, \
         {} leased",
        output::count(looked.deliveries, "delivery"),
        looked.open,
        looked.due,
        output::count(looked.lanes, "lane"),
        looked.waiting,
        looked.behind,
        looked.leased
    ));
    let rows: Vec<_> = report.findings.iter().map(row).collect();
    let header = ["found", "repaired", "kind", "meaning", "for example"];
    output::table(header, rows, "the queue is sound");
}

fn row((finding, found): (&Finding, &Found)) -> [String; 5] {
    let examples: Vec<_> = found.examples.iter().map(example).collect();
    [
        found.count.to_string(),
        found.repaired.to_string(),
        finding.as_str().to_owned(),
        finding.meaning().to_owned(),
        examples.join(", "),
    ]
}

fn example(example: &Example) -> String {
    // Escaped, because a damaged store may hold anything.
    let subject = example.subject.escape_debug();
    if example.tenant.is_empty() {
        subject.to_string()
    } else {
        format!("{} {subject}", example.tenant.escape_debug())
    }
}
