//! Back-pressure: events are not taken in while the queue is full.
//!
//! A queue that grows without a bound ends in a store that is out of memory, and then nothing can be
//! recorded any more. So above a configured depth, or share of the store's memory, the stream is left
//! to wait where producers put it, and who pushes over HTTP is asked to come back later. What is in
//! the queue goes on being delivered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wasmhook_store::{Fullness, Store};

use crate::metric;

/// How often the store is asked. Between two answers a queue can grow by a second's events.
const EVERY: Duration = Duration::from_secs(1);
/// A full queue counts as relieved below this share of its limit, so that intake does not flutter.
const RELIEF: f64 = 0.95;

/// When the queue is full.
#[derive(Debug, Clone, Copy)]
pub struct PressureConfig {
    /// Deliveries that may wait, over all tenants; 0 for no limit.
    pub max_waiting: u64,
    /// The share of the store's memory limit, in percent, that may be used; 0 for no limit. Without
    /// effect on a store that has no such limit.
    pub max_memory_percent: u8,
}

/// Why the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Too many deliveries wait.
    Deliveries {
        /// How many.
        waiting: u64,
        /// How many may.
        limit: u64,
    },
    /// The store is short of memory.
    Memory {
        /// How much is used, in percent of the store's limit.
        percent: u8,
        /// How much may be.
        limit: u8,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliveries { waiting, limit } => {
                write!(f, "{waiting} deliveries wait, of {limit} that may")
            }
            Self::Memory { percent, limit } => {
                write!(
                    f,
                    "the store uses {percent} % of its memory, of {limit} % that it may"
                )
            }
        }
    }
}

/// Whether the queue is full, for who takes events in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pressure(watch::Receiver<Option<Full>>);

impl Pressure {
    /// Why nothing should be taken in now; `None` while there is room.
    pub fn full(&self) -> Option<Full> {
        *self.0.borrow()
    }

    /// Returns once there is room.
    pub async fn relieved(&self) {
        // Fails only when nobody looks any more, as at the end of the process.
        let _ = self.0.clone().wait_for(Option::is_none).await;
    }
}

/// Looks at the store now and then.
pub struct PressureGauge {
    store: Arc<dyn Store>,
    config: PressureConfig,
    told: watch::Sender<Option<Full>>,
}

impl PressureGauge {
    /// For one store. There is room until it has been looked at.
    pub fn new(store: Arc<dyn Store>, config: PressureConfig) -> (Self, Pressure) {
        let (told, heard) = watch::channel(None);
        let gauge = Self {
            store,
            config,
            told,
        };
        (gauge, Pressure(heard))
    }

    /// Looks until `stop`. While the store does not answer, what it said last stands.
    pub async fn run(self, stop: CancellationToken) {
        if self.config.max_waiting == 0 && self.config.max_memory_percent == 0 {
            return stop.cancelled().await;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            match self.store.fullness().await {
                Ok(fullness) => self.tell(self.config.judge(fullness, self.full())),
                Err(error) => tracing::debug!(%error, "the store does not say how full it is"),
            }
        }
    }

    fn full(&self) -> Option<Full> {
        *self.told.borrow()
    }

    fn tell(&self, full: Option<Full>) {
        match (self.full(), full) {
            (None, Some(why)) => {
                tracing::warn!("the queue is full: {why}; no events are taken in until it is not");
            }
            (Some(_), None) => tracing::info!("the queue has room again"),
            _ => {}
        }
        metrics::gauge!(metric::QUEUE_FULL).set(u32::from(full.is_some()));
        self.told.send_replace(full);
    }
}

impl PressureConfig {
    fn judge(&self, now: Fullness, before: Option<Full>) -> Option<Full> {
        let over = |value: f64, limit: f64, already: bool| {
            limit > 0.0 && value >= if already { limit * RELIEF } else { limit }
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of deliveries stay far below 2^53"
        )]
        let (waiting, max_waiting) = (now.waiting as f64, self.max_waiting as f64);
        let by_count = matches!(before, Some(Full::Deliveries { .. }));
        if over(waiting, max_waiting, by_count) {
            return Some(Full::Deliveries {
                waiting: now.waiting,
                limit: self.max_waiting,
            });
        }
        let percent = now.memory_percent?;
        let by_memory = matches!(before, Some(Full::Memory { .. }));
        over(
            f64::from(percent),
            f64::from(self.max_memory_percent),
            by_memory,
        )
        .then_some(Full::Memory {
            percent,
            limit: self.max_memory_percent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PressureConfig = PressureConfig {
        max_waiting: 1000,
        max_memory_percent: 80,
    };

    fn judge(waiting: u64, memory_percent: Option<u8>, before: Option<Full>) -> Option<Full> {
        let now = Fullness {
            waiting,
            memory_percent,
            bytes: None,
        };
        LIMITS.judge(now, before)
    }

    #[test]
    fn the_queue_is_full_at_its_limits() {
        assert_eq!(judge(999, Some(79), None), None);
        let full = judge(1000, None, None);
        assert_eq!(
            full.map(|full| full.to_string()).as_deref(),
            Some("1000 deliveries wait, of 1000 that may")
        );
        let full = judge(0, Some(80), None);
        assert_eq!(
            full.map(|full| full.to_string()).as_deref(),
            Some("the store uses 80 % of its memory, of 80 % that it may")
        );
    }

    #[test]
    fn it_is_relieved_a_little_below() {
        let full = judge(1200, None, None);
        assert!(judge(960, None, full).is_some());
        assert_eq!(judge(940, None, full), None);
        let full = judge(0, Some(90), None);
        assert!(judge(0, Some(77), full).is_some());
        assert_eq!(judge(0, Some(75), full), None);
    }

    #[test]
    fn no_limit_is_never_reached() {
        let none = PressureConfig {
            max_waiting: 0,
            max_memory_percent: 0,
        };
        let now = Fullness {
            waiting: u64::MAX,
            memory_percent: Some(100),
            bytes: None,
        };
        assert_eq!(none.judge(now, None), None);
    }
}
