//! What a call takes and gives, in words of our own.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::PluginError;

/// An event as a plugin sees it.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// The producer's id.
    pub id: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// The type, such as `invoice.paid`.
    pub event_type: &'a str,
    /// When it happened: RFC 3339, in UTC.
    pub occurred_at: &'a str,
    /// The payload's bytes.
    pub payload: &'a [u8],
}

/// A registered endpoint as a plugin sees it.
#[derive(Debug, Clone, Copy)]
pub struct EndpointView<'a> {
    /// The id.
    pub id: &'a str,
    /// The URL.
    pub url: &'a str,
}

/// What a transformer decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send this.
    Deliver(Request),
    /// Send nothing, for this reason (the guest's words: printable, at most 200 characters).
    Skip(String),
}

/// The request that a transformer made. Its headers are counted, not judged: what they may be named
/// is a rule of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The body.
    pub body: Bytes,
    /// The media type; none means `application/json`.
    pub content_type: Option<String>,
    /// Additional headers, unchecked.
    pub headers: Vec<(String, String)>,
}

/// What a resolver decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Whether the choices are added to the subscribed endpoints or replace them.
    pub mode: Mode,
    /// The receivers.
    pub choices: Vec<Choice>,
}

/// How a resolver's choices relate to the subscribed endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The choices are added.
    Add,
    /// The choices replace them; without choices the event is delivered nowhere.
    Replace,
}

/// One receiver that a resolver chose. Unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A registered endpoint, by its id.
    Registered(String),
    /// An endpoint made for this event.
    New(NewEndpoint),
}

/// An endpoint that a resolver made. Unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEndpoint {
    /// Where to send.
    pub url: String,
    /// The name of one of the tenant's secrets.
    pub secret: String,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Deliveries with the same key keep their order.
    pub ordering_key: Option<String>,
}

/// A receiver's answer as a classifier sees it.
#[derive(Debug, Clone, Copy)]
pub struct ResponseView<'a> {
    /// The status.
    pub status: u16,
    /// Header names, in lower case, and values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The beginning of the body.
    pub body: &'a [u8],
    /// Whether that is all of it.
    pub complete: bool,
}

/// A request as the plugin that signs it sees it.
#[derive(Debug, Clone, Copy)]
pub struct UnsignedView<'a> {
    /// The delivery's id.
    pub delivery_id: &'a str,
    /// The event's id.
    pub event_id: &'a str,
    /// The event's type.
    pub event_type: &'a str,
    /// The time of the attempt, in seconds since 1970.
    pub timestamp: u64,
    /// Header names, in lower case, and values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, as it is sent.
    pub body: &'a [u8],
}

/// What becomes of a delivery after its receiver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The receiver has it.
    Accepted,
    /// It is tried again, after so many seconds if they are named.
    Retry(Option<u32>),
    /// It is given up.
    GiveUp,
}

/// What a classifier says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classification {
    /// What becomes of the delivery.
    pub judgement: Judgement,
    /// Why (the guest's words: printable, at most 200 characters).
    pub reason: Option<String>,
}

/// What a call gave, with what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<T> {
    /// The answer.
    pub value: T,
    /// The version of the plugin that gave it.
    pub digest: Digest,
    /// Processor time spent for the guest.
    pub cpu: Duration,
    /// Bytes of linear memory that the instance had in the end, over all of its memories. Linear memory
    /// never shrinks, so this is the most that it had.
    pub memory: usize,
}

/// A call's answer, or why there is none.
pub type CallResult<T> = Result<Call<T>, PluginError>;

/// SHA-256 of a component's file: the version of a plugin. Displays as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Reads 64 hexadecimal digits.
impl std::str::FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest)?;
        Ok(Self(bytes))
    }
}

/// A text that is no [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct NotADigest;

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which interfaces a component exports.
#[allow(clippy::struct_excessive_bools, reason = "a component has any of them")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exports {
    /// `wasmhook:plugin/transform`.
    pub transform: bool,
    /// `wasmhook:plugin/resolve`.
    pub resolve: bool,
    /// `wasmhook:plugin/classify`.
    pub classify: bool,
    /// `wasmhook:plugin/sign`.
    pub sign: bool,
}

impl Exports {
    /// What is exported by one of the two, or by both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            transform: self.transform || other.transform,
            resolve: self.resolve || other.resolve,
            classify: self.classify || other.classify,
            sign: self.sign || other.sign,
        }
    }

    /// The names of the interfaces that are exported.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.resolve, "resolve"),
            (self.transform, "transform"),
            (self.sign, "sign"),
            (self.classify, "classify"),
        ]
        .into_iter()
        .filter_map(|(is, name)| is.then_some(name))
    }
}
