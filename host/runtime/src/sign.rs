//! Asking a plugin to sign a request.

use std::sync::Arc;

use crate::call::{Answer, check_headers, guest_fault};
use crate::error::Fault;
use crate::imports::signing::Signer;
use crate::instance::SIGN;
use crate::limits::Limits;
use crate::plugin::Plugin;
use crate::question::Question;
use crate::rollout::{Answers, named};
use crate::types::{CallResult, EndpointView, UnsignedView};

const SIGNATURES: Answers<Vec<(String, String)>> = Answers {
    exported: |exports| exports.sign,
    read: read_sign,
    differing: |served, shadow| named([("signature", served != shadow)]),
};

impl Plugin {
    /// Ask for the headers that sign a request, with the keys that the endpoint names. They are counted,
    /// not judged: what they may be named is a rule of the domain.
    pub async fn sign(
        &self,
        endpoint: &EndpointView<'_>,
        request: &UnsignedView<'_>,
        signer: &Arc<dyn Signer>,
    ) -> CallResult<Vec<(String, String)>> {
        let question = || Question::sign(endpoint, request, signer);
        let answer = self.ask_within(question(), &SIGNATURES).await;
        self.compare(&SIGNATURES, request.event_id, question, &answer, Vec::new);
        answer
    }
}

fn read_sign(answer: Answer, limits: &Limits) -> Result<Vec<(String, String)>, Fault> {
    match answer {
        Answer::Sign(Ok(headers)) => {
            check_headers(&headers, limits)?;
            Ok(headers)
        }
        Answer::Sign(Err(failure)) => Err(guest_fault(&failure)),
        _ => Err(Fault::NotExported { interface: SIGN }),
    }
}
