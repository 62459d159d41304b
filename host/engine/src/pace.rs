//! How fast leased deliveries are started.
//!
//! What was leased together is otherwise sent together, answered together where receivers take equally long,
//! recorded together and, its places being free together, leased together again. An event that comes into such a
//! wave waits for all of it, in the host as in the store. So while a host has time it spreads what it leased.
//!
//! A host without time does not. It would take a mountain of work as fast as it can, and then the events of
//! others find every thread on their way taken, in the host, in the store and beyond. So while others come by,
//! it takes shorter turns at the mountain, with a rest between two.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use wasmhook_core::TenantId;
use wasmhook_store::Leased;

/// Started per millisecond and core while the host has time: about two thirds of what a core gets through.
const PER_CORE: usize = 10;
/// A host that starts so many per millisecond and core has no time to leave unused, and none is spread. Less than
/// [`PER_CORE`], or a load that grows would never be noticed.
const BUSY_PER_CORE: usize = 5;
/// The time over which that is taken.
const MEMORY: Duration = Duration::from_millis(100);

/// Started per core in a turn beside others. Measured on two cores, beside a tenant with a million due deliveries
/// whose receiver answers at once and with twenty events per second of another: with the rest after it, that one's
/// p99 goes from 3.6 to 4.7 times what it is alone to 1.4 times, and the mountain shrinks at three fifths of the rate.
const TURN_PER_CORE: usize = 32;
/// The rest after a turn, to which the runtime's clock adds up to a millisecond. Half of it gives 2 to 3 times and
/// three quarters of the rate.
const REST: Duration = Duration::from_millis(1);
/// How long after they came others are taken to be there.
const COMPANY: Duration = Duration::from_secs(5);

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
pub(crate) struct Pace {
    per_ms: usize,
    turn: usize,
    busy: f64,
    /// Starts per millisecond lately, as of `at`.
    rate: f64,
    at: Instant,
}

impl Pace {
    /// For this machine.
    pub(crate) fn new() -> Self {
        Self::of_cores(available_parallelism().map_or(1, usize::from))
    }

    fn of_cores(cores: usize) -> Self {
        Self {
            per_ms: PER_CORE.saturating_mul(cores),
            turn: TURN_PER_CORE.saturating_mul(cores),
            busy: float(BUSY_PER_CORE.saturating_mul(cores)),
            rate: 0.0,
            at: Instant::now(),
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
        (self.is_busy() && company.is_beside(tenant)).then_some(self.turn)
    }

    /// Leaves the processors to others after a turn.
    pub(crate) async fn rest(&self) {
        tokio::time::sleep(REST).await;
    }

    fn is_busy(&self) -> bool {
        self.rate > self.busy
    }

    /// How many may have been started this long after the first.
    fn due(&self, elapsed: Duration) -> usize {
        let steps = usize::try_from(elapsed.as_millis()).unwrap_or(usize::MAX);
        self.per_ms.saturating_mul(steps.saturating_add(1))
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

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a host that starts so many in a call, this often, becomes busy.
    fn becomes_busy(mut pace: Pace, starts: usize, every: Duration) -> bool {
        let mut now = pace.at;
        (0..1_000).any(|_| {
            now += every;
            pace.note(now, starts);
            pace.is_busy()
        })
    }

    #[test]
    fn a_host_is_busy_that_starts_many_for_a_while() {
        let busy = |starts, ms| becomes_busy(Pace::of_cores(4), starts, Duration::from_millis(ms));
        assert!(busy(128, 4));
        // A large batch now and then is a wave.
        assert!(!busy(128, 10));
        assert!(!busy(1_000, 200));
    }

    #[test]
    fn what_spreads_as_fast_as_it_may_makes_a_host_busy() {
        for cores in [1, 2, 4, 8] {
            let (pace, batch) = (Pace::of_cores(cores), 128);
            let mut took = Duration::ZERO;
            while pace.due(took) < batch {
                took += Duration::from_millis(1);
            }
            // And half as long again to lease the next ones, a millisecond at least.
            let every = (took + took / 2).max(Duration::from_millis(1));
            assert!(becomes_busy(pace, batch, every), "{cores}");
        }
    }

    #[test]
    fn a_busy_host_has_time_again_soon_after() {
        let mut pace = Pace::of_cores(1);
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
        let (mountain, mut pace) = (tenant("acme"), Pace::of_cores(2));
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
        let mut pace = Pace::of_cores(1);
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
