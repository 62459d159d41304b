//! Leasing: what is due goes out, fair by tenant first and by lane second.

use super::super::leases::Held;
use super::roster::{Next, Source};
use super::share::share;
use super::turns::{Part, Turn};
use super::window::Fresh;
use super::{Fault, Schedule};

/// A call that leases.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Call {
    pub(in crate::embedded) max: usize,
    pub(in crate::embedded) max_per_endpoint: usize,
    /// For new work only, and for no endpoint more than come to this many on their way.
    pub(in crate::embedded) new_up_to: Option<usize>,
    /// When the leases end.
    pub(in crate::embedded) until: i64,
}

/// A delivery that was leased; its row is to be read if it is not at hand.
#[derive(Debug)]
pub(in crate::embedded) struct Picked {
    /// Its place among those of its tenant.
    rank: usize,
    pub(in crate::embedded) seq: i64,
    pub(in crate::embedded) lease: i64,
    pub(in crate::embedded) fresh: Option<Box<Fresh>>,
}

impl Schedule {
    /// Leases, reading from `source` what is not known of a lane.
    pub(in crate::embedded) fn lease(
        &mut self,
        call: Call,
        now: i64,
        source: &mut Source<'_>,
    ) -> Result<Vec<Picked>, Fault> {
        self.roster.set_max_per_endpoint(call.max_per_endpoint);
        while let Some(seq) = self.leases.expired(now) {
            self.put_back(seq);
        }
        let mut picked = Vec::new();
        let shared = if call.new_up_to.is_none() {
            self.serve_round(call, source, &mut picked)
        } else {
            let tenants = self.newcomers.turns(self.roster.tenants(), call.max);
            share(call.max, tenants, |tenant, quota| {
                self.serve_tenant(call, tenant.id, quota, source, &mut picked)
            })
        };
        if let Err(fault) = shared {
            for one in picked {
                self.release(one.seq, one.lease);
            }
            return Err(fault);
        }
        // The first of each tenant first, so that the worker too takes turns.
        picked.sort_by_key(|picked| picked.rank);
        Ok(picked)
    }

    /// Serves the tenants in turn; what those leave who hold their part of the places goes to those who hold more.
    fn serve_round(
        &mut self,
        call: Call,
        source: &mut Source<'_>,
        picked: &mut Vec<Picked>,
    ) -> Result<usize, Fault> {
        let part = Part::of(self.roster.tenants(), self.leases.count(), call.max);
        let (first, later) = self.round.turns(self.roster.tenants(), call.max, part);
        let mut taken = 0;
        for tenants in [first, later] {
            taken += share(call.max - taken, tenants, |tenant, quota| {
                let got = self.serve_tenant(call, tenant.id, quota, source, picked)?;
                if got > 0 {
                    let lacks =
                        part.is_some_and(|part| part.lacks(self.roster.tenants(), tenant.id));
                    self.round.served(tenant, quota, got, lacks);
                    self.newcomers.served(tenant.id);
                }
                Ok::<_, Fault>(got)
            })?;
        }
        Ok(taken)
    }

    /// Gives a lease up, if it is in force.
    pub(in crate::embedded) fn release(&mut self, seq: i64, lease: i64) -> bool {
        let held = self.leases.get(seq);
        let theirs = held.is_some_and(|held| held.lease == lease && !held.ending);
        if theirs {
            self.put_back(seq);
        }
        theirs
    }

    /// Ends a lease whose delivery is not due any more.
    pub(in crate::embedded) fn drop_lease(&mut self, seq: i64, lease: i64) {
        if self.begin_end(seq, lease).is_some() {
            self.end(seq);
        }
    }

    /// Leases up to `quota` of the tenant's due deliveries, evenly over its open lanes.
    fn serve_tenant(
        &mut self,
        call: Call,
        tenant: i64,
        quota: usize,
        source: &mut Source<'_>,
        picked: &mut Vec<Picked>,
    ) -> Result<usize, Fault> {
        let quota = quota.min(self.roster.tenants().room(tenant));
        let lanes = self.roster.tenants().open_lanes(tenant).take(quota);
        let lanes = lanes.map(Turn::of_lane).collect();
        let mut rank = 0;
        share(quota, lanes, |lane, quota| {
            let got = self.serve_lane(call, lane.id, quota, source, &mut rank, picked)?;
            if got > 0 {
                self.roster.served(lane.id);
            }
            Ok(got)
        })
    }

    fn serve_lane(
        &mut self,
        call: Call,
        lane: i64,
        quota: usize,
        source: &mut Source<'_>,
        rank: &mut usize,
        picked: &mut Vec<Picked>,
    ) -> Result<usize, Fault> {
        let room = call.new_up_to.map(|most| self.roster.room(lane, most));
        let quota = room.map_or(quota, |room| quota.min(room));
        let mut got = 0;
        while got < quota {
            let (tenant, place, fresh) = match self.roster.next(lane) {
                Next::Nothing => break,
                Next::Unread => {
                    let wanted = quota - got;
                    self.roster.read_on(lane, wanted, &self.leases, source)?;
                    continue;
                }
                Next::Due {
                    tenant,
                    place,
                    fresh,
                } => (tenant, place, fresh),
            };
            let (_, seq) = place;
            let lease = self.leases.next_number();
            let held = Held {
                lease,
                lane,
                tenant,
                until: call.until,
                place,
                ending: false,
            };
            self.leases.give(seq, held);
            self.roster.hold(lane, tenant);
            picked.push(Picked {
                rank: *rank,
                seq,
                lease,
                fresh,
            });
            *rank += 1;
            got += 1;
        }
        Ok(got)
    }

    /// Ends a lease, and has its delivery due.
    fn put_back(&mut self, seq: i64) {
        if let Some(held) = self.leases.get(seq) {
            self.roster.enter(held.lane, held.place, None);
            self.end(seq);
        }
    }
}
