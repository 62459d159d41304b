//! Asking a plugin to sign a request.

use std::sync::Arc;

use crate::call::{Answer, check_headers, guest_fault};
use crate::error::Fault;
use crate::imports::signing::Signer;
use crate::instance::SIGN;
use crate::plugin::Plugin;
use crate::question::Question;
use crate::types::{CallResult, EndpointView, UnsignedView};

impl Plugin {
    /// Ask for the headers that sign a request, with the keys that the endpoint names. They are counted,
    /// not judged: what they may be named is a rule of the domain.
    pub async fn sign(
        &self,
        endpoint: &EndpointView<'_>,
        request: &UnsignedView<'_>,
        signer: &Arc<dyn Signer>,
    ) -> CallResult<Vec<(String, String)>> {
        let question = Question::sign(endpoint, request, signer);
        let wait = self.shared.config.place_wait;
        self.ask(question, wait, |answer, limits| match answer {
            Answer::Sign(Ok(headers)) => {
                check_headers(&headers, limits)?;
                Ok(headers)
            }
            Answer::Sign(Err(failure)) => Err(guest_fault(&failure)),
            _ => Err(Fault::NotExported { interface: SIGN }),
        })
        .await
    }
}
