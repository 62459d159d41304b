//! What became of each version of a plugin.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::folder::Standing;
use crate::loader::Version;
use crate::types::Digest;

/// Versions remembered of a plugin: a week of a few drops a day. Of most only this record is left.
const REMEMBERED: usize = 30;

/// What became of one version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The version.
    pub digest: Digest,
    /// What it is now.
    pub state: VersionState,
    /// Since when it is that.
    pub since: Timestamp,
    /// Why, where there is something to say.
    pub why: Option<String>,
    /// Digest of the manifest that it came with, if there was one.
    pub manifest: Option<Digest>,
    /// Since when it has been called with this manifest.
    pub configured: Timestamp,
    /// Whether it is past its first calls, in which it could have been rolled back.
    pub proven: bool,
    /// Whether it stays away although its file is there: it was rolled back, and nothing that is in the
    /// folder has changed since.
    pub barred: bool,
    /// Calls while it served, as far as they are known.
    pub calls: u64,
    /// Those of them in which it trapped, went over a limit, or answered what cannot be used.
    pub faults: u64,
}

/// What a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// It serves.
    Serving,
    /// It served until another took its place.
    Replaced,
    /// The host took it out of service.
    RolledBack,
    /// Its file was refused.
    Refused,
    /// A share of the events goes to it.
    Canary,
    /// Its answers are compared with those of the version in service.
    Shadow,
    /// It was a canary or a shadow until something else took its place in the folder.
    Withdrawn,
}

impl VersionState {
    /// The word for it in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Replaced => "replaced",
            Self::RolledBack => "rolled back",
            Self::Refused => "refused",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Whether a version in this state is called.
    pub(crate) fn is_in_use(self) -> bool {
        matches!(self, Self::Serving | Self::Canary | Self::Shadow)
    }

    /// Whether a version in this state has served and was not found wanting.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Serving | Self::Replaced)
    }
}

/// Calls of a version and how many of them were faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) calls: u64,
    pub(crate) faults: u64,
}

impl Calls {
    /// Whether more than twice the share of these calls failed, compared with the others. Without others
    /// they did. Twice, because shares are rough: calls that choose endpoints and calls for each of them
    /// are counted together, and there are few of a new version.
    pub(crate) fn are_worse_than(self, others: Self) -> bool {
        let share = |one: Self, other: Self| u128::from(one.faults) * u128::from(other.calls);
        others.calls == 0 || share(self, others) > 2 * share(others, self)
    }

    /// So many calls and faults more.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(more.calls),
            faults: self.faults.saturating_add(more.faults),
        }
    }
}

/// All that is remembered of a plugin's versions, the one that changed last at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct History(Vec<VersionRecord>);

impl History {
    /// Oldest change first.
    pub(crate) fn records(&self) -> &[VersionRecord] {
        &self.0
    }

    pub(crate) fn of(&self, digest: Digest) -> Option<&VersionRecord> {
        self.0.iter().find(|record| record.digest == digest)
    }

    /// A version takes over from a file: what was held against others is forgotten, because somebody
    /// has been there since.
    pub(crate) fn takes_over(&mut self, version: Version) {
        let why = match version.standing {
            Standing::Plain => None,
            Standing::Pinned => Some("it was pinned".to_owned()),
            Standing::Promoted => Some("it was promoted".to_owned()),
        };
        self.unbar();
        self.withdraw(version.component);
        self.replace(version.component);
        let known = self.of(version.component);
        if known.is_some_and(|known| known.state == VersionState::Serving) {
            // A restart, or another manifest.
            self.change(version.component).configure(version.manifest);
            return;
        }
        let record = self.change(version.component);
        record.state = VersionState::Serving;
        record.since = Timestamp::now();
        record.configured = record.since;
        record.why = why;
        record.manifest = version.manifest;
        record.proven = false;
        (record.calls, record.faults) = (0, 0);
    }

    /// A version is tried out beside the one that serves.
    pub(crate) fn tried_out(&mut self, version: Version, state: VersionState) {
        self.unbar();
        self.withdraw(version.component);
        let record = self.change(version.component);
        if record.state != state {
            record.since = Timestamp::now();
            record.configured = record.since;
        }
        record.state = state;
        record.why = None;
        record.configure(version.manifest);
        record.proven = false;
    }

    /// A version that was tried out serves from now on.
    pub(crate) fn promoted(&mut self, digest: Digest, why: String) {
        self.replace(digest);
        let record = self.change(digest);
        record.state = VersionState::Serving;
        record.since = Timestamp::now();
        record.configured = record.since;
        record.why = Some(why);
        record.proven = true;
    }

    /// Nothing is held against any version any more.
    fn unbar(&mut self) {
        for record in &mut self.0 {
            record.barred = false;
        }
    }

    /// What serves is replaced, unless it is this version.
    fn replace(&mut self, digest: Digest) {
        self.leave(VersionState::Serving, VersionState::Replaced, digest);
    }

    /// What is tried out is withdrawn, unless it is this version.
    fn withdraw(&mut self, digest: Digest) {
        self.leave(VersionState::Canary, VersionState::Withdrawn, digest);
        self.leave(VersionState::Shadow, VersionState::Withdrawn, digest);
    }

    fn leave(&mut self, from: VersionState, to: VersionState, except: Digest) {
        for record in &mut self.0 {
            if record.state == from && record.digest != except {
                record.state = to;
                record.since = Timestamp::now();
                record.why = None;
            }
        }
    }

    /// A version stands in for what is in the folder, and changes nothing of what is held against that.
    pub(crate) fn stands_in(&mut self, digest: Digest, why: String) {
        if self
            .of(digest)
            .is_some_and(|known| known.state == VersionState::Serving)
        {
            return;
        }
        self.replace(digest);
        let record = self.change(digest);
        record.state = VersionState::Serving;
        record.since = Timestamp::now();
        record.configured = record.since;
        record.why = Some(why);
    }

    /// A version is taken out of service.
    pub(crate) fn rolled_back(&mut self, digest: Digest, why: String, calls: Calls) {
        let record = self.change(digest);
        record.state = VersionState::RolledBack;
        record.since = Timestamp::now();
        record.why = Some(why);
        record.proven = false;
        record.barred = true;
        (record.calls, record.faults) = (calls.calls, calls.faults);
    }

    /// A file was refused. Says so once for as long as nothing else becomes of it.
    pub(crate) fn refused(&mut self, version: Version, why: String) {
        let known = self.of(version.component);
        if known.is_some_and(|known| {
            known.state.is_good()
                || (known.state, &known.why) == (VersionState::Refused, &Some(why.clone()))
        }) {
            return;
        }
        let record = self.change(version.component);
        record.state = VersionState::Refused;
        record.since = Timestamp::now();
        record.why = Some(why);
        record.manifest = version.manifest;
    }

    /// The plugin's file is gone.
    pub(crate) fn removed(&mut self) {
        for record in &mut self.0 {
            record.barred = false;
            record.state = match record.state {
                VersionState::Serving => VersionState::Replaced,
                VersionState::Canary | VersionState::Shadow => VersionState::Withdrawn,
                _ => continue,
            };
            record.since = Timestamp::now();
            record.why = Some("its file was removed".to_owned());
        }
    }

    /// A version is past its first calls.
    pub(crate) fn proven(&mut self, digest: Digest) {
        if let Some(record) = self.0.iter_mut().find(|record| record.digest == digest) {
            record.proven = true;
        }
    }

    /// What a version's calls had come to when they were counted last.
    pub(crate) fn calls(&self, digest: Digest) -> Calls {
        self.of(digest).map_or(Calls::default(), |record| Calls {
            calls: record.calls,
            faults: record.faults,
        })
    }

    /// What a version's calls came to by now.
    pub(crate) fn counted(&mut self, digest: Digest, calls: Calls) {
        if let Some(record) = self.0.iter_mut().find(|record| record.digest == digest) {
            (record.calls, record.faults) = (calls.calls, calls.faults);
        }
    }

    /// Why a version stays away although its file is there.
    pub(crate) fn bar(&self, version: Version) -> Option<&VersionRecord> {
        self.of(version.component)
            .filter(|record| record.barred && record.manifest == version.manifest)
    }

    /// The versions to go back to from another one, best first: what served last.
    pub(crate) fn good(&self, except: Option<Digest>) -> impl Iterator<Item = Digest> {
        self.0
            .iter()
            .rev()
            .filter(move |record| record.state.is_good() && Some(record.digest) != except)
            .map(|record| record.digest)
    }

    /// The record of a version, as the one that changes last.
    fn change(&mut self, digest: Digest) -> &mut VersionRecord {
        let at = self.0.iter().position(|record| record.digest == digest);
        let record = at.map_or_else(|| VersionRecord::new(digest), |at| self.0.remove(at));
        if self.0.len() >= REMEMBERED {
            // What serves stays known, however long ago it came.
            let oldest = self
                .0
                .iter()
                .position(|record| record.state != VersionState::Serving);
            self.0.remove(oldest.unwrap_or_default());
        }
        self.0.push(record);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

impl VersionRecord {
    /// It is called with this manifest.
    fn configure(&mut self, manifest: Option<Digest>) {
        if self.manifest != manifest {
            self.manifest = manifest;
            self.configured = Timestamp::now();
        }
    }

    fn new(digest: Digest) -> Self {
        Self {
            digest,
            state: VersionState::Refused,
            since: Timestamp::now(),
            why: None,
            manifest: None,
            configured: Timestamp::now(),
            proven: false,
            barred: false,
            calls: 0,
            faults: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u32) -> Version {
        Version::plain(Digest::of(&n.to_le_bytes()), None)
    }

    #[test]
    fn a_version_that_was_rolled_back_stays_away_until_another_takes_over() {
        let (old, new, newer) = (version(1), version(2), version(3));
        let mut history = History::default();
        history.takes_over(old);
        history.takes_over(new);
        history.rolled_back(new.component, "trapped".to_owned(), Calls::default());
        history.stands_in(old.component, "instead".to_owned());
        assert_eq!(history.bar(new).unwrap().why.as_deref(), Some("trapped"));
        let other_manifest = Version::plain(new.component, Some(Digest::of(b"fixed")));
        assert!(
            history.bar(other_manifest).is_none(),
            "its files have changed"
        );
        assert_eq!(
            history.good(Some(new.component)).next(),
            Some(old.component)
        );
        history.takes_over(newer);
        assert!(history.bar(new).is_none());
        assert_eq!(
            history.good(Some(newer.component)).collect::<Vec<_>>(),
            [old.component],
            "what was rolled back is nothing to go back to"
        );
    }

    #[test]
    fn a_restart_changes_nothing() {
        let mut history = History::default();
        history.takes_over(version(1));
        history.takes_over(version(2));
        history.proven(version(2).component);
        let before = history.clone();
        history.takes_over(version(2));
        assert_eq!(history, before);
    }

    #[test]
    fn the_list_is_bounded_and_what_serves_stays_in_it() {
        let mut history = History::default();
        history.takes_over(version(0));
        for n in 1..200 {
            history.refused(version(n), "not WebAssembly".to_owned());
        }
        assert_eq!(history.records().len(), REMEMBERED);
        assert_eq!(history.good(None).next(), Some(version(0).component));
    }

    #[test]
    fn shares_of_faults_are_compared() {
        let calls = |calls, faults| Calls { calls, faults };
        assert!(calls(10, 5).are_worse_than(calls(1000, 249)));
        assert!(!calls(10, 5).are_worse_than(calls(1000, 250)));
        assert!(!calls(100, 5).are_worse_than(calls(10, 2)));
        assert!(calls(5, 5).are_worse_than(Calls::default()));
    }
}
