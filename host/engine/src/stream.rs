//! Reads pushed events from a stream into intake.
//!
//! A store may be in parts that fail one by one, and the stream is one line for all of them. What goes to a
//! part that fails is left behind in the stream, unacknowledged, and read again once the part may be back;
//! so events of one part stay in their order, and nothing of them is held here but where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wasmhook_store::{EntryId, EventStream, StoreError, StreamEntry};

use crate::backoff::Backoff;
use crate::intake::{Intake, Source};
use crate::pressure::Pressure;

/// Entries read at once. Twice what is leased at once, and the next are read while these are taken in, or what is
/// enqueued is delivered before there is more: each call waits for what the store does meanwhile.
const BATCH: usize = 256;
/// How long one read waits for an entry before it looks again for entries of dead hosts.
const WAIT: Duration = Duration::from_secs(5);
/// Batches of what was left behind that are taken in between two of what is new: more, so that they come to
/// an end though new ones are left behind meanwhile.
const CATCH_UP: usize = 4;
/// So many entries are left behind before the whole stream waits. Each is in the stream anyway; but hosts take
/// over what others have left for long, and that many can be handed around.
const MOST_BEHIND: usize = 100_000;

/// Moves events from a stream into intake until it is told to stop.
pub struct StreamReader {
    stream: Arc<dyn EventStream>,
    intake: Arc<Intake>,
    pressure: Pressure,
}

/// A part of the store that fails.
struct Behind {
    backoff: Backoff,
    retry_at: Instant,
    /// Entries left in the stream for it.
    left: BTreeSet<EntryId>,
}

/// Going through what was left behind.
struct CatchUp {
    /// The parts that are tried again.
    parts: BTreeSet<usize>,
    /// The last entry that was looked at.
    after: Option<EntryId>,
}

/// Where reading stands.
struct Progress {
    /// In how many parts the store is. The number after theirs is the list of refused events.
    parts: usize,
    behind: BTreeMap<usize, Behind>,
    catch_up: Option<CatchUp>,
    /// Entries that are taken in. They are acknowledged while the next ones are read.
    taken: Vec<EntryId>,
}

impl Progress {
    /// Whether what is new is to wait in the stream: nothing of it, or too little, could be taken in.
    fn is_stuck(&self) -> bool {
        let failing = self.behind.keys().filter(|part| **part < self.parts);
        let left: usize = self.behind.values().map(|part| part.left.len()).sum();
        failing.count() >= self.parts || left >= MOST_BEHIND
    }

    fn retry_at(&self) -> Option<Instant> {
        self.behind.values().map(|part| part.retry_at).min()
    }

    /// Begins to go through what was left behind for parts whose time has come.
    fn begin(&mut self) {
        if self.catch_up.is_some() {
            return;
        }
        let now = Instant::now();
        let due = self.behind.iter().filter(|(_, part)| part.retry_at <= now);
        let parts: BTreeSet<_> = due.map(|(part, _)| *part).collect();
        if !parts.is_empty() {
            let after = None;
            self.catch_up = Some(CatchUp { parts, after });
        }
    }

    /// The next entries that were left behind for the parts that are tried again.
    fn next_left(&self, catch_up: &CatchUp) -> BTreeSet<EntryId> {
        let after = match catch_up.after {
            Some(after) => (Bound::Excluded(after), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let parts = catch_up
            .parts
            .iter()
            .filter_map(|part| self.behind.get(part));
        let mut next: BTreeSet<EntryId> = parts
            .flat_map(|part| part.left.range(after).take(BATCH))
            .copied()
            .collect();
        while next.len() > BATCH {
            next.pop_last();
        }
        next
    }

    /// These, up to the last, were looked for and found or not. Those that are gone were taken in by another host.
    fn looked_at(&mut self, ids: &[EntryId], last: EntryId, found: &[StreamEntry]) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.after = Some(last);
        }
        let found: BTreeSet<EntryId> = found.iter().map(|entry| entry.id).collect();
        for id in ids.iter().filter(|id| !found.contains(id)) {
            for behind in self.behind.values_mut() {
                behind.left.remove(id);
            }
        }
    }

    /// Whether an entry for this part is to be taken in now: its part is among those that are tried again, or it was
    /// to be refused. Otherwise it is left for its part.
    fn is_tried(&mut self, id: EntryId, part: usize) -> bool {
        let is_among = |catch_up: &CatchUp| catch_up.parts.contains(&part);
        if self.catch_up.as_ref().is_some_and(is_among) {
            return true;
        }
        match self.behind.get_mut(&part) {
            Some(behind) => {
                behind.left.insert(id);
                false
            }
            None => true,
        }
    }

    /// A part failed.
    fn failed(&mut self, part: usize, error: &StoreError) {
        let behind = self.behind.entry(part).or_insert_with(|| Behind {
            backoff: Backoff::new("take in events of the stream"),
            retry_at: Instant::now(),
            left: BTreeSet::new(),
        });
        behind.retry_at = Instant::now() + behind.backoff.wait_after(error);
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.parts.remove(&part);
            if catch_up.parts.is_empty() {
                self.catch_up = None;
            }
        }
    }

    /// Nothing is left behind any more for the parts that were tried again.
    fn caught_up(&mut self) {
        for part in self.catch_up.take().into_iter().flat_map(|it| it.parts) {
            if let Some(mut behind) = self.behind.remove(&part) {
                behind.backoff.succeeded();
            }
        }
    }
}

impl StreamReader {
    /// Reads from `stream` while the queue is not full; what is pushed meanwhile waits there.
    pub fn new(stream: Arc<dyn EventStream>, intake: Arc<Intake>, pressure: Pressure) -> Self {
        Self {
            stream,
            intake,
            pressure,
        }
    }

    /// Runs until `stop`. An entry is acknowledged once its event is dispatched or kept as
    /// rejected; a crash before that makes it be read again, which makes no second delivery.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new("read the event stream");
        let mut progress = Progress {
            parts: self.intake.parts(),
            behind: BTreeMap::new(),
            catch_up: None,
            taken: Vec::new(),
        };
        while !stop.is_cancelled() {
            match self.turn(&mut progress, &stop).await {
                Ok(()) => backoff.succeeded(),
                Err(error) => {
                    stop.run_until_cancelled(backoff.failed(&error)).await;
                }
            }
        }
        if let Err(error) = self.stream.acknowledge(&progress.taken).await {
            tracing::warn!(%error, "events that were taken in are not acknowledged; they will be read again, and found to be known");
        }
    }

    /// Takes in some of what was left behind, if its time has come, and some of what is new. What is begun to
    /// be taken in is ended before a stop.
    async fn turn(
        &self,
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        stop.run_until_cancelled(self.pressure.relieved()).await;
        progress.begin();
        for _ in 0..CATCH_UP {
            self.catch_up(progress).await?;
        }
        if progress.is_stuck() {
            self.stream.acknowledge(&progress.taken).await?;
            progress.taken.clear();
            if progress.catch_up.is_none()
                && let Some(retry_at) = progress.retry_at()
            {
                stop.run_until_cancelled(sleep_until(retry_at)).await;
            }
            return Ok(());
        }
        let wait = match (&progress.catch_up, progress.retry_at()) {
            (Some(_), _) => Duration::ZERO,
            (None, Some(retry_at)) => retry_at.saturating_duration_since(Instant::now()).min(WAIT),
            (None, None) => WAIT,
        };
        let reading = self.read(&progress.taken, wait);
        let Some((mut acknowledged, mut read)) = stop.run_until_cancelled(reading).await else {
            return Ok(());
        };
        if acknowledged.is_ok() {
            progress.taken.clear();
        }
        loop {
            let mut entries = read?;
            let is_full = entries.len() >= BATCH;
            entries.retain(|entry| {
                let part = self.intake.part_of(&entry.draft);
                let behind = progress.behind.get_mut(&part);
                behind.map(|behind| behind.left.insert(entry.id)).is_none()
            });
            let goes_on = is_full
                && acknowledged.is_ok()
                && progress.behind.is_empty()
                && self.pressure.full().is_none()
                && !stop.is_cancelled();
            if !goes_on {
                self.take(entries, progress).await;
                return acknowledged;
            }
            // There is more, as a rule. It does not wait for the end of a turn, nor does a stop for it: what is
            // read is taken in.
            let taken = std::mem::take(&mut progress.taken);
            let next = self.read(&taken, Duration::ZERO);
            ((acknowledged, read), ()) = tokio::join!(next, self.take(entries, progress));
            if acknowledged.is_err() {
                progress.taken.extend(taken);
            }
        }
    }

    /// Reads what is new, and acknowledges meanwhile what was taken in before.
    async fn read(
        &self,
        taken: &[EntryId],
        wait: Duration,
    ) -> (Result<(), StoreError>, Result<Vec<StreamEntry>, StoreError>) {
        tokio::join!(
            self.stream.acknowledge(taken),
            self.stream.read(BATCH, wait)
        )
    }

    /// Takes in a batch of what was left behind.
    async fn catch_up(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let Some(catch_up) = &progress.catch_up else {
            return Ok(());
        };
        let ids = progress.next_left(catch_up);
        let Some(last) = ids.last().copied() else {
            progress.caught_up();
            return Ok(());
        };
        let ids: Vec<EntryId> = ids.into_iter().collect();
        let mut entries = self.stream.reread(&ids).await?;
        progress.looked_at(&ids, last, &entries);
        entries.retain(|entry| progress.is_tried(entry.id, self.intake.part_of(&entry.draft)));
        self.take(entries, progress).await;
        Ok(())
    }

    /// Takes in what can be. The rest stays with this host, unacknowledged.
    async fn take(&self, entries: Vec<StreamEntry>, progress: &mut Progress) {
        if entries.is_empty() {
            return;
        }
        let part_of = |entry: &StreamEntry| self.intake.part_of(&entry.draft);
        let parts: Vec<_> = entries.iter().map(part_of).collect();
        let (ids, drafts) = entries
            .into_iter()
            .map(|entry| (entry.id, Ok(entry.draft)))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let taken = self.intake.accept(Source::Stream, drafts).await;
        for (part, error) in &taken.failures {
            progress.failed(*part, error);
        }
        for ((id, part), verdict) in ids.into_iter().zip(parts).zip(taken.verdicts) {
            let is_taken = verdict.is_some();
            // What is not taken in though its part did not fail was to be refused.
            let refused = progress.parts;
            for part in [part, refused] {
                if let Some(behind) = progress.behind.get_mut(&part) {
                    if is_taken {
                        behind.left.remove(&id);
                    } else {
                        behind.left.insert(id);
                        break;
                    }
                }
            }
            if is_taken {
                progress.taken.push(id);
            }
        }
    }
}
