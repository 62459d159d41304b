//! Asking a plugin what to make of a receiver's answer.

use crate::bindings::classify;
use crate::call::{Answer, MESSAGE, guest_fault};
use crate::error::Fault;
use crate::instance::CLASSIFY;
use crate::limits::Limits;
use crate::plugin::Plugin;
use crate::question::Question;
use crate::rollout::{Answers, named};
use crate::text;
use crate::types::{CallResult, Classification, EndpointView, EventView, Judgement, ResponseView};

const CLASSIFICATIONS: Answers<Classification> = Answers {
    exported: |exports| exports.classify,
    read: read_classify,
    differing: |served, shadow| {
        named([
            ("judgement", served.judgement != shadow.judgement),
            ("reason", served.reason != shadow.reason),
        ])
    },
};

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
        let question = || Question::classify(event, endpoint, response, so_far);
        let answer = self.ask_within(question(), &CLASSIFICATIONS).await;
        let without = || left_as_it_is(so_far);
        self.compare(&CLASSIFICATIONS, event.id, question, &answer, without);
        answer
    }

    /// Tell a version that does not export `classify` of an answer that is judged without it: where a
    /// shadow beside it does, what that says is compared with `so_far`.
    pub fn passed_without_classify(
        &self,
        event: &EventView<'_>,
        endpoint: &EndpointView<'_>,
        response: &ResponseView<'_>,
        so_far: Judgement,
    ) {
        let question = || Question::classify(event, endpoint, response, so_far);
        let without = || left_as_it_is(so_far);
        self.compare_alone(&CLASSIFICATIONS, event, question, without);
    }
}

fn read_classify(answer: Answer, _: &Limits) -> Result<Classification, Fault> {
    match answer {
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
    }
}

/// What holds without a classifier.
fn left_as_it_is(judgement: Judgement) -> Classification {
    Classification {
        judgement,
        reason: None,
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
