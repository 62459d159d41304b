//! Mending a suspect, after another look at it.

use rusqlite::{OptionalExtension as _, params};
use wasmhook_core::DeliveryState;

use super::standing::Standing;
use super::{Cure, Suspect};
use crate::embedded::lanes::{Stage, Tally};
use crate::embedded::rows;
use crate::embedded::sequences::advance;
use crate::embedded::thread::Fault;
use crate::embedded::writer::Writer;

/// Mends what still is wrong; says of each whether it is right now.
pub(super) fn mend(writer: &Writer, suspects: &[Suspect]) -> Result<Vec<bool>, Fault> {
    let mut tally = Tally::default();
    let mut mended = Vec::with_capacity(suspects.len());
    for suspect in suspects {
        mended.push(match &suspect.cure {
            Cure::None => false,
            Cure::Stage(seq) => stage(writer, *seq, &mut tally)?,
            Cure::Bury(seq) => bury(writer, *seq, &mut tally)?,
            Cure::Turn(lane, sequence) => turn(writer, *lane, sequence, &mut tally)?,
            Cure::Keep(event) => {
                let mut update = writer
                    .connection
                    .prepare_cached("UPDATE events SET bare = 0 WHERE seq = ?1")?;
                update.execute([event])?;
                true
            }
            Cure::Count(lane, change) => {
                let mut select = writer
                    .connection
                    .prepare_cached("SELECT 1 FROM lanes WHERE id = ?1")?;
                // A lane is removed with its last delivery.
                if select.exists([lane])? {
                    tally.correct(*lane, *change);
                }
                true
            }
        });
    }
    tally.apply(writer)?;
    Ok(mended)
}

fn standing(writer: &Writer, seq: i64) -> Result<Option<Standing>, Fault> {
    let found = writer
        .connection
        .prepare_cached(
            "SELECT lane, state, stage, back, next_at, sequence, blocks
             FROM deliveries WHERE seq = ?1",
        )?
        .query_row([seq], Standing::of)
        .optional()?;
    Ok(found)
}

/// Puts a delivery at the stage of its state.
fn stage(writer: &Writer, seq: i64, tally: &mut Tally) -> Result<bool, Fault> {
    let now = writer.clock.now();
    let Some(found) = standing(writer, seq)?.filter(|found| found.wrong().is_some()) else {
        return Ok(true);
    };
    let Some(right) = found.right(now) else {
        return Ok(false);
    };
    move_to(writer, seq, &found, right, now, tally)?;
    Ok(true)
}

/// Makes a dead letter of a delivery whose event is gone. One that is leased may just be sent: it is
/// left until the lease has ended.
fn bury(writer: &Writer, seq: i64, tally: &mut Tally) -> Result<bool, Fault> {
    let open = [Some(DeliveryState::Pending), Some(DeliveryState::Failed)];
    let found =
        standing(writer, seq)?.filter(|found| open.contains(&found.state) && !writer.is_held(seq));
    let Some(found) = found else {
        return Ok(false);
    };
    let dead = (DeliveryState::DeadLetter, Stage::DeadLetter);
    move_to(writer, seq, &found, dead, writer.clock.now(), tally)?;
    Ok(true)
}

/// Sets the state and stage of a delivery, with what follows from them.
fn move_to(
    writer: &Writer,
    seq: i64,
    from: &Standing,
    (to, stage): (DeliveryState, Stage),
    now: i64,
    tally: &mut Tally,
) -> Result<(), Fault> {
    writer
        .connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, stage = ?3, back = NULL, lease = NULL,
                 lease_until = NULL, updated_at = ?4
             WHERE seq = ?1",
        )?
        .execute(params![seq, rows::state_number(to), stage.number(), now])?;
    if let Some(counted) = from.stage {
        tally.leave(from.lane, counted);
    }
    tally.enter(from.lane, stage);
    if let Some(sequence) = &from.sequence {
        advance(writer, from.lane, sequence, now, tally)?;
    }
    Ok(())
}

/// Has it be the turn of one delivery of a sequence: of the one that is leased, or that blocks, or of the
/// first. What else is leased or blocks is left, for it may just be sent.
fn turn(writer: &Writer, lane: i64, sequence: &str, tally: &mut Tally) -> Result<bool, Fault> {
    let mut select = writer.connection.prepare_cached(
        "SELECT seq, stage FROM deliveries INDEXED BY deliveries_sequence
         WHERE sequence = ?2 AND lane = ?1 AND stage IN (0, 1, 5) AND stage <> 3
         ORDER BY stage DESC, seq",
    )?;
    let found = select.query_map(params![lane, sequence], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let found: Vec<(i64, i64)> = found.collect::<rusqlite::Result<_>>()?;
    // Those that nobody has begun go by their order alone.
    let begun = |seq, stage| stage == Stage::Blocking.number() || writer.is_held(seq);
    let (found, begun): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(seq, stage)| !begun(*seq, *stage));
    let begun = begun.len();
    let first = match begun {
        0 => found.iter().min().map(|(seq, _)| *seq),
        _ => None,
    };
    let mut update = writer
        .connection
        .prepare_cached("UPDATE deliveries SET stage = 4 WHERE seq = ?1")?;
    for (seq, stage) in found {
        let from = match stage {
            0 => Stage::Ready,
            1 => Stage::Delayed,
            _ => continue,
        };
        if Some(seq) != first {
            update.execute([seq])?;
            tally.leave(lane, from);
            tally.enter(lane, Stage::Behind);
        }
    }
    advance(writer, lane, sequence, writer.clock.now(), tally)?;
    Ok(begun < 2)
}
