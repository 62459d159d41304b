//! Leasing: tenants take turns, and so do a tenant's endpoints.
//!
//! Only open lanes are looked at, through their index, and only as many deliveries as are leased:
//! the cost grows neither with the backlog nor with tenants that have nothing due.

use rusqlite::{OptionalExtension as _, params};

use super::clock::{span, until};
use super::lanes::{Stage, Tally};
use super::quotas;
use super::rows::{self, delivery_columns, delivery_joins};
use super::thread::Fault;
use super::writer::Writer;
use crate::queue::{Batch, LeaseRequest, LeaseToken, Leased};

/// At most so many expired leases are put back, and so many waiting deliveries made ready, per
/// call; the rest follow with the next calls, for `next_due` is zero then.
const MOVED: usize = 1000;

/// The number of the delivery and of the lease, as one word.
pub(super) fn token(seq: i64, lease: i64) -> LeaseToken {
    LeaseToken(format!("{seq}-{lease}").into())
}

/// What [`token`] was made of; `None` for what is no token of this store.
pub(super) fn parse_token(token: &LeaseToken) -> Option<(i64, i64)> {
    let (seq, lease) = token.0.split_once('-')?;
    Some((seq.parse().ok()?, lease.parse().ok()?))
}

pub(super) fn lease(writer: &Writer, request: &LeaseRequest) -> Result<Batch, Fault> {
    let now = writer.clock.now();
    set_bound(writer, request.max_per_endpoint)?;
    let mut tally = Tally::default();
    put_back_expired(writer, now, &mut tally)?;
    make_ready(writer, now, &mut tally)?;
    tally.apply(writer)?;

    let mut round = Round {
        writer,
        now,
        end: now.saturating_add(span(request.duration)),
        bound: request.max_per_endpoint,
        leased: Vec::new(),
    };
    let tenants = open_tenants(writer, request.max)?;
    share(request.max, tenants, |tenant, quota| {
        let got = round.serve_tenant(tenant.id, quota)?;
        if got > 0 {
            // The next round goes on with it if it got only a part of its turn, and behind it otherwise.
            let left = tenant.turn.saturating_sub(got);
            let cut = got == quota && left > 0;
            writer.last_tenant.set(tenant.id - i64::from(cut));
            writer
                .begun
                .set(if cut { (tenant.id, left) } else { (0, 0) });
        }
        Ok(got)
    })?;
    // The first of each tenant first, so that the worker too takes turns.
    round.leased.sort_by_key(|(rank, _)| *rank);
    Ok(Batch {
        leased: round.leased.into_iter().map(|(_, leased)| leased).collect(),
        next_due: next_change(writer)?.map(|then| until(then, now)),
    })
}

/// Who takes turns.
trait Sharer {
    /// What it gets for one that others get.
    fn weight(&self) -> usize {
        1
    }

    /// What it gets in this turn when there is not enough for the turns of all.
    fn turn(&self) -> usize {
        self.weight()
    }
}

/// Shares `amount` out by weight: whoever takes less than its share leaves the rest to those who took
/// all of theirs.
fn share<T: Sharer>(
    amount: usize,
    mut among: Vec<T>,
    mut take: impl FnMut(&mut T, usize) -> Result<usize, Fault>,
) -> Result<usize, Fault> {
    let mut taken = 0;
    while taken < amount && !among.is_empty() {
        let each = (amount - taken) / among.iter().map(Sharer::weight).sum::<usize>();
        let mut greedy = Vec::new();
        for mut one in among {
            // What is not enough for all is given out last, turn by turn, when it is known who can still
            // take more.
            let quota = if each > 0 {
                each * one.weight()
            } else {
                one.turn().min(amount - taken)
            };
            let got = take(&mut one, quota)?;
            taken += got;
            if quota == 0 || got == quota {
                greedy.push(one);
            }
        }
        among = greedy;
    }
    Ok(taken)
}

struct Round<'a> {
    writer: &'a Writer,
    now: i64,
    end: i64,
    bound: usize,
    /// With the delivery's rank within its tenant.
    leased: Vec<(usize, Leased)>,
}

struct Lane {
    id: i64,
    room: usize,
}

impl Sharer for Lane {}

/// A tenant with open lanes.
struct Tenant {
    id: i64,
    weight: usize,
    /// Its weight, or what is left of a turn that it got a part of.
    turn: usize,
}

impl Sharer for Tenant {
    fn weight(&self) -> usize {
        self.weight
    }

    fn turn(&self) -> usize {
        self.turn
    }
}

impl Round<'_> {
    /// Leases up to `quota` of the tenant's due deliveries, evenly over its open lanes.
    fn serve_tenant(&mut self, tenant: i64, quota: usize) -> Result<usize, Fault> {
        if quota == 0 {
            return Ok(0);
        }
        let quota = quotas::room(self.writer, tenant)?.map_or(quota, |room| quota.min(room));
        let lanes = self.open_lanes(tenant, quota)?;
        let mut tally = Tally::default();
        let mut rank = 0;
        let served = share(quota, lanes, |lane, quota| {
            let got = self.serve_lane(lane, quota, &mut rank)?;
            for _ in 0..got {
                tally.leave(lane.id, Stage::Ready);
                tally.enter(lane.id, Stage::InFlight);
            }
            // Each a number of its own, or lanes served together would go by their age the next time.
            tally.served(lane.id, self.writer.next_lease());
            Ok(got)
        })?;
        tally.apply(self.writer)?;
        Ok(served)
    }

    fn open_lanes(&self, tenant: i64, limit: usize) -> Result<Vec<Lane>, Fault> {
        let mut statement = self.writer.connection.prepare_cached(
            "SELECT id, in_flight FROM lanes INDEXED BY lanes_open
             WHERE open AND tenant = ?1 ORDER BY served, id LIMIT ?2",
        )?;
        let mut rows = statement.query(params![tenant, limit_number(limit)])?;
        let mut lanes = Vec::new();
        while let Some(row) = rows.next()? {
            let in_flight: i64 = row.get(1)?;
            lanes.push(Lane {
                id: row.get(0)?,
                room: self
                    .bound
                    .saturating_sub(usize::try_from(in_flight).unwrap_or(0)),
            });
        }
        Ok(lanes)
    }

    fn serve_lane(
        &mut self,
        lane: &mut Lane,
        quota: usize,
        rank: &mut usize,
    ) -> Result<usize, Fault> {
        let quota = quota.min(lane.room);
        if quota == 0 {
            return Ok(0);
        }
        let connection = &self.writer.connection;
        let mut select = connection.prepare_cached(concat!(
            "SELECT ",
            delivery_columns!(),
            ", d.event, e.occurred_at, e.deliver_at, e.ordering_key, e.payload",
            " FROM deliveries d INDEXED BY deliveries_ready",
            delivery_joins!(),
            "WHERE d.stage = 0 AND d.lane = ?1 ORDER BY d.next_at, d.seq LIMIT ?2",
        ))?;
        let mut rows = select.query(params![lane.id, limit_number(quota)])?;
        let mut numbers = Vec::with_capacity(quota);
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get("seq")?;
            let lease = self.writer.next_lease();
            let delivery = rows::delivery(row)?;
            let leased = Leased {
                event: rows::event(row)?,
                attempts: rows::attempts(connection, seq, &delivery)?,
                token: token(seq, lease),
                delivery,
            };
            numbers.push((seq, lease));
            self.leased.push((*rank, leased));
            *rank += 1;
        }
        let mut update = connection.prepare_cached(
            "UPDATE deliveries SET state = 1, stage = 2, back = state, lease = ?2,
                 lease_until = ?3, updated_at = ?4
             WHERE seq = ?1",
        )?;
        for (seq, lease) in &numbers {
            update.execute(params![seq, lease, self.end, self.now])?;
        }
        lane.room -= numbers.len();
        Ok(numbers.len())
    }
}

/// The tenants with open lanes, in a round that goes on where the last one ended.
fn open_tenants(writer: &Writer, limit: usize) -> Result<Vec<Tenant>, Fault> {
    let mut next = writer.connection.prepare_cached(
        "SELECT tenant FROM lanes INDEXED BY lanes_open
         WHERE open AND tenant > ?1 ORDER BY tenant LIMIT 1",
    )?;
    let start = writer.last_tenant.get();
    let mut found = Vec::new();
    let (mut last, mut wrapped) = (start, false);
    while found.len() < limit {
        let tenant: Option<i64> = next.query_row([last], |row| row.get(0)).optional()?;
        match tenant {
            Some(tenant) if wrapped && tenant > start => break,
            Some(tenant) => {
                let weight = quotas::weight(writer, tenant)?;
                let turn = match writer.begun.get() {
                    (begun, left) if begun == tenant => left.min(weight),
                    _ => weight,
                };
                found.push(Tenant {
                    id: tenant,
                    weight,
                    turn,
                });
                last = tenant;
            }
            None if wrapped => break,
            None => (last, wrapped) = (0, true),
        }
    }
    Ok(found)
}

/// Which lanes are open depends on the bound, so they are looked at again when it changes.
fn set_bound(writer: &Writer, bound: usize) -> Result<(), Fault> {
    let bound = limit_number(bound);
    let changed = writer
        .connection
        .prepare_cached("UPDATE settings SET max_per_endpoint = ?1 WHERE max_per_endpoint <> ?1")?
        .execute([bound])?;
    if changed > 0 {
        writer
            .connection
            .prepare_cached("UPDATE lanes SET open = ready > 0 AND in_flight < ?1")?
            .execute([bound])?;
        quotas::settle_all(writer)?;
    }
    Ok(())
}

fn put_back_expired(writer: &Writer, now: i64, tally: &mut Tally) -> Result<(), Fault> {
    let expired = numbers(
        writer,
        "SELECT seq, lane FROM deliveries INDEXED BY deliveries_leased
         WHERE stage = 2 AND lease_until <= ?1 ORDER BY lease_until LIMIT ?2",
        now,
    )?;
    let mut update = writer.connection.prepare_cached(
        "UPDATE deliveries SET state = back, stage = 0, back = NULL, lease = NULL,
             lease_until = NULL, updated_at = ?2
         WHERE seq = ?1",
    )?;
    for (seq, lane) in expired {
        update.execute(params![seq, now])?;
        tally.leave(lane, Stage::InFlight);
        tally.enter(lane, Stage::Ready);
    }
    Ok(())
}

fn make_ready(writer: &Writer, now: i64, tally: &mut Tally) -> Result<(), Fault> {
    let due = numbers(
        writer,
        "SELECT seq, lane FROM deliveries INDEXED BY deliveries_delayed
         WHERE stage = 1 AND next_at <= ?1 ORDER BY next_at LIMIT ?2",
        now,
    )?;
    let mut update = writer
        .connection
        .prepare_cached("UPDATE deliveries SET stage = 0 WHERE seq = ?1")?;
    for (seq, lane) in due {
        update.execute([seq])?;
        tally.leave(lane, Stage::Delayed);
        tally.enter(lane, Stage::Ready);
    }
    Ok(())
}

fn numbers(writer: &Writer, query: &str, now: i64) -> Result<Vec<(i64, i64)>, Fault> {
    let mut statement = writer.connection.prepare_cached(query)?;
    let rows = statement.query_map(params![now, limit_number(MOVED)], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn next_change(writer: &Writer) -> Result<Option<i64>, Fault> {
    super::read::next_change(&writer.connection)
}

/// A number of rows as a statement takes it.
pub(super) fn limit_number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(amount: usize, stocks: &[usize]) -> Vec<usize> {
        weighted(amount, stocks, &vec![1; stocks.len()])
    }

    fn weighted(amount: usize, stocks: &[usize], weights: &[usize]) -> Vec<usize> {
        let mut taken = vec![0; stocks.len()];
        let tenant = |(place, weight): (usize, &usize)| Tenant {
            id: i64::try_from(place).unwrap(),
            weight: *weight,
            turn: *weight,
        };
        let among = weights.iter().enumerate().map(tenant).collect();
        share(amount, among, |one, quota| {
            let one = usize::try_from(one.id).unwrap();
            let got = quota.min(stocks[one] - taken[one]);
            taken[one] += got;
            Ok(got)
        })
        .unwrap();
        taken
    }

    #[test]
    fn shares_are_by_weight_and_turns_are_as_long() {
        assert_eq!(weighted(10, &[100, 100, 100], &[3, 1, 1]), [6, 2, 2]);
        assert_eq!(weighted(4, &[100, 100, 100], &[3, 1, 1]), [3, 1, 0]);
        assert_eq!(weighted(2, &[100, 100, 100], &[3, 1, 1]), [2, 0, 0]);
        assert_eq!(weighted(10, &[1, 100, 100], &[3, 1, 1]), [1, 5, 4]);
    }

    #[test]
    fn shares_are_even_and_nothing_is_left_that_somebody_could_take() {
        assert_eq!(shares(10, &[100, 2, 100]), [4, 2, 4]);
        assert_eq!(shares(2, &[5, 5, 5]), [1, 1, 0]);
        assert_eq!(shares(10, &[1, 2]), [1, 2]);
        assert_eq!(shares(10, &[]), Vec::<usize>::new());
    }

    #[test]
    fn tokens_of_other_stores_are_none_of_ours() {
        assert_eq!(parse_token(&token(7, 9)), Some((7, 9)));
        assert_eq!(parse_token(&LeaseToken("nonsense".into())), None);
    }
}
