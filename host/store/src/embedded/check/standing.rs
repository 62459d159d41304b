//! How a delivery stands in its row, and how it should.

use rusqlite::Row;
use wasmhook_core::DeliveryState;

use crate::check::Finding;
use crate::embedded::lanes::Stage;
use crate::embedded::rows;

/// See the module.
pub(super) struct Standing {
    pub(super) lane: i64,
    pub(super) state: Option<DeliveryState>,
    /// Where its lane counts it, if the stage of the row is one that its state can have.
    pub(super) stage: Option<Stage>,
    back: Option<i64>,
    next_at: i64,
    pub(super) sequence: Option<String>,
    blocks: bool,
}

impl Standing {
    /// Reads it from the columns `lane, state, stage, back, next_at, sequence, blocks`.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let state = rows::state(row.get("state")?);
        Ok(Self {
            lane: row.get("lane")?,
            state,
            stage: Stage::read(row.get("stage")?, state),
            back: row.get("back")?,
            next_at: row.get("next_at")?,
            sequence: row.get("sequence")?,
            blocks: row.get("blocks")?,
        })
    }

    /// What is wrong with it.
    pub(super) fn wrong(&self) -> Option<Finding> {
        let state = self.state?;
        let open = matches!(state, DeliveryState::Pending | DeliveryState::Failed);
        let stands = match self.stage {
            Some(Stage::Ready | Stage::Delayed) => open,
            Some(Stage::Behind) => open && self.sequence.is_some(),
            Some(Stage::Blocking) => {
                state == DeliveryState::DeadLetter && self.sequence.is_some() && self.blocks
            }
            Some(Stage::Succeeded | Stage::DeadLetter) => true,
            None => false,
        };
        match state {
            _ if stands => None,
            DeliveryState::Succeeded | DeliveryState::DeadLetter => Some(Finding::Stray),
            DeliveryState::Pending | DeliveryState::Failed | DeliveryState::Leased => {
                Some(Finding::Lost)
            }
        }
    }

    /// The state and the stage that it should have. The file holds no leases.
    pub(super) fn right(&self, now: i64) -> Option<(DeliveryState, Stage)> {
        let state = match self.state? {
            DeliveryState::Leased if self.back == Some(2) => DeliveryState::Failed,
            DeliveryState::Leased => DeliveryState::Pending,
            state => state,
        };
        let place = match (Stage::of(state, self.next_at, now), &self.sequence) {
            // It is its turn if it is nobody else's, and it is the first.
            (Stage::Ready | Stage::Delayed, Some(_)) => Stage::Behind,
            (place, _) => place,
        };
        Some((state, place))
    }
}
