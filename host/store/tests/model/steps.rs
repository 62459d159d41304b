//! What may be done to a store, and random sequences of it.

use std::time::Duration;

use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// Few of each, so that calls meet.
pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
pub(crate) const EVENTS: [&str; 5] = ["evt_0", "evt_1", "evt_2", "evt_3", "évt ☂"];
pub(crate) const ENDPOINTS: [&str; 3] = ["main", "audit", "öther"];
/// Names of sequences; the empty one is the whole endpoint's.
pub(crate) const SEQUENCES: [&str; 2] = ["", "ørder"];
/// Workers that share the store, each with leases of its own.
pub(crate) const CLIENTS: usize = 3;

/// The leases and waits that end within a sequence.
pub(crate) const SHORT: Duration = Duration::from_millis(8);
/// Those that do not, unless the clock jumps.
pub(crate) const LONG: Duration = Duration::from_secs(1800);

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// One step of a sequence: a call, or something that happens to the world.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A producer pushes events; twice when the first answer was lost.
    Enqueue {
        client: usize,
        batch: Vec<Push>,
        twice: bool,
    },
    /// Workers lease, at the same time if there are several. Those who crash forget what they got.
    Lease {
        clients: Vec<usize>,
        max: usize,
        duration: Duration,
        cap: usize,
        crash: bool,
    },
    /// A worker records outcomes, in one call or in calls at the same time.
    Record {
        client: usize,
        outcomes: Vec<(Pick, End)>,
        together: bool,
        twice: bool,
    },
    /// A worker gives leases back.
    Release {
        client: usize,
        leases: Vec<Pick>,
        twice: bool,
    },
    /// Support replays a delivery, one of the `finished` or any; as another tenant, if `foreign`.
    Replay {
        client: usize,
        finished: bool,
        delivery: Index,
        foreign: bool,
        twice: bool,
    },
    /// Support lets a sequence go on that a dead letter blocks: one of the `blocking`, or any delivery.
    Skip {
        client: usize,
        blocking: bool,
        delivery: Index,
        twice: bool,
    },
    /// Housekeeping.
    Retain {
        client: usize,
        age: Duration,
        count: usize,
    },
    /// The operator changes what a tenant may have in flight.
    Quota {
        client: usize,
        tenant: &'static str,
        most: Option<u32>,
    },
    /// A worker waits for work that may be there or not.
    Wait { client: usize },
    /// Time passes: what is [`SHORT`] ends.
    Pass,
    /// The system's clock is set ahead, or back if less than zero, where it can be.
    Jump { by: SignedDuration },
}

/// An event that is pushed.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) tenant: &'static str,
    pub(crate) event: &'static str,
    pub(crate) endpoints: Vec<&'static str>,
    pub(crate) extends: bool,
    /// It is to be delivered so much later.
    pub(crate) later: Option<Duration>,
    /// The sequence that its deliveries are in, and whether a dead letter blocks it.
    pub(crate) sequence: Option<(&'static str, bool)>,
    /// Events of one id differ by this.
    pub(crate) version: u8,
}

/// A lease of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Pick {
    /// One whose outcome was recorded or that was given back before.
    pub(crate) spent: bool,
    pub(crate) nth: Index,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Succeeded,
    DeadLetter,
    /// To be tried again after this long.
    Failed(Duration),
    /// To be tried again at a time that is past already.
    Overdue,
    /// As [`End::Overdue`], because the receiver did not answer in time.
    Stalled,
}

/// A sequence.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..80)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (client(), vec(push(), 1..5), seldom())
            .prop_map(|(client, batch, twice)| Step::Enqueue { client, batch, twice }),
        7 => lease(),
        7 => (client(), vec((pick(), end()), 1..5), seldom(), seldom()).prop_map(
            |(client, outcomes, together, twice)| Step::Record { client, outcomes, together, twice }
        ),
        2 => (client(), vec(pick(), 1..4), seldom())
            .prop_map(|(client, leases, twice)| Step::Release { client, leases, twice }),
        4 => (client(), prop::bool::weighted(0.8), any::<Index>(), seldom(), seldom()).prop_map(
            |(client, finished, delivery, foreign, twice)| {
                Step::Replay { client, finished, delivery, foreign, twice }
            }
        ),
        2 => (client(), prop::bool::weighted(0.8), any::<Index>(), seldom()).prop_map(
            |(client, blocking, delivery, twice)| Step::Skip { client, blocking, delivery, twice }
        ),
        3 => retain(),
        1 => (client(), select(&TENANTS[..2]), prop::option::weighted(0.8, 1..4_u32))
            .prop_map(|(client, tenant, most)| Step::Quota { client, tenant, most }),
        1 => client().prop_map(|client| Step::Wait { client }),
        2 => Just(Step::Pass),
        1 => select(vec![HOUR, -HOUR / 2]).prop_map(|by| Step::Jump { by }),
    ]
}

fn client() -> impl Strategy<Value = usize> {
    0..CLIENTS
}

fn seldom() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn push() -> impl Strategy<Value = Push> {
    (
        // One has most, for rules such as retention need many of one tenant.
        prop_oneof![3 => Just(TENANTS[0]), 2 => select(&TENANTS[1..])],
        select(&EVENTS[..]),
        subsequence(ENDPOINTS.to_vec(), 0..=ENDPOINTS.len()),
        seldom(),
        prop_oneof![6 => Just(None), 1 => Just(Some(SHORT)), 1 => Just(Some(LONG))],
        prop_oneof![
            1 => Just(None),
            1 => (select(&SEQUENCES[..]), prop::bool::weighted(0.4)).prop_map(Some),
        ],
        0..3u8,
    )
        .prop_map(
            |(tenant, event, endpoints, extends, later, sequence, version)| Push {
                tenant,
                event,
                endpoints,
                extends,
                later,
                sequence,
                version,
            },
        )
}

fn lease() -> impl Strategy<Value = Step> {
    let all: Vec<usize> = (0..CLIENTS).collect();
    (
        prop_oneof![
            4 => (client().prop_map(|client| vec![client]), select(vec![SHORT, LONG])),
            // Long leases only, for on a slow machine short ones end while others still ask.
            1 => (subsequence(all, 2..=CLIENTS), Just(LONG)),
        ],
        prop_oneof![1 => Just(1), 2 => 2..6_usize, 2 => Just(100)],
        prop_oneof![3 => Just(100), 1 => 1..4_usize],
        prop::bool::weighted(0.1),
    )
        .prop_map(|((clients, duration), max, cap, crash)| Step::Lease {
            clients,
            max,
            duration,
            cap,
            crash,
        })
}

fn pick() -> impl Strategy<Value = Pick> {
    (seldom(), any::<Index>()).prop_map(|(spent, nth)| Pick { spent, nth })
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Succeeded),
        3 => Just(End::DeadLetter),
        2 => Just(End::Failed(SHORT)),
        1 => Just(End::Failed(LONG)),
        1 => Just(End::Overdue),
        3 => Just(End::Stalled),
    ]
}

fn retain() -> impl Strategy<Value = Step> {
    // Seldom everything, for what is to come lives on what is there.
    let age = prop_oneof![1 => Just(Duration::ZERO), 1 => Just(SHORT), 4 => Just(LONG)];
    let count = prop_oneof![1 => Just(0), 4 => 1..5_usize, 1 => Just(1000)];
    (client(), age, count).prop_map(|(client, age, count)| Step::Retain { client, age, count })
}
