//! The file beside a plugin that says how to run it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::Reuse;
use crate::error::LoadError;
use crate::grants::Grants;
use crate::limits::PartialLimits;
use crate::rollout::Rollout;

/// `NN-name.toml`. Every part is optional, and so is the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The event types that the plugin sees; `*` or nothing means every one.
    pub events: Option<Vec<String>>,
    /// What the guest reads through `config`.
    pub config: BTreeMap<String, String>,
    /// What the plugin may use besides what every plugin has, as far as the operator allows it.
    pub grants: Grants,
    /// Limits other than the host's, up to the operator's caps.
    pub limits: PartialLimits,
    /// What becomes of a delivery when the plugin fails.
    pub failure: FailurePolicy,
    /// Whether an instance serves several calls; the host's setting if absent.
    pub reuse: Option<Reuse>,
    /// How a new component comes into service while another one serves; at once if absent.
    pub rollout: Option<Rollout>,
}

/// What becomes of a delivery when a plugin fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// It waits and is tried again, so that a repaired plugin heals it.
    #[default]
    Retry,
    /// It is given up.
    DeadLetter,
    /// It goes out as if the plugin were not there.
    DeliverOriginal,
}

impl Manifest {
    /// Read a manifest; `file` names it in the refusal.
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Manifest {
            file: file.to_owned(),
            reason,
        };
        let source =
            std::str::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
        toml::from_str(source).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            refuse(match error.span() {
                Some(span) => format!("{}: {message}", place(source, span.start)),
                None => message,
            })
        })
    }

    /// Whether the plugin sees events of this type.
    pub fn sees(&self, event_type: &str) -> bool {
        match &self.events {
            None => true,
            Some(events) => events
                .iter()
                .any(|event| event == "*" || event == event_type),
        }
    }
}

/// Names the line, and its key if it has one.
fn place(source: &str, at: usize) -> String {
    let before = source.get(..at).unwrap_or(source);
    let number = before.matches('\n').count() + 1;
    let line = source.lines().nth(number - 1).unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) => format!("line {number}, key `{}`", key.trim()),
        None => format!("line {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Canary, ShadowRules};

    fn refusal(source: &str) -> String {
        Manifest::parse("10-redact.toml", source.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_part_is_read() {
        let manifest = Manifest::parse(
            "m.toml",
            br#"
            events = ["invoice.paid"]
            failure = "deliver-original"
            reuse = { calls = 5, seconds = 9 }
            [config]
            fields = "a,b"
            [limits]
            cpu_time_ms = 10
            "#,
        )
        .unwrap();
        assert!(manifest.sees("invoice.paid") && !manifest.sees("invoice.sent"));
        assert_eq!(manifest.failure, FailurePolicy::DeliverOriginal);
        assert_eq!(
            manifest.reuse,
            Some(Reuse::UpTo {
                calls: 5,
                seconds: 9
            })
        );
        assert_eq!(manifest.limits.cpu_time_ms, Some(10));
        assert!(Manifest::default().sees("anything"));
        let rollout = |text: &str| {
            let text = format!("rollout = {{ {text} }}");
            Manifest::parse("m.toml", text.as_bytes()).unwrap().rollout
        };
        assert_eq!(
            rollout("canary_percent = 10, max_p99_ms = 20"),
            Some(Rollout::Canary(Canary {
                percent: 10,
                promote_after: 1000,
                max_error_percent: 1,
                max_p99_ms: Some(20)
            }))
        );
        assert_eq!(
            rollout("shadow = true, promote_after = 50"),
            Some(Rollout::Shadow(ShadowRules {
                promote_after: Some(50)
            }))
        );
        assert_eq!(
            Manifest::parse("m.toml", b"reuse = \"fresh\"")
                .unwrap()
                .reuse,
            Some(Reuse::Fresh)
        );
    }

    #[test]
    fn a_refusal_names_the_file_the_line_and_the_key() {
        assert_eq!(
            refusal("\nfailure = \"explode\""),
            "10-redact.toml is not a valid manifest: line 2, key `failure`: unknown variant \
             `explode`, expected one of `retry`, `dead-letter`, `deliver-original`"
        );
        assert!(refusal("evnts = []").contains("line 1, key `evnts`: unknown field `evnts`"));
        assert!(refusal("[limits]\nmemory = 1").contains("line 2, key `memory`"));
        assert_eq!(
            refusal("[limits]\ncpu_time_ms = 0"),
            "10-redact.toml is not a valid manifest: line 2, key `cpu_time_ms`: expected at least 1"
        );
        assert!(refusal("reuse = \"often\"").contains("line 1, key `reuse`: expected \"fresh\""));
        assert!(refusal("reuse = { calls = 0, seconds = 1 }").contains("above zero"));
        for (rollout, words) in [
            ("canary_percent = 0", "expected canary_percent from 1 to 99"),
            (
                "promote_after = 5",
                "expected either canary_percent or shadow = true",
            ),
            (
                "canary_percent = 5, shadow = true",
                "expected either canary_percent or",
            ),
            (
                "shadow = true, max_p99_ms = 5",
                "are for a canary, not for a shadow",
            ),
            (
                "canary_percent = 5, promote_after = 0",
                "expected promote_after above zero",
            ),
        ] {
            let told = refusal(&format!("rollout = {{ {rollout} }}"));
            assert!(
                told.contains("key `rollout`") && told.contains(words),
                "{told}"
            );
        }
        assert!(refusal("[config]\nfields = 3").contains("line 2, key `fields`"));
    }
}
