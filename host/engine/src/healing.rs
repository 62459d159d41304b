//! Deliveries that failed because of a plugin: they go out by themselves once another version serves.
//!
//! Such a delivery keeps its retry schedule, which may have it wait for hours. Until its next try is due
//! it is looked at every now and then. A look that finds the plugins as they were moves the delivery's
//! time and does nothing else: no guest runs, no attempt is added, no retry is used up. One that finds
//! another version, or another manifest, tries at once, and if that fails in a plugin again, the schedule
//! goes on as if it had not been.
//!
//! Looks are spread, so what a repaired plugin releases comes over the length of one look and not all at
//! once; it then queues as any other retry, beside first attempts and within the endpoint's cap.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use wasmhook_core::attempt::Attempt;
use wasmhook_core::{Delivery, DeliveryId, DeliveryState, Event, Outcome};
use wasmhook_runtime::{Exports, GlobalPlugins, Plugin, TenantPlugins};

use crate::resolve::unready;

/// The shortest time between two looks: what is repaired at once heals within seconds.
const SOONEST: Duration = Duration::from_secs(5);
/// The longest, so that with its spread it stays within a minute: a hundred thousand deliveries then cost
/// 2500 looks a second.
const LATEST: Duration = Duration::from_secs(40);
/// In between, the share of the time that has passed since the attempt that failed.
const SHARE: u32 = 8;

/// The attempt that a delivery failed with because of a plugin, while its next one is not due.
pub(crate) fn pending<'a>(
    delivery: &Delivery,
    attempts: &'a [Attempt],
    now: Timestamp,
) -> Option<&'a Attempt> {
    attempts.last().filter(|last| {
        delivery.state == DeliveryState::Failed
            && last.outcome == Outcome::PluginError
            && last.next_at.is_some_and(|due| due > now)
    })
}

/// When a delivery that failed in a plugin is looked at next, which is no later than `due`.
pub(crate) fn next_look(
    delivery: &DeliveryId,
    failed_at: Timestamp,
    due: Timestamp,
    now: Timestamp,
) -> Timestamp {
    let age = Duration::try_from(now.duration_since(failed_at)).unwrap_or_default();
    let wait = spread((age / SHARE).clamp(SOONEST, LATEST), delivery, now);
    now.saturating_add(wait).map_or(due, |look| look.min(due))
}

/// From half to one and a half of a wait: spread over deliveries and over their looks.
pub(crate) fn spread(wait: Duration, delivery: &DeliveryId, now: Timestamp) -> Duration {
    let drawn = BuildHasherDefault::<DefaultHasher>::default()
        .hash_one((delivery.as_str(), now.as_nanosecond()));
    let parts = u32::try_from(drawn % 1024).unwrap_or_default();
    wait / 2 + wait * parts / 1024
}

/// Whether the plugins that an event passes are others than those that an attempt failed with, or have
/// been set up anew since. As long as one of them cannot serve they are not.
pub(crate) fn has_changed(
    (plugins, global): (&TenantPlugins, &GlobalPlugins),
    event: &Event,
    failed: &Attempt,
    is_resolution: bool,
) -> bool {
    let event_type = event.event_type.as_str();
    let mut concerned: Vec<Arc<Plugin>> = Vec::new();
    if is_resolution {
        if unready(&plugins.unready, event_type, |exports| exports.resolve).is_some() {
            return false;
        }
        concerned.extend(plugins.resolver_for(event.id.as_str()).cloned());
    } else {
        for stage in global.around(plugins) {
            if unready(stage.unready, event_type, |exports| exports.transform).is_some() {
                return false;
            }
            concerned.extend_from_slice(stage.transforms);
        }
    }
    let mut concerned: Vec<Arc<Plugin>> = concerned
        .iter()
        .filter_map(|plugin| {
            let export = |exports: Exports| {
                if is_resolution {
                    exports.resolve
                } else {
                    exports.transform
                }
            };
            plugin.version_with(export, event.id.as_str(), event_type)
        })
        .collect();
    // The endpoint's signer is asked whatever types it sees.
    let signs = |plugin: &&Arc<Plugin>| {
        let used = failed.plugins.last();
        used.is_some_and(|used| used.name == plugin.name())
    };
    if let Some(signer) = plugins.signers.iter().find(signs) {
        concerned.push(signer.version_for(event.id.as_str()));
    }
    let is_newer = |plugin: &Arc<Plugin>| plugin.in_force_since() > failed.at;
    // The one that failed came last, and there is none if it had no version to serve.
    let is_there = failed.plugins.last().is_some_and(|used| {
        concerned
            .iter()
            .any(|plugin| plugin.name() == used.name && plugin.digest().to_string() == used.digest)
    });
    !is_there || concerned.iter().any(is_newer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn looks_are_spread_grow_rarer_and_come_no_later_than_the_retry() {
        let due = at(1_000_000);
        let wait = |n: u32, age: i64| {
            let delivery = DeliveryId::new(format!("whdel_{n}")).unwrap();
            let now = at(age);
            next_look(&delivery, at(0), due, now)
                .duration_since(now)
                .as_secs_f64()
        };
        for (age, wanted) in [(0, 5.0), (40, 5.0), (160, 20.0), (100_000, 40.0)] {
            let waits: Vec<f64> = (0..1000).map(|n| wait(n, age)).collect();
            assert!(
                waits
                    .iter()
                    .all(|wait| (wanted * 0.5..=wanted * 1.5).contains(wait)),
                "after {age} s"
            );
            for tenth in 0..10 {
                let from = wanted * (0.5 + f64::from(tenth) / 10.0);
                let count = waits
                    .iter()
                    .filter(|wait| (from..from + wanted / 10.0).contains(*wait))
                    .count();
                assert!((50..200).contains(&count), "{count} of 1000 from {from} s");
            }
        }
        let delivery = DeliveryId::new("whdel_1").unwrap();
        assert_eq!(next_look(&delivery, at(0), at(2), at(1)), at(2));
    }

    #[test]
    fn only_what_failed_in_a_plugin_and_is_not_due_is_looked_at() {
        let event = wasmhook_core::EventDraft {
            id: "evt_1".into(),
            tenant: "acme".into(),
            event_type: "invoice.paid".into(),
            payload: bytes::Bytes::from_static(b"{}"),
            ..wasmhook_core::EventDraft::default()
        }
        .accept(at(0), 1024)
        .unwrap();
        let endpoint = wasmhook_core::EndpointId::new("main").unwrap();
        let id = DeliveryId::new("whdel_1").unwrap();
        let mut delivery = Delivery::pending(id, &event, endpoint, None, at(0));
        delivery.state = DeliveryState::Failed;
        let failed = |outcome, due| {
            let class = wasmhook_core::ErrorClass::Plugin;
            let mut attempt =
                Attempt::refused(1, at(0), Duration::ZERO, outcome, class, true, "it trapped");
            attempt.next_at = Some(at(due));
            [attempt]
        };
        let plugin = failed(Outcome::PluginError, 100);
        assert!(pending(&delivery, &plugin, at(50)).is_some());
        assert!(
            pending(&delivery, &plugin, at(100)).is_none(),
            "its retry is due"
        );
        let receiver = failed(Outcome::Failed, 100);
        assert!(pending(&delivery, &receiver, at(50)).is_none());
        assert!(pending(&delivery, &[], at(50)).is_none());
        delivery.state = DeliveryState::Pending;
        assert!(
            pending(&delivery, &plugin, at(50)).is_none(),
            "it was replayed"
        );
    }
}
