//! `tenant.toml`: its form, and the way from there to checked endpoints.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;

use http::HeaderName;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use wasmhook_core::{
    BodyForm, Endpoint, EndpointId, EndpointOrdering, EndpointPolicy, EndpointUrl, PluginName,
    Quota, SafeHeaders, SecretName, SignatureProfile, Subscription, TenantId, Weight,
};

/// What is wrong in a document: the key, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) key: Option<String>,
    pub(crate) reason: String,
}

/// What the operator says about every tenant's endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) policy: EndpointPolicy,
    pub(crate) profile: SignatureProfile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, deserialize_with = "weight")]
    weight: Weight,
    max_in_flight: Option<NonZeroU32>,
    #[serde(default)]
    endpoints: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    url: String,
    secrets: Vec<String>,
    events: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    disabled: bool,
    ordering: Option<EndpointOrdering>,
    profile: Option<ProfileName>,
    body: Option<BodyForm>,
    signer: Option<String>,
    signature_header: Option<String>,
    event_id_header: Option<String>,
    timestamp_header: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProfileName {
    Standard,
    Sha256,
    Plugin,
}

/// What a document says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) quota: Quota,
}

/// Reads a tenant's document; its endpoints are dated `at`.
pub(crate) fn parse(
    text: &str,
    tenant: &TenantId,
    rules: &Rules,
    at: Timestamp,
) -> Result<Said, Fault> {
    let document = toml::Deserializer::parse(text).map_err(|error| syntax(text, &error))?;
    let document: Document = serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        Fault {
            key: (path != ".").then_some(path),
            reason: syntax(text, error.inner()).reason,
        }
    })?;
    let mut known = HashSet::new();
    let mut endpoints = Vec::with_capacity(document.endpoints.len());
    for (index, entry) in document.endpoints.into_iter().enumerate() {
        let endpoint = endpoint(&entry, tenant, rules, at).map_err(|(key, reason)| Fault {
            key: Some(format!("endpoints[{index}].{key}")),
            reason,
        })?;
        if !known.insert(endpoint.id.clone()) {
            return Err(Fault {
                key: Some(format!("endpoints[{index}].id")),
                reason: format!("another endpoint has the id `{}` already", endpoint.id),
            });
        }
        endpoints.push(endpoint);
    }
    Ok(Said {
        endpoints,
        quota: Quota {
            weight: document.weight,
            max_in_flight: document.max_in_flight,
        },
    })
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
    let weight = u8::try_from(i64::deserialize(deserializer)?).ok();
    let weight = weight.and_then(|weight| Weight::new(weight).ok());
    weight.ok_or_else(|| D::Error::custom("expected a whole number from 1 to 100"))
}

/// The parser's words without the value that it quotes, which may be a token.
fn syntax(text: &str, error: &toml::de::Error) -> Fault {
    let message = error.message();
    let quotes =
        |start: &str| start.starts_with("invalid ") || start.starts_with("unknown variant ");
    let message = match message.rsplit_once(", expected ") {
        Some((start, expected)) if quotes(start) => format!("expected {}", plain(expected)),
        _ => message.lines().next().unwrap_or_default().to_owned(),
    };
    let named = error.span().and_then(|span| text.get(span));
    let message = match named.filter(|_| message == "duplicate key") {
        Some(key) => format!("the key `{key}` is given twice"),
        None => message,
    };
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map(|before| {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: ")
        });
    Fault {
        key: None,
        reason: format!("{}{message}", line.unwrap_or_default()),
    }
}

/// What the parser expects, in the words of who writes the file.
fn plain(expected: &str) -> &str {
    match expected {
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "i64" => "a whole number",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        rust if rust.starts_with("struct ") => "a table",
        words => words,
    }
}

/// How ids begin that the host gives to deliveries that go to no endpoint, such as the one to `(resolver)`. What
/// is delivered to a registered endpoint of that name would never be sent.
const HOSTS_OWN: char = '(';

type KeyFault = (String, String);

fn fault(key: &str) -> impl Fn(wasmhook_core::Error) -> KeyFault + '_ {
    move |error| (key.to_owned(), error.to_string())
}

fn endpoint(
    entry: &Entry,
    tenant: &TenantId,
    rules: &Rules,
    at: Timestamp,
) -> Result<Endpoint, KeyFault> {
    let profile = profile(entry, &rules.profile)?;
    let is_sha256 = matches!(profile, SignatureProfile::Sha256 { .. });
    if entry.body == Some(BodyForm::Envelope) && is_sha256 {
        return Err((
            "body".into(),
            "the sha256 profile has no choice of body".into(),
        ));
    }
    if entry.id.trim_start().starts_with(HOSTS_OWN) {
        let reason = "ids that begin with a parenthesis are the host's own";
        return Err(("id".into(), reason.into()));
    }
    let url = EndpointUrl::new(&entry.url).map_err(fault("url"))?;
    url.permitted(rules.policy).map_err(fault("url"))?;
    let headers = SafeHeaders::new(&entry.headers).map_err(fault("headers"))?;
    headers.check_profile(&profile).map_err(fault("headers"))?;
    if headers.len() < entry.headers.len() {
        let reason = "two names differ in case only, and are the same header";
        return Err(("headers".into(), reason.into()));
    }
    let endpoint = Endpoint {
        id: EndpointId::new(&entry.id).map_err(fault("id"))?,
        tenant_id: tenant.clone(),
        url,
        secrets: each("secrets", &entry.secrets, |name| SecretName::new(name))?,
        events: each("events", &entry.events, |event| Subscription::new(event))?,
        headers,
        disabled: entry.disabled,
        ordering: entry.ordering,
        profile,
        body: entry.body.unwrap_or_default(),
        created_at: at,
        updated_at: at,
    };
    let empty = if endpoint.secrets.is_empty() {
        "secrets"
    } else {
        "events"
    };
    endpoint.validate(rules.policy).map_err(fault(empty))?;
    Ok(endpoint)
}

fn each<T>(
    key: &str,
    texts: &[String],
    read: impl Fn(&str) -> wasmhook_core::Result<T>,
) -> Result<Vec<T>, KeyFault> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| read(text).map_err(fault(&format!("{key}[{index}]"))))
        .collect()
}

fn header_names(entry: &Entry) -> [(&'static str, &Option<String>); 3] {
    [
        ("signature_header", &entry.signature_header),
        ("event_id_header", &entry.event_id_header),
        ("timestamp_header", &entry.timestamp_header),
    ]
}

fn no_header_names(entry: &Entry) -> Result<(), KeyFault> {
    let mut names = header_names(entry).into_iter();
    match names.find(|(_, name)| name.is_some()) {
        Some((key, _)) => Err((
            key.into(),
            "only the sha256 profile has a choice of headers".into(),
        )),
        None => Ok(()),
    }
}

fn profile(entry: &Entry, default: &SignatureProfile) -> Result<SignatureProfile, KeyFault> {
    match (entry.profile, &entry.signer) {
        (Some(ProfileName::Plugin), Some(signer)) => {
            let signer = PluginName::new(signer).map_err(fault("signer"))?;
            no_header_names(entry)?;
            return Ok(SignatureProfile::Plugin { signer });
        }
        (Some(ProfileName::Plugin), None) => {
            let reason = "expected the name of the plugin that signs";
            return Err(("signer".into(), reason.into()));
        }
        (_, Some(_)) => {
            let reason = "only the plugin profile has a signer";
            return Err(("signer".into(), reason.into()));
        }
        (_, None) => {}
    }
    let chosen = match (entry.profile, default) {
        (None, default) => default.clone(),
        (Some(ProfileName::Standard), _) => SignatureProfile::Standard,
        (Some(ProfileName::Sha256), SignatureProfile::Sha256 { .. }) => default.clone(),
        (Some(_), _) => SignatureProfile::sha256(),
    };
    let SignatureProfile::Sha256 {
        signature_header,
        event_id_header,
        timestamp_header,
    } = chosen.clone()
    else {
        no_header_names(entry)?;
        return Ok(chosen);
    };
    let mut headers = [signature_header, event_id_header, timestamp_header];
    for ((key, name), header) in header_names(entry).into_iter().zip(&mut headers) {
        if let Some(name) = name {
            *header = profile_header(name).map_err(fault(key))?;
        }
    }
    let [signature_header, event_id_header, timestamp_header] = headers;
    if signature_header == event_id_header
        || signature_header == timestamp_header
        || event_id_header == timestamp_header
    {
        let reason = "the three headers of the profile must have different names";
        return Err(("signature_header".into(), reason.into()));
    }
    Ok(SignatureProfile::Sha256 {
        signature_header,
        event_id_header,
        timestamp_header,
    })
}

/// A header that a profile may write: what a tenant may set, and the signature names of the contract
/// that are reserved for exactly this use.
fn profile_header(name: &str) -> wasmhook_core::Result<HeaderName> {
    const SIGNATURES: [&str; 5] = [
        "x-hook-signature",
        "x-signature",
        "x-webhook-event-id",
        "x-webhook-signature",
        "x-webhook-timestamp",
    ];
    if let Ok(header) = HeaderName::from_bytes(name.trim().as_bytes())
        && SIGNATURES.contains(&header.as_str())
    {
        return Ok(header);
    }
    let checked = SafeHeaders::new([(name, "")])?;
    Ok(checked
        .iter()
        .next()
        .map(|(header, _)| header.clone())
        .expect("one header was checked"))
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
