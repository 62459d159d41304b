//! The embedded store: a file of `SQLite`, for a host that needs nothing beside it.
//!
//! One thread writes and answers after a durable commit that it shares over all callers who wait
//! for one; another reads. One host at a time has the file. Command-line tools open it beside the
//! host, and what they write wakes the host's workers within `WATCH`.
//!
//! The way of a delivery through the tables: `enqueue`, `lease`, `record`, `retain`; the
//! tables themselves are in `schema.sql`. The newest 10,000 refused events are kept.

mod check;
mod clock;
mod enqueue;
mod folder;
mod kv;
mod lanes;
mod lease;
mod quotas;
mod read;
mod record;
mod retain;
mod rows;
mod schema;
mod sequences;
mod thread;
mod writer;

pub use folder::DATABASE;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use wasmhook_core::clock::SystemClock;
use wasmhook_core::ports::{Clock, Enqueued};
use wasmhook_core::{DeliveryId, Event, EventId, Quota, TenantId};

use self::clock::{StoreClock, until};
use self::folder::Folder;
use self::read::{Reader, Work};
use self::thread::Worker;
use self::writer::Writer;
use crate::check::{CheckReport, CheckRequest};
use crate::error::StoreError;
use crate::queue::{
    Backlog, Batch, EventDeliveries, Filter, Fullness, LeaseRequest, Leased, Outcome, Page, Record,
    Recorded, RejectedEvent, Retention, Store,
};

/// How often an idle host looks for what another process wrote. It is three lookups in an index.
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
    clock: Arc<StoreClock>,
    wake: Arc<Notify>,
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
        let writer = Writer::new(
            schema::open_writer(&folder.database)?,
            Arc::clone(&clock),
            Arc::clone(&wake),
        );
        let reader = Reader {
            connection: schema::open_reader(&folder.database)?,
        };
        Ok(Self {
            writer: Worker::start("store-writer", "BEGIN IMMEDIATE", writer)?,
            reader: Worker::start("store-reader", "BEGIN", reader)?,
            clock,
            wake,
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
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn enqueue(&self, batch: &[EventDeliveries]) -> Result<Vec<Enqueued>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let batch = batch.to_vec();
        self.writer
            .call("enqueue", move |writer| enqueue::enqueue(writer, &batch))
            .await
    }

    async fn known(&self, events: &[(TenantId, EventId)]) -> Result<Vec<bool>, StoreError> {
        let events = events.to_vec();
        self.reader
            .call("known", move |reader| read::known(reader, &events))
            .await
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<Batch, StoreError> {
        let request = request.clone();
        self.writer
            .call("lease", move |writer| lease::lease(writer, &request))
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
        if leases.is_empty() {
            return Ok(());
        }
        let leases = leases.to_vec();
        self.writer
            .call("release", move |writer| record::release(writer, &leases))
            .await
    }

    async fn wait_for_work(&self, timeout: Duration) -> Result<(), StoreError> {
        let end = Instant::now() + timeout;
        loop {
            // Listening begins before looking, so that nothing slips in between.
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let pause = match self.reader.call("wait", read::work).await? {
                Work::Ready => return Ok(()),
                Work::At(then) => until(then, self.clock.now()),
                Work::None => WATCH,
            };
            if pause.is_zero() {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::select! {
                () = woken => return Ok(()),
                () = tokio::time::sleep(pause.min(left).min(WATCH)) => {}
            }
        }
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
        let (tenant, delivery) = (tenant.clone(), delivery.clone());
        self.reader
            .call("get", move |reader| read::get(reader, &tenant, &delivery))
            .await
    }

    async fn event(&self, tenant: &TenantId, event: &EventId) -> Result<Option<Event>, StoreError> {
        let (tenant, event) = (tenant.clone(), event.clone());
        self.reader
            .call("event", move |reader| read::event(reader, &tenant, &event))
            .await
    }

    async fn list(&self, filter: &Filter) -> Result<Page, StoreError> {
        let filter = filter.clone();
        self.reader
            .call("list", move |reader| read::list(reader, &filter))
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
        self.writer
            .call("retain", move |writer| retain::retain(writer, &retention))
            .await
    }

    async fn set_quotas(&self, quotas: &[(TenantId, Quota)]) -> Result<(), StoreError> {
        let quotas = quotas.to_vec();
        self.writer
            .call("set_quotas", move |writer| quotas::set(writer, &quotas))
            .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.reader.call("backlog", read::backlog).await
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
        self.reader.call("ping", |_| Ok(())).await
    }
}
