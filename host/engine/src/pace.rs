//! How fast leased deliveries are started.
//!
//! What was leased together is otherwise sent together, answered together where receivers take equally long,
//! recorded together and, its places being free together, leased together again. An event that comes into such a
//! wave waits for all of it, in the host as in the store. So while a host has time it spreads what it leased.
//!
//! A host without time does not. It would take a mountain of work as fast as it can, and then the events of
//! others find every thread on their way taken, in the host, in the store and beyond. So while others come by,
//! it takes shorter turns at the mountain, with a rest between two.
//!
//! How much that is depends on the machine, and on what tenants' plugins do for each delivery. So it is not counted in
//! deliveries but in processor time, by what a start has cost this process lately.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmhook_core::TenantId;
use wasmhook_store::Leased;

/// The part of each core that may be started per millisecond while the host has time. About two thirds of what all of
/// it takes where the store and the receivers are on the same machine, whose processor time nobody tells.
const SPREAD: f64 = 0.4;
/// A host that starts more than this part of each core has no time to leave unused, and none is spread. Less than
/// [`SPREAD`], or a load that grows would never be noticed.
const BUSY: f64 = 0.2;
/// The time over which that is taken.
const MEMORY: Duration = Duration::from_millis(100);

/// Started per core in a turn beside others, in milliseconds of processor time. Measured on two cores, beside a tenant
/// with a million due deliveries whose receiver answers at once and with twenty events per second of another: with the
/// rest after it, that one's p99 goes from 3.6 to 4.7 times what it is alone to 1.4 times, and the mountain shrinks at
/// three fifths of the rate.
const TURN: f64 = 1.28;
/// Started per core in a turn at least: what a call to the store costs by itself is not to be most of it.
const LEAST_TURN: usize = 8;
/// The rest after a turn, to which the runtime's clock adds up to a millisecond. Half of it gives 2 to 3 times and
/// three quarters of the rate.
const REST: Duration = Duration::from_millis(1);
/// How long after they came others are taken to be there.
const COMPANY: Duration = Duration::from_secs(5);

/// What a start costs in milliseconds of processor time until it is known: as on the machine that the parts above were
/// measured on.
const USUAL: f64 = 0.04;
/// What it is taken to cost at least and at most. A guest that spins for a second is not what the next start costs.
const COSTS: (f64, f64) = (0.01, 0.5);
/// It is learned from so many starts at a time, and the last of them count for this part of it.
const LEARNED_FROM: u64 = 256;
const LEARNED: f64 = 0.125;
/// If they took no longer than this: what an idle host does meanwhile would count as well.
const LEARNED_WITHIN: Duration = Duration::from_millis(250);

/// Counts what all of a host's loops start.
#[derive(Default)]
pub(crate) struct Starts(AtomicU64);

impl Starts {
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a start costs.
struct Cost {
    /// Milliseconds of processor time.
    each: f64,
    /// From where on it is learned: time, starts, and milliseconds of processor time of this process.
    from: (Instant, u64, f64),
}

impl Cost {
    fn since(now: Instant, starts: u64, used: f64) -> Self {
        Self {
            each: USUAL,
            from: (now, starts, used),
        }
    }

    fn learn(&mut self, now: Instant, starts: u64, used: f64) {
        let (since, before, used_before) = self.from;
        let new = starts.saturating_sub(before);
        if new < LEARNED_FROM {
            return;
        }
        self.from = (now, starts, used);
        if now.saturating_duration_since(since) > LEARNED_WITHIN {
            return;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "nobody starts 2^52 deliveries in a quarter of a second"
        )]
        let each = (used - used_before) / new as f64;
        self.each += LEARNED * (each.clamp(COSTS.0, COSTS.1) - self.each);
    }
}

/// Milliseconds of processor time that this process has used.
fn used() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let part = Duration::try_from(used).unwrap_or_default();
    millis(part)
}

/// Who came lately with work of which there was none before.
#[derive(Default)]
pub(crate) struct Company(Mutex<Option<(TenantId, Instant)>>);

impl Company {
    /// These were leased of tenants that had nothing due before.
    pub(crate) fn note(&self, leased: &[Leased]) {
        if let Some(last) = leased.last() {
            *self.last() = Some((last.delivery.tenant_id.clone(), Instant::now()));
        }
    }

    /// Whether others than this tenant came lately. Who fills the host had nothing due before either, once.
    fn is_beside(&self, tenant: &TenantId) -> bool {
        let last = self.last();
        last.as_ref()
            .is_some_and(|(other, at)| other != tenant && at.elapsed() < COMPANY)
    }

    fn last(&self) -> MutexGuard<'_, Option<(TenantId, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spreads starts over time.
pub(crate) struct Pace<'a> {
    cores: f64,
    starts: &'a Starts,
    cost: Cost,
    /// Starts per millisecond lately, as of `at`.
    rate: f64,
    at: Instant,
}

impl<'a> Pace<'a> {
    /// For this machine.
    pub(crate) fn new(starts: &'a Starts) -> Self {
        Self::of_cores(available_parallelism().map_or(1, usize::from), starts)
    }

    fn of_cores(cores: usize, starts: &'a Starts) -> Self {
        let at = Instant::now();
        Self {
            cores: float(cores),
            starts,
            cost: Cost::since(at, starts.count(), used()),
            rate: 0.0,
            at,
        }
    }

    /// Starts each of these, at once or over some milliseconds.
    pub(crate) async fn spread<T>(
        &mut self,
        mut work: impl ExactSizeIterator<Item = T>,
        mut start: impl FnMut(T),
    ) {
        let began = Instant::now();
        self.note(began, work.len());
        self.cost.learn(began, self.starts.count(), used());
        if self.is_busy() {
            work.for_each(start);
            return;
        }
        let mut started = 0;
        loop {
            let due = self.due(began.elapsed());
            work.by_ref().take(due - started).for_each(&mut start);
            started = due;
            if work.len() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many may be leased at once of a mountain of this tenant, if that is not for the caller to say: the host
    /// is busy with it, and others are there.
    pub(crate) fn turn(&self, tenant: &TenantId, company: &Company) -> Option<usize> {
        (self.is_busy() && company.is_beside(tenant)).then(|| {
            let turn = count(self.cores * TURN / self.cost.each);
            turn.max(LEAST_TURN * count(self.cores))
        })
    }

    /// Leaves the processors to others after a turn.
    pub(crate) async fn rest(&self) {
        tokio::time::sleep(REST).await;
    }

    fn is_busy(&self) -> bool {
        self.rate * self.cost.each > self.cores * BUSY
    }

    /// How many may have been started this long after the first.
    fn due(&self, elapsed: Duration) -> usize {
        let steps = elapsed.as_millis().saturating_add(1);
        let steps = float(usize::try_from(steps).unwrap_or(usize::MAX));
        count(self.cores * SPREAD / self.cost.each * steps).max(1)
    }

    /// Counts starts, the older the less.
    fn note(&mut self, now: Instant, starts: usize) {
        let passed = millis(now.saturating_duration_since(self.at)) / millis(MEMORY);
        self.rate = self.rate * (-passed).exp() + float(starts) / millis(MEMORY);
        self.at = now;
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion that saturates, of what is not negative"
)]
fn count(number: f64) -> usize {
    number as usize
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a host that starts so many in a call, this often, becomes busy.
    fn becomes_busy(mut pace: Pace<'_>, starts: usize, every: Duration) -> bool {
        let mut now = pace.at;
        (0..1_000).any(|_| {
            now += every;
            pace.note(now, starts);
            pace.is_busy()
        })
    }

    /// What it has learned when so many starts at a time took so long and so many milliseconds of processor time.
    fn learned(starts: u64, every: Duration, used: f64) -> f64 {
        let mut now = Instant::now();
        let mut cost = Cost::since(now, 0, 0.0);
        for calls in 1..1_000_u32 {
            now += every;
            cost.learn(now, u64::from(calls) * starts, f64::from(calls) * used);
        }
        cost.each
    }

    fn same(left: f64, right: f64) -> bool {
        (left - right).abs() < right / 100.0
    }

    #[test]
    fn what_a_start_costs_is_learned_while_there_are_many() {
        let learned = |starts, ms, used| learned(starts, Duration::from_millis(ms), used);
        assert!(same(learned(64, 10, 64.0 * 0.12), 0.12));
        assert!(same(learned(1_000, 100, 1_000.0 * 0.02), 0.02));
        // Within its bounds.
        assert!(same(learned(512, 10, 10_000.0), COSTS.1));
        assert!(same(learned(512, 10, 0.0), COSTS.0));
        // Few of them are not most of what a host does.
        assert!(same(learned(64, 100, 64.0 * 0.12), USUAL));
    }

    #[test]
    fn the_processor_time_of_a_process_goes_by() {
        let before = used();
        let until = Instant::now() + Duration::from_millis(20);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(used() > before);
    }

    #[test]
    fn a_host_is_busy_that_starts_many_for_a_while() {
        let starts = Starts::default();
        let busy =
            |many, ms| becomes_busy(Pace::of_cores(4, &starts), many, Duration::from_millis(ms));
        assert!(busy(128, 4));
        // A large batch now and then is a wave.
        assert!(!busy(128, 10));
        assert!(!busy(1_000, 200));
    }

    #[test]
    fn the_dearer_a_start_is_the_fewer_make_a_host_busy_and_are_started_in_a_turn() {
        let (mountain, starts) = (tenant("acme"), Starts::default());
        let other = came("globex", Duration::ZERO);
        let turn = |cost: f64| {
            let mut pace = Pace::of_cores(2, &starts);
            pace.cost.each = cost;
            pace.note(pace.at, 600);
            pace.turn(&mountain, &other)
        };
        assert_eq!(turn(USUAL), None);
        assert_eq!(turn(2.0 * USUAL), Some(32));
        assert_eq!(turn(COSTS.1), Some(2 * LEAST_TURN));
    }

    #[test]
    fn what_spreads_as_fast_as_it_may_makes_a_host_busy() {
        let starts = Starts::default();
        for (cores, cost) in [1, 2, 4, 8]
            .into_iter()
            .zip([COSTS.0, USUAL, 0.12, COSTS.1])
        {
            let mut pace = Pace::of_cores(cores, &starts);
            pace.cost.each = cost;
            let (batch, mut took) = (128, Duration::ZERO);
            while pace.due(took) < batch {
                took += Duration::from_millis(1);
            }
            // And half as long again to lease the next ones, a millisecond at least.
            let every = (took + took / 2).max(Duration::from_millis(1));
            assert!(becomes_busy(pace, batch, every), "{cores} {cost}");
        }
    }

    #[test]
    fn a_busy_host_has_time_again_soon_after() {
        let starts = Starts::default();
        let mut pace = Pace::of_cores(1, &starts);
        pace.note(pace.at, 10_000);
        assert!(pace.is_busy());
        pace.note(pace.at + 10 * MEMORY, 1);
        assert!(!pace.is_busy());
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    fn came(name: &str, ago: Duration) -> Company {
        let at = Instant::now().checked_sub(ago).unwrap();
        Company(Mutex::new(Some((tenant(name), at))))
    }

    #[test]
    fn a_mountain_is_taken_in_turns_while_the_host_is_busy_and_others_came_lately() {
        let (mountain, starts) = (tenant("acme"), Starts::default());
        let mut pace = Pace::of_cores(2, &starts);
        let other = came("globex", Duration::ZERO);
        assert_eq!(pace.turn(&mountain, &other), None);
        pace.note(pace.at, 10_000);
        assert_eq!(pace.turn(&mountain, &other), Some(64));
        assert_eq!(pace.turn(&mountain, &Company::default()), None);
        let own = came("acme", Duration::ZERO);
        assert_eq!(pace.turn(&mountain, &own), None);
        let gone = came("globex", COMPANY);
        assert_eq!(pace.turn(&mountain, &gone), None);
    }

    #[tokio::test]
    async fn everything_is_started_once_and_in_order_busy_or_not() {
        let starts = Starts::default();
        let mut pace = Pace::of_cores(1, &starts);
        for calls in 0..20 {
            let mut started = Vec::new();
            pace.spread(0..100, |piece| started.push(piece)).await;
            assert!(started.into_iter().eq(0..100), "call {calls}");
        }
        assert!(pace.is_busy());
        pace.spread(0..0, |_: usize| unreachable!("there is nothing to start"))
            .await;
    }
}
