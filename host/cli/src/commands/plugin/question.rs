//! What is asked of a plugin that is tried out, as the host asks on the way of an event.

use jiff::Timestamp;
use wasmhook_core::request::Content;
use wasmhook_core::{EndpointPolicy, Event, PluginName, RequestBuilder, SignatureProfile};
use wasmhook_delivery::Answer as ReceiverAnswer;
use wasmhook_engine::resolve::endpoint_view;
use wasmhook_runtime::{Exports, Plugin};

use super::answer::{self, Called};
use super::endpoints::{Endpoints, Receiver};
use super::input;
use super::receiver_answer::Given;
use crate::args::Receivers;
use crate::config::Config;
use crate::host;

/// One question about an event.
#[derive(Clone, Copy)]
pub(super) enum Question<'a> {
    /// Where does it go?
    Resolve,
    /// What is sent to this receiver?
    Transform(&'a Receiver),
    /// What signs the request to it?
    Sign(&'a Receiver),
    /// What is its answer taken for?
    Classify(&'a Receiver, &'a ReceiverAnswer),
}

impl Question<'_> {
    /// The interface that answers it.
    pub(super) fn asked(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Transform(_) => "transform",
            Self::Sign(_) => "sign",
            Self::Classify(..) => "classify",
        }
    }

    /// The endpoint that it is about.
    pub(super) fn endpoint(self) -> Option<String> {
        match self {
            Self::Resolve => None,
            Self::Transform(to) | Self::Sign(to) | Self::Classify(to, _) => {
                Some(to.endpoint.id.to_string())
            }
        }
    }

    /// Whether it is answered with a key that nobody else has.
    pub(super) fn has_made_up_key(self) -> bool {
        matches!(self, Self::Sign(to) if to.is_made_up)
    }

    /// The status that is judged.
    pub(super) fn status(self) -> Option<u16> {
        match self {
            Self::Classify(_, answer) => Some(answer.status),
            _ => None,
        }
    }
}

/// All that questions need besides the plugin and the event.
pub(super) struct Asking {
    endpoints: Endpoints,
    answers: Vec<ReceiverAnswer>,
    /// The name by which endpoints know the plugin as their signer.
    signer: Option<PluginName>,
    policy: EndpointPolicy,
    requests: RequestBuilder,
    /// The time of all attempts, so that signatures of two versions can be compared.
    at: Timestamp,
}

impl Asking {
    /// As the configuration and the command line have it, for a plugin in this file.
    pub(super) fn new(
        config: &Config,
        receivers: &Receivers,
        file: &std::path::Path,
    ) -> anyhow::Result<Self> {
        let signer = input::name(file);
        Ok(Self {
            endpoints: Endpoints::new(config, receivers, signer.clone())?,
            answers: Given::all(&receivers.answers, config.delivery.response_bytes)?,
            signer,
            policy: host::policy(config),
            requests: host::requests(config)?,
            at: Timestamp::now(),
        })
    }

    /// The receivers of an event.
    pub(super) fn receivers(&self, event: &Event) -> Vec<Receiver> {
        self.endpoints.of(event)
    }

    /// What is to be asked of who exports this, in the host's order.
    pub(super) fn questions<'a>(
        &'a self,
        exports: Exports,
        receivers: &'a [Receiver],
    ) -> Vec<Question<'a>> {
        let mut questions = Vec::new();
        questions.extend(exports.resolve.then_some(Question::Resolve));
        for receiver in receivers {
            questions.extend(exports.transform.then_some(Question::Transform(receiver)));
            let signs = exports.sign && self.signs_for(receiver);
            questions.extend(signs.then_some(Question::Sign(receiver)));
            if exports.classify {
                let answers = self.answers.iter();
                questions.extend(answers.map(|answer| Question::Classify(receiver, answer)));
            }
        }
        questions
    }

    /// Why some of what is exported was never asked about, given what was.
    pub(super) fn not_asked(&self, exports: Exports, asked: &[&str]) -> Vec<String> {
        let mut reasons = Vec::new();
        if exports.sign && !asked.contains(&"sign") {
            reasons.push(match &self.signer {
                Some(name) => format!(
                    "sign was not asked: no endpoint that subscribes has the profile `plugin` and the signer \
                     `{name}`; --endpoint names one that does"
                ),
                None => "sign was not asked: no endpoint can name the file as its signer; call it \
                         NAME.wasm, with a NAME of a-z A-Z 0-9 _ - ."
                    .to_owned(),
            });
        }
        if exports.classify && self.answers.is_empty() {
            reasons.push(
                "classify was not asked: say what receivers answer, as with --answer 503"
                    .to_owned(),
            );
        }
        reasons
    }

    /// Asks. `content` is what was made of the event for this receiver so far; nothing is signed where it
    /// is none.
    pub(super) async fn ask(
        &self,
        plugin: &Plugin,
        event: &Event,
        receivers: &[Receiver],
        question: Question<'_>,
        content: Option<&Content>,
    ) -> Called {
        match question {
            Question::Resolve => {
                let views: Vec<_> = receivers
                    .iter()
                    .map(|receiver| endpoint_view(&receiver.endpoint))
                    .collect();
                answer::resolve(plugin, event, &views, self.policy).await
            }
            Question::Transform(to) => {
                answer::transform(plugin, event, &endpoint_view(&to.endpoint)).await
            }
            Question::Sign(to) => match content {
                Some(content) => {
                    answer::sign(plugin, event, to, content, &self.requests, self.at).await
                }
                None => Called::passed_by(),
            },
            Question::Classify(to, answered) => {
                answer::classify(plugin, event, &to.endpoint, answered).await
            }
        }
    }

    fn signs_for(&self, receiver: &Receiver) -> bool {
        match &receiver.endpoint.profile {
            SignatureProfile::Plugin { signer } => self.signer.as_ref() == Some(signer),
            _ => false,
        }
    }
}
