//! Housekeeping: what is finished goes when its time is over or there is too much of it, the oldest first.

use std::collections::BTreeSet;

use wasmhook_core::TenantId;
use wasmhook_store::Retention;

use super::{Key, Place, Reference, Verdict, promise};
use crate::window::Window;

impl Reference {
    /// Housekeeping removed finished deliveries; `kept` is what is listed since.
    pub(crate) fn retain(
        &mut self,
        call: Window,
        retention: Retention,
        removed: usize,
        kept: &BTreeSet<Key>,
    ) -> Verdict {
        self.calls += 1;
        let gone: Vec<_> = self
            .deliveries
            .keys()
            .filter(|key| !kept.contains(key))
            .cloned()
            .collect();
        let bare = self.events.values().filter(|story| story.bare).count();
        promise!(
            (gone.len()..=gone.len() + bare).contains(&removed),
            "{} deliveries are gone, and {removed} are said to be",
            gone.len()
        );
        let tenants: BTreeSet<_> = self
            .deliveries
            .keys()
            .map(|(tenant, _)| tenant.clone())
            .collect();
        for tenant in tenants {
            self.check_retained(call, retention, &tenant, kept)?;
        }
        for key in gone {
            let Some(known) = self.deliveries.remove(&key) else {
                continue;
            };
            let id = (key.0.clone(), known.event.clone());
            let last = !self
                .deliveries
                .iter()
                .any(|(other, known)| other.0 == id.0 && known.event == id.1);
            if last {
                self.events.remove(&id);
            }
        }
        Ok(())
    }

    fn check_retained(
        &self,
        call: Window,
        retention: Retention,
        tenant: &TenantId,
        kept: &BTreeSet<Key>,
    ) -> Verdict {
        let (mut finished, mut removed_young, mut left) = (0_usize, 0_usize, 0_usize);
        let (mut last_removed, mut first_left) = (0, u64::MAX);
        for (key, known) in self.deliveries.iter().filter(|(key, _)| key.0 == *tenant) {
            let Place::Finished { at, call: by, .. } = &known.place else {
                promise!(
                    kept.contains(key),
                    "{key:?} was removed before it was finished"
                );
                continue;
            };
            finished += 1;
            let end = at.plus(retention.age);
            if kept.contains(key) {
                left += 1;
                first_left = first_left.min(*by);
                promise!(
                    !end.surely_before(call),
                    "{key:?} is kept longer than its time"
                );
            } else {
                last_removed = last_removed.max(*by);
                removed_young += usize::from(call.surely_before(end));
            }
        }
        promise!(
            left <= retention.count,
            "{left} finished deliveries of {tenant} are kept, not {}",
            retention.count
        );
        promise!(
            removed_young <= finished.saturating_sub(retention.count),
            "{removed_young} of {tenant} were removed before their time, with {finished} of {} kept",
            retention.count
        );
        promise!(
            last_removed <= first_left,
            "of {tenant}, what finished later was removed before what finished earlier"
        );
        Ok(())
    }
}
