//! Reading deliveries and events, one or a page of them.

use bytes::Bytes;
use jiff::Timestamp;
use wasmhook_core::{DeliveryId, DeliveryState, Event, EventId, TenantId};

use super::functions::Call;
use super::{RedisStore, codec};
use crate::error::StoreError;
use crate::queue::{Cursor, Filter, Page, Record};

/// Deliveries looked at per call.
const SCAN: usize = 500;
/// Calls per page: a rare state among very many deliveries may give a short page.
const CALLS: usize = 40;

/// Where a page comes from.
#[derive(Clone, Copy)]
enum Source {
    /// The stream of all deliveries, and the letter of the state wanted, if one is.
    All(&'static str),
    /// An index of deliveries in one state.
    Index(&'static str),
    /// The leases.
    Leases,
}

impl Source {
    fn of(state: Option<DeliveryState>) -> Self {
        match state {
            None => Self::All(""),
            Some(DeliveryState::Pending) => Self::All("p"),
            Some(DeliveryState::Succeeded) => Self::All("s"),
            Some(DeliveryState::Failed) => Self::Index("o"),
            Some(DeliveryState::DeadLetter) => Self::Index("x"),
            Some(DeliveryState::Leased) => Self::Leases,
        }
    }
}

impl RedisStore {
    /// The record as kept, and as read.
    pub(super) async fn read(
        &self,
        tenant: &TenantId,
        id: &DeliveryId,
    ) -> Result<Option<(Bytes, Record)>, StoreError> {
        let mut call = self.call("get", self.keys.shard_of(tenant));
        call.parts(&[tenant.as_str().as_bytes(), b"\0", id.as_str().as_bytes()]);
        let mut reply = self.run("get", &call).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let unexpected = || self.link.unexpected("get");
        let bytes = reply.bytes().ok_or_else(unexpected)?;
        let ends = reply.bytes().ok_or_else(unexpected)?;
        let first = reply.text().ok_or_else(unexpected)?;
        let mut record = read_record(tenant, id, &bytes, &ends)
            .ok_or_else(|| StoreError::Corrupt(format!("delivery {id} of tenant {tenant}")))?;
        let open = !record.delivery.state.is_finished();
        record.endpoint_stalls = open && reply.int().ok_or_else(unexpected)? == 1;
        record.behind = DeliveryId::new(first)
            .ok()
            .filter(|first| open && first != id);
        Ok(Some((bytes, record)))
    }

    pub(super) async fn read_event(
        &self,
        tenant: &TenantId,
        event: &EventId,
    ) -> Result<Option<Event>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.event(tenant, event));
        let bytes: Option<Vec<u8>> = self.link.query("GET", &command).await?;
        bytes
            .map(|bytes| {
                codec::unpack_event(tenant, event, &Bytes::from(bytes))
                    .map_err(|_| StoreError::Corrupt(format!("event {event} of tenant {tenant}")))
            })
            .transpose()
    }

    pub(super) async fn page(&self, filter: &Filter) -> Result<Page, StoreError> {
        let mut page = Page {
            records: Vec::new(),
            next: None,
        };
        if filter.limit == 0 {
            return Ok(page);
        }
        let source = Source::of(filter.state);
        let mut from = match &filter.cursor {
            None => String::new(),
            // The stamp of the last one seen, whatever the list.
            Some(Cursor(stamp))
                if !stamp.is_empty() && stamp.bytes().all(|b| b.is_ascii_digit()) =>
            {
                stamp.clone()
            }
            Some(_) => {
                return Err(StoreError::Configuration(
                    "the cursor is not one that this store gave".to_owned(),
                ));
            }
        };
        for _ in 0..CALLS {
            let (name, call) = self.page_call(source, filter, &from);
            let mut reply = self.run(name, &call).await?;
            let unexpected = || self.link.unexpected(name);
            let next = reply.text().ok_or_else(unexpected)?;
            let mut rows = reply.len() / 4;
            while rows > 0 {
                rows -= 1;
                let row = (reply.text(), reply.text(), reply.bytes(), reply.bytes());
                let (Some(id), Some(stamp), Some(record), Some(ends)) = row else {
                    return Err(unexpected());
                };
                let record = DeliveryId::new(&id)
                    .ok()
                    .and_then(|id| read_record(&filter.tenant, &id, &record, &ends));
                if record.is_none() {
                    tracing::error!(delivery = id, "a listed record cannot be read");
                }
                page.records.extend(record);
                if page.records.len() == filter.limit {
                    page.next = (rows > 0 || !next.is_empty()).then_some(Cursor(stamp));
                    return Ok(page);
                }
            }
            if next.is_empty() {
                return Ok(page);
            }
            from = next;
        }
        page.next = Some(Cursor(from));
        Ok(page)
    }

    fn page_call(&self, source: Source, filter: &Filter, from: &str) -> (&'static str, Call) {
        let count = filter.limit.min(SCAN);
        let unleased = match filter.state {
            Some(DeliveryState::Pending | DeliveryState::Failed) => "0",
            _ => "",
        };
        let name = match source {
            Source::All(_) => "scan",
            Source::Index(_) => "list",
            Source::Leases => "leased",
        };
        let mut call = self.call(name, self.keys.shard_of(&filter.tenant));
        call.arg(filter.tenant.as_str());
        match source {
            Source::All(letter) => {
                call.arg(from).arg(letter).arg(unleased);
                call.arg(count).arg(SCAN);
            }
            Source::Index(index) => {
                call.arg(index).arg(from).arg(unleased).arg(count);
            }
            Source::Leases => {
                call.arg(from).arg(count);
            }
        }
        (name, call)
    }
}

fn read_record(tenant: &TenantId, id: &DeliveryId, record: &[u8], ends: &[u8]) -> Option<Record> {
    let (mut delivery, attempts) = codec::unpack_record(tenant, id, record).ok()?;
    let lease_until = match ends {
        [] => None,
        digits => {
            delivery.state = DeliveryState::Leased;
            let micros = std::str::from_utf8(digits).ok()?.parse().ok()?;
            Some(Timestamp::from_microsecond(micros).ok()?)
        }
    };
    Some(Record {
        delivery,
        attempts,
        lease_until,
        behind: None,
        endpoint_stalls: false,
    })
}
