//! The verdict: every acknowledged event is accounted for, and nothing else happened.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use wasmhook_core::{DeliveryState, Outcome};
use wasmhook_store::{Backlog, Filter};

use crate::happening::Happening;
use crate::ledger::{Again, Arrivals, Ledger};
use crate::site::Site;
use crate::workload::{self, Id, TENANTS, is_unwanted};

/// How long what waits may not become less.
const PATIENCE: Duration = Duration::from_secs(60);

/// Broken promises: how often each, and a first example.
#[derive(Default)]
pub(crate) struct Problems(pub(crate) Vec<(String, usize, String)>);

impl Problems {
    pub(crate) fn add(&mut self, what: &str, example: impl Into<String>) {
        match self.0.iter_mut().find(|(known, ..)| known == what) {
            Some((_, count, _)) => *count += 1,
            None => self.0.push((what.to_owned(), 1, example.into())),
        }
    }
}

/// The figures of one site.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) events: usize,
    pub(crate) deliveries: usize,
    pub(crate) succeeded: usize,
    pub(crate) dead_letters: usize,
    /// Finished, and removed since because a tenant had more of them than are kept.
    pub(crate) removed: usize,
    /// Deliveries that were to arrive in order.
    pub(crate) ordered: usize,
    /// In so many sequences.
    pub(crate) sequences: usize,
    /// Accepted again because a connection to the receiver broke: the attempt is recorded as failed.
    pub(crate) broken_connections: usize,
    /// Accepted again because a lease was broken.
    pub(crate) broken_leases: usize,
    /// Deliveries in order that came before a failover undid that they were made, and were made again.
    pub(crate) made_again: usize,
}

/// A delivery as its store keeps it.
struct Kept {
    state: DeliveryState,
    /// Attempts that ended without an answer.
    unanswered: usize,
}

/// Everything that a store keeps.
#[derive(Default)]
struct Records {
    all: HashMap<Id, Kept>,
    /// Per tenant, endpoint and ordering key the deliveries, in the order in which they were enqueued.
    sequences: HashMap<[String; 3], Vec<Turn>>,
}

/// A delivery's place in a sequence.
#[derive(Clone, Copy)]
struct Turn {
    id: Id,
    /// When the store made it.
    made: Timestamp,
}

/// Waits until all is quiet and compares.
pub(crate) async fn judge(
    site: &mut Site,
    ledger: &Ledger,
    happenings: &mut [Happening],
    problems: &mut Problems,
) -> anyhow::Result<Account> {
    let store = site.open().await?;
    if let Err(left) = quiet(site, &*store).await? {
        problems.add("it does not come to rest", left);
    }
    let most = site.store.kept(ledger.len());
    if let Err(left) = trimmed(&*store, most).await? {
        problems.add("more is kept than should be", left);
    }
    for host in &mut site.hosts {
        if let Some(status) = host.ended()? {
            problems.add(
                "a host ended by itself",
                format!("{} with {status}", host.name),
            );
        }
    }
    if site.receiver.got_strangers() {
        problems.add("a request named no delivery", "");
    }
    for rejected in store.rejected(10).await? {
        problems.add("an event was rejected", rejected.reason);
    }
    let Records {
        all: kept,
        sequences,
    } = read_settled(&*store, problems).await?;
    let mut account = settle(ledger, &kept, most, problems);
    explain(&mut account, ledger, &kept, happenings, problems);
    check_order(&mut account, ledger, &sequences, happenings, problems);
    for (event, _) in ledger.events().filter(|(_, acknowledged)| !acknowledged) {
        problems.add("an event was never acknowledged", event.id());
    }
    Ok(account)
}

/// Waits until nothing is left to do; says what is left when it does not become less.
async fn quiet(
    site: &Site,
    store: &dyn wasmhook_store::Store,
) -> anyhow::Result<Result<(), String>> {
    let mut least = u64::MAX;
    let mut since = Instant::now();
    loop {
        let streaming = site.streaming()?;
        let backlog = store.backlog().await?;
        let left = streaming + backlog.waiting + backlog.leased;
        if left == 0 {
            return Ok(Ok(()));
        }
        if left < least {
            (least, since) = (left, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Ok(Err(format!(
                "{streaming} entries in the stream, {backlog:?}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until no more finished deliveries are kept than should be; says how many are when it does not come to that.
async fn trimmed(
    store: &dyn wasmhook_store::Store,
    most: usize,
) -> anyhow::Result<Result<(), String>> {
    let since = Instant::now();
    loop {
        let Backlog {
            succeeded,
            dead_letter,
            ..
        } = store.backlog().await?;
        let finished = succeeded + dead_letter;
        if finished <= (most * TENANTS.len()) as u64 {
            return Ok(Ok(()));
        }
        if since.elapsed() > PATIENCE {
            return Ok(Err(format!("{finished}, and {most} of a tenant's")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Everything that is listed, with counts that agree.
async fn read_settled(
    store: &dyn wasmhook_store::Store,
    problems: &mut Problems,
) -> anyhow::Result<Records> {
    // Housekeeping may remove records between reading the lists and the counts, but not for ever.
    let mut tries = 3;
    loop {
        let mut found = Problems::default();
        let (kept, listed) = read(store, &mut found).await?;
        let counted = store.backlog().await?;
        tries -= 1;
        if counted == listed || tries == 0 {
            if counted != listed {
                let example = format!("{counted:?} and {listed:?}");
                problems.add("counts and lists differ", example);
            }
            problems.0.append(&mut found.0);
            return Ok(kept);
        }
    }
}

/// Everything that is listed, and how many in each state.
async fn read(
    store: &dyn wasmhook_store::Store,
    problems: &mut Problems,
) -> anyhow::Result<(Records, Backlog)> {
    let mut kept = Records::default();
    let mut counts = Backlog::default();
    for tenant in store.tenants().await? {
        let mut filter = Filter {
            tenant,
            state: None,
            cursor: None,
            limit: 500,
        };
        loop {
            let page = store.list(&filter).await?;
            for record in page.records {
                let state = record.delivery.state;
                *match state {
                    DeliveryState::Pending | DeliveryState::Failed => &mut counts.waiting,
                    DeliveryState::Leased => &mut counts.leased,
                    DeliveryState::Succeeded => &mut counts.succeeded,
                    DeliveryState::DeadLetter => &mut counts.dead_letter,
                } += 1;
                let unanswered = record
                    .attempts
                    .iter()
                    .filter(|a| a.outcome == Outcome::TransportError)
                    .count();
                let id = workload::id(record.delivery.id.as_str())
                    .with_context(|| format!("delivery {} has a foreign id", record.delivery.id))?;
                let delivery = record.delivery;
                if let Some(sequence) = delivery.sequence {
                    let tenant = delivery.tenant_id.to_string();
                    let name = [
                        tenant,
                        delivery.endpoint_id.to_string(),
                        sequence.name().to_owned(),
                    ];
                    let made = delivery.created_at;
                    kept.sequences
                        .entry(name)
                        .or_default()
                        .push(Turn { id, made });
                }
                if kept.all.insert(id, Kept { state, unanswered }).is_some() {
                    problems.add("a delivery is listed twice", format!("{id:032x}"));
                }
            }
            match page.next {
                Some(next) => filter.cursor = Some(next),
                None => break,
            }
        }
    }
    // Lists begin with the newest.
    kept.sequences
        .values_mut()
        .for_each(|turns| turns.reverse());
    Ok((kept, counts))
}

/// What must be there is there, in the state that it must have.
fn settle(
    ledger: &Ledger,
    kept: &HashMap<Id, Kept>,
    most: usize,
    problems: &mut Problems,
) -> Account {
    let mut account = Account::default();
    let mut mine = 0;
    let mut per_tenant = HashMap::<_, [usize; 2]>::new();
    for (event, acknowledged) in ledger.events() {
        account.events += usize::from(acknowledged);
        for id in event.deliveries() {
            let example = || {
                format!(
                    "{} of tenant {}, delivery whdel_{id:032x}",
                    event.id(),
                    event.tenant()
                )
            };
            let is_kept = kept.contains_key(&id);
            mine += usize::from(is_kept);
            per_tenant.entry(event.tenant()).or_default()[usize::from(is_kept)] += 1;
            if !acknowledged {
                continue;
            }
            account.deliveries += 1;
            let arrivals = ledger.arrivals(id);
            match kept.get(&id).map(|kept| kept.state) {
                Some(DeliveryState::Succeeded) => {
                    account.succeeded += 1;
                    if arrivals.accepted == 0 {
                        problems.add("a delivery succeeded and never arrived", example());
                    }
                }
                Some(DeliveryState::DeadLetter) => {
                    account.dead_letters += 1;
                    if arrivals.refused == 0 {
                        problems.add("a delivery was given up and never refused", example());
                    }
                }
                Some(state) => {
                    problems.add(&format!("a delivery is left {state}"), example());
                }
                None if arrivals.accepted > 0 || is_unwanted(id) && arrivals.refused > 0 => {
                    account.removed += 1;
                }
                None => problems.add("a delivery vanished", example()),
            }
        }
    }
    if mine < kept.len() {
        problems.add(
            "there are deliveries of no event",
            format!("{}", kept.len() - mine),
        );
    }
    for (tenant, [removed, kept]) in per_tenant {
        if removed > 0 && kept != most {
            problems.add(
                "another number of records was removed than should be",
                format!("{removed} of tenant {tenant}, and {kept} are kept instead of {most}"),
            );
        }
    }
    account
}

/// What is in a sequence came for the first time after all that was enqueued before it had been accepted, or
/// refused for good. What came again later does not count: that is explained on its own. Nor does what came
/// before its record was made: a failover undid the first one, of which nobody had been told that it is
/// durable, and so did its place.
fn check_order(
    account: &mut Account,
    ledger: &Ledger,
    sequences: &HashMap<[String; 3], Vec<Turn>>,
    happenings: &[Happening],
    problems: &mut Problems,
) {
    for ([tenant, endpoint, key], turns) in sequences {
        let name = |id: Id| format!("whdel_{id:032x} of {tenant}, endpoint {endpoint}, {key}");
        account.sequences += 1;
        account.ordered += turns.len();
        let mut seen = Vec::with_capacity(turns.len());
        for turn in turns {
            let arrivals = ledger.arrivals(turn.id);
            // By the clock alone it would be said of others too: somebody may set it back.
            let again = arrivals.first_at < turn.made
                && happenings.iter().any(|it| it.unmakes(arrivals.first));
            account.made_again += usize::from(again);
            seen.push((arrivals, again));
        }
        if let Some(place) = overtaking(&seen) {
            problems.add("a delivery arrived before its turn", name(turns[place].id));
        }
    }
    if account.ordered == 0 {
        problems.add("nothing was to arrive in order", "");
    }
}

/// The first that came before another that was to come before it had ended, of those that were not made again.
fn overtaking(seen: &[(Arrivals, bool)]) -> Option<usize> {
    let mut ended = Duration::ZERO;
    seen.iter().position(|(arrivals, again)| {
        let early = arrivals.first < ended && !again;
        ended = ended.max(arrivals.ended.unwrap_or_default());
        early
    })
}

/// Each delivery that was accepted again had its connection or its lease broken.
fn explain(
    account: &mut Account,
    ledger: &Ledger,
    kept: &HashMap<Id, Kept>,
    happenings: &mut [Happening],
    problems: &mut Problems,
) {
    let mut unanswered: HashMap<Id, usize> = HashMap::new();
    let mut again = ledger.again();
    again.retain(|again| {
        let left = unanswered
            .entry(again.id)
            .or_insert_with(|| match kept.get(&again.id) {
                Some(kept) => kept.unanswered,
                // The record is gone; the receiver knows which connections it broke itself.
                None => ledger.arrivals(again.id).cut.into(),
            });
        let broken_connection = *left > 0;
        *left -= usize::from(broken_connection);
        account.broken_connections += usize::from(broken_connection);
        !broken_connection
    });
    account.broken_leases += again.len();
    blame(again, happenings, problems);
}

/// Finds for each broken lease what broke it. Several faults may explain one, and none can have broken more than
/// were in flight: in the order of time, each goes to the one that ends first of those with room, so that nobody
/// is left without as long as there is any way.
fn blame(mut again: Vec<Again>, happenings: &mut [Happening], problems: &mut Problems) {
    again.sort_by_key(|again| again.before);
    for again in again {
        let cause = happenings
            .iter_mut()
            .filter(|it| it.explains(again.before) && it.duplicates < it.in_flight())
            .min_by_key(|it| it.unrecorded().map(|times| *times.end()));
        if let Some(cause) = cause {
            cause.duplicates += 1;
            continue;
        }
        let what = if happenings.iter().any(|it| it.explains(again.before)) {
            "faults made more duplicates than there were deliveries in flight"
        } else {
            "a delivery was accepted twice with nothing broken"
        };
        let first = again.before.as_secs_f64();
        problems.add(
            what,
            format!(
                "whdel_{:032x}, first {first:.1} s after the start",
                again.id
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::fault::Fault;
    use crate::host::CONCURRENCY;
    use crate::workload::Store;

    fn seen(times: &[(u64, u64)]) -> Vec<(Arrivals, bool)> {
        let arrivals = |(first, ended): &(u64, u64)| Arrivals {
            accepted: 1,
            refused: 0,
            first: Duration::from_secs(*first),
            first_at: Timestamp::default(),
            ended: Some(Duration::from_secs(*ended)),
            cut: 0,
        };
        times.iter().map(|times| (arrivals(times), false)).collect()
    }

    #[test]
    fn who_comes_before_an_earlier_one_has_ended_overtakes() {
        assert_eq!(overtaking(&[]), None);
        assert_eq!(overtaking(&seen(&[(1, 3), (3, 4), (9, 9)])), None);
        assert_eq!(overtaking(&seen(&[(1, 3), (2, 4)])), Some(1));
        assert_eq!(overtaking(&seen(&[(1, 8), (8, 9), (7, 7)])), Some(2));
        let mut again = seen(&[(1, 8), (7, 7)]);
        again[1].1 = true;
        assert_eq!(overtaking(&again), None);
    }

    /// A host that is killed at 10 s and, back since 11 s, paused at 11.4 s for nine.
    fn killed_and_paused() -> [Happening; 2] {
        let [killed, back, paused, goes_on] = [10_000, 11_000, 11_400, 20_400].map(ms);
        let (host, down) = (0, ms(1_000));
        let kill = Fault::HostKilled { host, down };
        let pause = ms(9_000);
        let pause = Fault::HostPaused { host, pause };
        [
            Happening::new(Store::Embedded, kill, killed, back),
            Happening::new(Store::Embedded, pause, paused, goes_on),
        ]
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn accepted_again(at: Duration, many: usize) -> impl Iterator<Item = Again> {
        std::iter::repeat_n(Again { id: 1, before: at }, many)
    }

    #[test]
    fn what_was_accepted_before_a_kill_is_not_held_against_the_pause_just_after_it() {
        let mut happenings = killed_and_paused();
        let mut problems = Problems::default();
        let again =
            accepted_again(ms(11_300), CONCURRENCY).chain(accepted_again(ms(9_900), CONCURRENCY));
        blame(again.collect(), &mut happenings, &mut problems);
        assert!(problems.0.is_empty());
        assert_eq!(happenings.map(|it| it.duplicates), [CONCURRENCY; 2]);
    }

    #[test]
    fn more_than_were_in_flight_are_a_broken_promise_and_so_is_one_that_nothing_explains() {
        let mut happenings = killed_and_paused();
        let mut problems = Problems::default();
        let again =
            accepted_again(ms(9_900), 2 * CONCURRENCY + 3).chain(accepted_again(ms(5_000), 2));
        blame(again.collect(), &mut happenings, &mut problems);
        let counts: Vec<_> = problems.0.iter().map(|(_, count, _)| *count).collect();
        assert_eq!(counts, [2, 3]);
    }

    #[test]
    fn a_ledger_knows_when_a_delivery_came_and_ended() {
        let ledger = Ledger::new(1);
        for status in [500, 503, 204, 204] {
            std::thread::sleep(Duration::from_millis(2));
            ledger.arrive(7, StatusCode::from_u16(status).unwrap());
        }
        let arrivals = ledger.arrivals(7);
        assert_eq!((arrivals.accepted, arrivals.refused), (2, 2));
        let ended = arrivals.ended.unwrap();
        assert!(Duration::ZERO < arrivals.first && arrivals.first < ended);
        assert_eq!(ledger.again()[0].before, ended);
        for _ in 0..2 {
            ledger.arrive(50, StatusCode::GONE);
        }
        let refused = ledger.arrivals(50);
        assert_eq!(refused.ended, Some(refused.first));
    }
}
