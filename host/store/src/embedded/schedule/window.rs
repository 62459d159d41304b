//! What a lane can give next: its due deliveries that nobody holds, in order, from the first on.
//!
//! What the host has just enqueued stands here whole, so that a lease need not read it. How much all
//! windows may hold is bounded; what has no room is read from the file when it is its turn.

use std::collections::BTreeMap;

use wasmhook_core::{Delivery, Event};

/// Deliveries in all windows together: some 6 MiB.
const MOST: usize = 1 << 16;
/// Bytes of deliveries that are kept whole.
const MOST_BYTES: usize = 64 << 20;
/// So many places of a lane are read at a time while there is room to keep them.
const READ: usize = 256;
/// What a delivery takes besides its payload.
const OVERHEAD: usize = 512;

/// When a delivery is due, and its number: the order of a lane.
pub(in crate::embedded) type Place = (i64, i64);

const FIRST: Place = (i64::MIN, i64::MIN);
const LAST: Place = (i64::MAX, i64::MAX);

/// A delivery as it was enqueued.
#[derive(Debug)]
pub(in crate::embedded) struct Fresh {
    pub(in crate::embedded) delivery: Delivery,
    pub(in crate::embedded) event: Event,
}

impl Fresh {
    fn size(&self) -> usize {
        OVERHEAD + self.event.payload.len()
    }
}

/// What all windows hold together.
#[derive(Debug, Default)]
pub(super) struct Budget {
    entries: usize,
    bytes: usize,
}

impl Budget {
    /// Whether more may be kept than what is taken at once.
    pub(super) fn is_spent(&self) -> bool {
        self.entries >= MOST
    }
}

/// The front of a lane.
#[derive(Debug)]
pub(super) struct Window {
    known: BTreeMap<Place, Option<Box<Fresh>>>,
    /// All that is due up to here, and that nobody holds, is in `known`.
    end: Place,
}

impl Window {
    /// Of a lane that has nothing due.
    pub(super) fn of_empty_lane() -> Self {
        Self {
            known: BTreeMap::new(),
            end: LAST,
        }
    }

    /// Of a lane that nothing is known of.
    pub(super) fn unknown() -> Self {
        Self {
            known: BTreeMap::new(),
            end: FIRST,
        }
    }

    /// A delivery is due.
    pub(super) fn enter(&mut self, place: Place, fresh: Option<Box<Fresh>>, budget: &mut Budget) {
        if place > self.end {
            return;
        }
        let mut place_left = Some((place, fresh));
        if budget.is_spent() {
            // The last one goes, or does not come.
            let last = self.known.last_key_value().map(|(last, _)| *last);
            let gone = match last {
                Some(last) if last > place => {
                    self.remove(last, budget);
                    last
                }
                _ => {
                    place_left = None;
                    place
                }
            };
            self.end = before(gone);
        }
        if let Some((place, fresh)) = place_left {
            self.insert(place, fresh, budget);
        }
    }

    /// Takes the first.
    pub(super) fn take(&mut self, budget: &mut Budget) -> Option<(Place, Option<Box<Fresh>>)> {
        let (place, _) = self.known.first_key_value()?;
        let place = *place;
        Some((place, self.remove(place, budget)))
    }

    /// Reads on in the file behind what is known, until there is something that is `free` or nothing is
    /// left to read. `false` if nothing can be behind it.
    pub(super) fn read_on<E>(
        &mut self,
        wanted: usize,
        free: impl Fn(i64) -> bool,
        mut source: impl FnMut(Place, usize) -> Result<Vec<Place>, E>,
        budget: &mut Budget,
    ) -> Result<bool, E> {
        let limit = if budget.is_spent() {
            wanted.min(READ)
        } else {
            READ
        };
        while self.end < LAST {
            let read = source(self.end, limit)?;
            let last = read.last().copied().filter(|_| read.len() >= limit);
            let mut found = false;
            for place in read.into_iter().filter(|(_, seq)| free(*seq)) {
                self.insert(place, None, budget);
                found = true;
            }
            self.end = last.unwrap_or(LAST);
            if found || last.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self, budget: &mut Budget) {
        while self.take(budget).is_some() {}
        self.end = FIRST;
    }

    fn insert(&mut self, place: Place, fresh: Option<Box<Fresh>>, budget: &mut Budget) {
        let fresh = fresh.filter(|fresh| budget.bytes + fresh.size() <= MOST_BYTES);
        budget.bytes += fresh.as_ref().map_or(0, |fresh| fresh.size());
        match self.known.insert(place, fresh) {
            Some(before) => budget.bytes -= before.map_or(0, |fresh| fresh.size()),
            None => budget.entries += 1,
        }
    }

    fn remove(&mut self, place: Place, budget: &mut Budget) -> Option<Box<Fresh>> {
        let fresh = self.known.remove(&place)?;
        budget.entries -= 1;
        budget.bytes -= fresh.as_ref().map_or(0, |fresh| fresh.size());
        fresh
    }
}

fn before((at, seq): Place) -> Place {
    (at, seq.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(window: &mut Window, budget: &mut Budget) -> Vec<Place> {
        std::iter::from_fn(|| window.take(budget))
            .map(|(place, _)| place)
            .collect()
    }

    #[test]
    fn what_is_due_is_taken_in_order() {
        let (mut window, mut budget) = (Window::of_empty_lane(), Budget::default());
        for place in [(5, 3), (1, 4), (5, 2)] {
            window.enter(place, None, &mut budget);
        }
        assert_eq!(taken(&mut window, &mut budget), [(1, 4), (5, 2), (5, 3)]);
        assert_eq!(window.end, LAST);
        assert_eq!(budget.entries, 0);
    }

    #[test]
    fn without_room_the_last_are_left_to_the_file() {
        let (mut window, mut budget) = (Window::of_empty_lane(), Budget::default());
        window.enter((5, 1), None, &mut budget);
        window.enter((5, 2), None, &mut budget);
        budget.entries += MOST;
        window.enter((9, 3), None, &mut budget);
        window.enter((1, 4), None, &mut budget);
        budget.entries -= MOST;
        // Behind what was left out, so this one is not known either.
        window.enter((7, 5), None, &mut budget);
        assert_eq!(window.end, (5, 1));
        assert_eq!(taken(&mut window, &mut budget), [(1, 4), (5, 1)]);
        let file = [(5, 1), (5, 2), (7, 5)];
        assert!(read_on(&mut window, &mut budget, &file, &[]));
        assert_eq!(taken(&mut window, &mut budget), [(5, 2), (7, 5)]);
    }

    #[test]
    fn what_somebody_holds_is_read_over() {
        let (mut window, mut budget) = (Window::unknown(), Budget::default());
        let count = i64::try_from(2 * READ).unwrap();
        let file: Vec<Place> = (0..=count).map(|seq| (0, seq)).collect();
        let held: Vec<i64> = (0..count).collect();
        assert!(read_on(&mut window, &mut budget, &file, &held));
        assert_eq!(taken(&mut window, &mut budget), [(0, count)]);
        assert!(!read_on(&mut window, &mut budget, &file, &held));
    }

    /// Reads on in a file with these places, of which some are held.
    fn read_on(window: &mut Window, budget: &mut Budget, file: &[Place], held: &[i64]) -> bool {
        let source = |after, limit| {
            let behind = file.iter().copied().filter(|place| *place > after);
            Ok::<_, ()>(behind.take(limit).collect())
        };
        let free = |seq| !held.contains(&seq);
        window.read_on(1, free, source, budget).unwrap()
    }
}
