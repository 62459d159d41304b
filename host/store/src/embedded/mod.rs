//! The embedded store: a file of `SQLite`, for a host that needs nothing beside it.
//!
//! One thread writes and answers after a durable commit that it shares over all callers who wait
//! for one; another reads. One host at a time has the file. Command-line tools open it beside the
//! host, and what they write wakes the host's workers within `WATCH`.
//!
//! The file knows what is due, not who holds it: there is one host, so leases and whose turn it is are in
//! its memory (`schedule`), and end with it. A third thread leases, which waits for no commit. What tools
//! read in the file is `pending` or `failed` while it is leased.
//!
//! The way of a delivery through the tables: `enqueue`, `lease`, `record`, `retain`; the
//! tables themselves are in `schema.sql`. The newest 10,000 refused events are kept.

mod changes;
mod check;
mod clock;
mod enqueue;
mod folder;
mod kv;
mod lanes;
mod lease;
mod leases;
mod names;
mod new_work;
mod quotas;
mod read;
mod record;
mod retain;
mod rows;
mod schedule;
mod schema;
mod sequences;
mod thread;
mod writer;

pub use folder::DATABASE;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use wasmhook_core::clock::SystemClock;
use wasmhook_core::ports::{Clock, Enqueued};
use wasmhook_core::{DeliveryId, Event, EventId, Quota, TenantId};

use self::clock::{StoreClock, until};
use self::folder::Folder;
use self::lease::Leaser;
use self::leases::Holdings;
use self::read::Reader;
use self::thread::Worker;
use self::writer::{Shared, Writer};
use crate::check::{CheckReport, CheckRequest};
use crate::error::StoreError;
use crate::queue::{
    Backlog, Batch, EventDeliveries, Filter, Fullness, LeaseRequest, Leased, NewWork, Outcome,
    Page, Record, Recorded, RejectedEvent, Retention, Store,
};

/// How often an idle host looks for what another process wrote.
const WATCH: Duration = Duration::from_millis(500);

/// Where the embedded store is, and who opens it.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The data folder. A host makes it when it is missing.
    pub path: PathBuf,
    /// Whether this is the host, of which there is one at a time, or a tool beside it.
    pub host: bool,
}

/// A store in a file on this machine.
pub struct EmbeddedStore {
    // The connections close before the folder's lock is given up: fields drop in this order.
    writer: Worker<Writer>,
    reader: Worker<Reader>,
    leaser: Worker<Leaser>,
    schedule: Arc<Shared>,
    clock: Arc<StoreClock>,
    wake: Arc<Notify>,
    news: Arc<Notify>,
    /// What retention has still to look at.
    retaining: Mutex<retain::Round>,
    folder: Folder,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("database", &self.folder.database)
            .field("host", &self.folder.is_held())
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store. A second host gets [`StoreError::InUse`]; a folder that cannot be used, and
    /// a file of a newer version, give [`StoreError::Path`] with the reason.
    ///
    /// It reads and writes files before it returns; dropping the store waits for what was asked of
    /// it and closes the file.
    pub fn open(config: EmbeddedConfig) -> Result<Self, StoreError> {
        Self::open_with_clock(config, Arc::new(SystemClock))
    }

    /// As [`Self::open`], by a clock that a test holds. The store's own time never goes back, and
    /// walks on while `system` stands still.
    pub fn open_with_clock(
        config: EmbeddedConfig,
        system: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let EmbeddedConfig { path, host } = config;
        let folder = if host {
            Folder::for_host(&path)?
        } else {
            Folder::for_tools(&path)?
        };
        let clock = Arc::new(StoreClock::new(system));
        let wake = Arc::new(Notify::new());
        let news = Arc::new(Notify::new());
        let schedule = Arc::new(Shared::default());
        let writer = Writer::new(
            schema::open_writer(&folder)?,
            Arc::clone(&clock),
            Arc::clone(&schedule),
            host,
            Arc::clone(&wake),
            Arc::clone(&news),
        );
        writer
            .start()
            .map_err(|fault| schema::unreadable(&folder, fault))?;
        let reader = Reader {
            connection: schema::open_reader(&folder.database)?,
        };
        let leaser = Leaser {
            connection: schema::open_reader(&folder.database)?,
            clock: Arc::clone(&clock),
            schedule: Arc::clone(&schedule),
        };
        Ok(Self {
            writer: Worker::start("store-writer", Some("BEGIN IMMEDIATE"), writer)?,
            reader: Worker::start("store-reader", Some("BEGIN"), reader)?,
            leaser: Worker::start("store-leaser", None, leaser)?,
            schedule,
            clock,
            wake,
            news,
            retaining: Mutex::default(),
            folder,
        })
    }

    /// Opens the store for a command-line tool, beside a running host or without one.
    pub fn open_for_tools(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open(EmbeddedConfig {
            path: path.into(),
            host: false,
        })
    }

    /// Who holds what. It is to be asked before the file is: what is over by then, the file tells.
    fn holdings(&self) -> Holdings {
        Holdings::of(self.schedule.lock().leases())
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn enqueue(&self, batch: &[EventDeliveries]) -> Result<Vec<Enqueued>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let batch = batch.to_vec();
        self.writer
            .call("enqueue", move |writer| enqueue::enqueue(writer, batch))
            .await
    }

    async fn known(&self, events: &[(TenantId, EventId)]) -> Result<Vec<bool>, StoreError> {
        let events = events.to_vec();
        self.reader
            .call("known", move |reader| read::known(reader, &events))
            .await
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<Batch, StoreError> {
        if !self.folder.is_held() {
            return Err(StoreError::Configuration(
                "only the host that has the embedded store can lease".to_owned(),
            ));
        }
        let overdue = self.schedule.lock().has_overdue(self.clock.now());
        if overdue {
            self.writer.call("lease", lease::make_ready).await?;
        }
        let request = request.clone();
        self.leaser
            .call("lease", move |leaser| lease::lease(leaser, &request, None))
            .await
    }

    async fn record(&self, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        if outcomes.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = outcomes.to_vec();
        self.writer
            .call("record", move |writer| record::record(writer, &outcomes))
            .await
    }

    async fn release(&self, leases: &[Leased]) -> Result<(), StoreError> {
        if lease::release(&self.schedule, leases) {
            self.wake.notify_waiters();
        }
        Ok(())
    }

    async fn wait_for_work(&self, timeout: Duration) -> Result<(), StoreError> {
        let end = Instant::now() + timeout;
        loop {
            // Listening begins before looking, so that nothing slips in between.
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let (ready, next) = {
                let schedule = self.schedule.lock();
                (schedule.has_work(), schedule.next_change())
            };
            let pause = next.map_or(WATCH, |then| until(then, self.clock.now()));
            let left = end.saturating_duration_since(Instant::now());
            if ready || pause.is_zero() || left.is_zero() {
                return Ok(());
            }
            tokio::select! {
                () = woken => return Ok(()),
                () = tokio::time::sleep(pause.min(left).min(WATCH)) => {}
            }
            // After a transaction, though an empty one, the writer sees whether others wrote.
            self.writer.call("wait", |_| Ok(())).await?;
        }
    }

    fn new_work(&self) -> &dyn NewWork {
        self
    }

    async fn replay(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError> {
        let (tenant, delivery) = (tenant.clone(), delivery.clone());
        self.writer
            .call("replay", move |writer| {
                record::replay(writer, &tenant, &delivery)
            })
            .await
    }

    async fn skip(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<(), StoreError> {
        let (tenant, delivery) = (tenant.clone(), delivery.clone());
        self.writer
            .call("skip", move |writer| {
                record::skip(writer, &tenant, &delivery)
            })
            .await
    }

    async fn get(
        &self,
        tenant: &TenantId,
        delivery: &DeliveryId,
    ) -> Result<Option<Record>, StoreError> {
        let (tenant, delivery, held) = (tenant.clone(), delivery.clone(), self.holdings());
        let found = self
            .reader
            .call("get", move |reader| {
                read::get(reader, &tenant, &delivery, &held)
            })
            .await?;
        Ok(found.map(|(record, lane)| Record {
            endpoint_stalls: !record.delivery.state.is_finished()
                && self.schedule.lock().stalls(lane),
            ..record
        }))
    }

    async fn event(&self, tenant: &TenantId, event: &EventId) -> Result<Option<Event>, StoreError> {
        let (tenant, event) = (tenant.clone(), event.clone());
        self.reader
            .call("event", move |reader| read::event(reader, &tenant, &event))
            .await
    }

    async fn list(&self, filter: &Filter) -> Result<Page, StoreError> {
        let (filter, held) = (filter.clone(), self.holdings());
        self.reader
            .call("list", move |reader| read::list(reader, &filter, &held))
            .await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        self.reader.call("tenants", read::tenants).await
    }

    async fn reject(&self, events: &[RejectedEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let events = events.to_vec();
        self.writer
            .call("reject", move |writer| enqueue::reject(writer, &events))
            .await
    }

    async fn rejected(&self, limit: usize) -> Result<Vec<RejectedEvent>, StoreError> {
        self.reader
            .call("rejected", move |reader| read::rejected(reader, limit))
            .await
    }

    async fn retain(&self, retention: &Retention) -> Result<usize, StoreError> {
        let retention = *retention;
        let mut round = self.retaining.lock().await;
        if round.is_empty() {
            let now = self.clock.now();
            let look = move |reader: &Reader| retain::look(reader, &retention, now);
            *round = self.reader.call("retain", look).await?;
        }
        let tenants = std::mem::take(&mut *round);
        let retain = move |writer: &Writer| retain::retain(writer, &retention, tenants);
        let (removed, left) = self.writer.call("retain", retain).await?;
        *round = left;
        Ok(removed)
    }

    async fn set_quotas(&self, quotas: &[(TenantId, Quota)]) -> Result<(), StoreError> {
        let quotas = quotas.to_vec();
        self.writer
            .call("set_quotas", move |writer| quotas::set(writer, &quotas))
            .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let (leased, stalling) = {
            let schedule = self.schedule.lock();
            (schedule.leases().count(), schedule.stalling())
        };
        self.reader
            .call("backlog", move |reader| {
                read::backlog(reader, leased, stalling)
            })
            .await
    }

    async fn fullness(&self) -> Result<Fullness, StoreError> {
        let backlog = self.backlog().await?;
        Ok(Fullness {
            waiting: backlog.waiting + backlog.leased,
            memory_percent: None,
            bytes: Some(self.reader.call("fullness", read::bytes).await?),
        })
    }

    async fn check(&self, request: CheckRequest) -> Result<CheckReport, StoreError> {
        self.check_all(request).await
    }

    /// Always: there is one host.
    async fn claim_check(&self, _every: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// None: a commit here is on the disk before it is answered.
    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writer.call("ping", |_| Ok(())).await?;
        self.reader.call("ping", |_| Ok(())).await?;
        self.leaser.call("ping", |_| Ok(())).await
    }
}
