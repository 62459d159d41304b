//! Asking a plugin what to make of a receiver's answer.

use crate::bindings::classify;
use crate::call::{Answer, MESSAGE, guest_fault};
use crate::error::Fault;
use crate::instance::CLASSIFY;
use crate::plugin::Plugin;
use crate::question::Question;
use crate::text;
use crate::types::{CallResult, Classification, EndpointView, EventView, Judgement, ResponseView};

impl Plugin {
    /// Ask what becomes of a delivery whose receiver answered. `so_far` is what becomes of it without
    /// this plugin.
    pub async fn classify(
        &self,
        event: &EventView<'_>,
        endpoint: &EndpointView<'_>,
        response: &ResponseView<'_>,
        so_far: Judgement,
    ) -> CallResult<Classification> {
        let question = Question::classify(event, endpoint, response, so_far);
        let wait = self.shared.config.place_wait;
        self.ask(question, wait, |answer, _| match answer {
            Answer::Classify(Ok(verdict)) => Ok(Classification {
                judgement: verdict.judgement.into(),
                reason: verdict
                    .reason
                    .map(|reason| text::printable(&reason, MESSAGE)),
            }),
            Answer::Classify(Err(failure)) => Err(guest_fault(&failure)),
            _ => Err(Fault::NotExported {
                interface: CLASSIFY,
            }),
        })
        .await
    }
}

impl From<Judgement> for classify::Judgement {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Accepted => Self::Accepted,
            Judgement::Retry(seconds) => Self::Retry(seconds),
            Judgement::GiveUp => Self::GiveUp,
        }
    }
}

impl From<classify::Judgement> for Judgement {
    fn from(judgement: classify::Judgement) -> Self {
        match judgement {
            classify::Judgement::Accepted => Self::Accepted,
            classify::Judgement::Retry(seconds) => Self::Retry(seconds),
            classify::Judgement::GiveUp => Self::GiveUp,
        }
    }
}
