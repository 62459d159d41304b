//! Producers: each pushes an event until it is told that the event is durable, as a careful one does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::ledger::Ledger;
use crate::site::Site;
use crate::workload::Pushed;

mod stream;

pub(crate) use stream::Door;
use stream::Stream;

/// Events pushed at once.
const BATCH: usize = 16;
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before what failed is pushed again.
const PAUSE: Duration = Duration::from_millis(100);

/// How far a site is in its plan. As many events are pushed as correspond to it, so that there is
/// traffic to the end.
#[derive(Clone)]
pub(crate) struct Progress {
    events: u32,
    at: Arc<Mutex<Where>>,
}

#[derive(Clone, Copy)]
struct Where {
    step: usize,
    of: usize,
    since: Instant,
    expected: Duration,
}

impl Where {
    fn share(&self) -> f64 {
        if self.step >= self.of {
            return 1.0;
        }
        let elapsed = self.since.elapsed().as_secs_f64() / self.expected.as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "plans have some hundred steps")]
        let share = (self.step as f64 + within(elapsed)) / self.of as f64;
        share
    }
}

/// How much of a step's events may have been pushed after `elapsed` of the time that it should take. A step
/// that takes longer never runs out of events: its end is seen by one that arrives after it.
fn within(elapsed: f64) -> f64 {
    /// Until here at an even pace.
    const EVEN: f64 = 0.8;
    if elapsed <= EVEN {
        return elapsed;
    }
    let left = 1.0 - EVEN;
    1.0 - left * left / (elapsed - EVEN + left)
}

impl Progress {
    pub(crate) fn new(events: u32) -> Self {
        let start = Where {
            step: 0,
            of: 1,
            since: Instant::now(),
            expected: Duration::from_secs(3600),
        };
        Self {
            events,
            at: Arc::new(Mutex::new(start)),
        }
    }

    /// A site begins a step.
    pub(crate) fn step(&self, step: usize, of: usize, expected: Duration) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Where {
            step,
            of,
            since: Instant::now(),
            expected,
        };
    }

    /// A site is through.
    pub(crate) fn finish(&self) {
        let (_, of) = self.steps();
        self.step(of, of, Duration::ZERO);
    }

    /// How many events are pushed in all.
    pub(crate) fn events(&self) -> u32 {
        self.events
    }

    /// The steps that are done, and all.
    pub(crate) fn steps(&self) -> (usize, usize) {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        (at.step, at.of)
    }

    /// How many events may have been pushed by now.
    fn allowed(&self) -> u32 {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let share = at.share().min(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a number of events"
        )]
        let allowed = (f64::from(self.events) * share) as u32;
        allowed
    }
}

/// Hands out the events of a site in order.
struct Cursor {
    next: Mutex<u32>,
    progress: Progress,
}

impl Cursor {
    /// The next events; `None` when all are handed out.
    fn claim(&self) -> Option<Vec<Pushed>> {
        let allowed = self.progress.allowed();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next >= self.progress.events {
            return None;
        }
        let claimed: Vec<_> = (*next..allowed).take(BATCH).map(Pushed).collect();
        if let Some(last) = claimed.last() {
            *next = last.0 + 1;
        }
        Some(claimed)
    }
}

/// The producers of a site.
pub(crate) struct Producers {
    tasks: JoinSet<()>,
}

impl Producers {
    /// Two over HTTP, one to each host first, and where there is a stream two that know Redis only.
    pub(crate) fn start(
        site: &Site,
        ledger: &Arc<Ledger>,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let cursor = Arc::new(Cursor {
            next: Mutex::new(0),
            progress: progress.clone(),
        });
        let urls: Vec<_> = site
            .hosts
            .iter()
            .map(|host| format!("{}/v1/events", host.url))
            .collect();
        for first in 0..2 {
            let way = Way::Http {
                client: reqwest::Client::builder()
                    .no_proxy()
                    .timeout(PATIENCE)
                    .build()?,
                urls: urls.clone(),
                turn: first,
            };
            tasks.spawn(push(way, Arc::clone(&cursor), Arc::clone(ledger)));
            if let Some(servers) = &site.servers {
                let way = Way::Stream(Stream::new(servers.door()));
                tasks.spawn(push(way, Arc::clone(&cursor), Arc::clone(ledger)));
            }
        }
        Ok(Self { tasks })
    }

    /// Waits until every event is acknowledged, or no longer.
    pub(crate) async fn finish(mut self, patience: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // Who is still at it is stopped; the ledger knows what was not acknowledged.
        let _ = tokio::time::timeout(patience, all).await;
    }
}

/// How a producer pushes.
enum Way {
    /// `XADD`.
    Stream(Stream),
    /// `POST /v1/events`, to the next host when one fails.
    Http {
        client: reqwest::Client,
        urls: Vec<String>,
        turn: usize,
    },
}

async fn push(mut way: Way, cursor: Arc<Cursor>, ledger: Arc<Ledger>) {
    while let Some(events) = cursor.claim() {
        if events.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        while !way.push(&events).await {
            tokio::time::sleep(PAUSE).await;
        }
        for event in events {
            ledger.acknowledge(event);
        }
    }
}

impl Way {
    /// Whether the events were acknowledged. If not, they may be there all the same.
    async fn push(&mut self, events: &[Pushed]) -> bool {
        match self {
            Self::Stream(stream) => stream.push(events).await,
            Self::Http { client, urls, turn } => {
                let url = &urls[*turn % urls.len()];
                let pushed = post(client, url, events).await;
                if !pushed {
                    *turn += 1;
                }
                pushed
            }
        }
    }
}

async fn post(client: &reqwest::Client, url: &str, events: &[Pushed]) -> bool {
    let lines: String = events
        .iter()
        .map(|event| {
            let (tenant, kind, id) = (event.tenant(), event.event_type(), event.id());
            let payload = event.payload();
            let key = event.ordering_key();
            let key = key.map_or_else(String::new, |key| format!(",\"ordering_key\":\"{key}\""));
            format!("{{\"tenant\":\"{tenant}\",\"type\":\"{kind}\",\"id\":\"{id}\",\"payload\":{payload}{key}}}\n")
        })
        .collect::<Vec<_>>()
        .concat();
    let request = client
        .post(url)
        .header("content-type", "application/x-ndjson")
        .body(lines);
    request
        .send()
        .await
        .is_ok_and(|answer| answer.status() == reqwest::StatusCode::ACCEPTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_takes_long_never_runs_out_of_events() {
        let shares: Vec<f64> = (0..60).map(|n| within(f64::from(n) * 0.1)).collect();
        assert!(shares.is_sorted_by(|a, b| a < b), "{shares:?}");
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        // A step of 500 events has some left for every second at five times its time.
        assert!((within(5.0) - within(4.8)) * 500.0 > 0.2);
    }
}
