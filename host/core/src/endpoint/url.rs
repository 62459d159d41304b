//! URLs that deliveries may go to.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::error::{Error, Result};

/// What the operator allows of endpoint URLs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Accept `http` besides `https`. For receivers on a closed network, and for demos.
    pub allow_insecure_http: bool,
}

/// An acceptable receiver URL: absolute, with a host, without userinfo, fragment or control
/// characters. Printed without its query, which may hold a token.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointUrl(Url);

impl EndpointUrl {
    /// The longest accepted URL, in bytes.
    pub const MAX_LEN: usize = 2048;

    /// Checks everything about a URL but its scheme's place in a policy: see [`Self::permitted`].
    pub fn new(text: &str) -> Result<Self> {
        let refused = |expected| Err(Error::endpoint_field("url", expected));
        let text = text.trim_matches(' ');
        if text.len() > Self::MAX_LEN {
            return refused("expected at most 2048 bytes");
        }
        // The URL standard's parser drops tabs and line breaks silently, so they are looked for here.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refused("expected no control characters or white space");
        }
        let Ok(url) = Url::parse(text) else {
            return refused("expected an absolute URL");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refused("expected the scheme https");
        }
        // The parser repairs `https:host` and `https:///host`; neither was written as an absolute URL.
        if authority(text).is_empty() || url.host_str().is_none_or(str::is_empty) {
            return refused("expected an absolute URL with a host");
        }
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return refused("expected no user name or password");
        }
        if url.fragment().is_some() {
            return refused("expected no fragment");
        }
        Ok(Self(url))
    }

    /// Refuses plain `http` unless the policy allows it.
    pub fn permitted(&self, policy: EndpointPolicy) -> Result<()> {
        if self.0.scheme() == "https" || policy.allow_insecure_http {
            Ok(())
        } else {
            Err(Error::endpoint_field(
                "url",
                "expected https, for insecure http is not allowed here",
            ))
        }
    }

    /// The URL itself, query included: for the request only, not for logs.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The host part.
    pub fn host(&self) -> Host<&str> {
        self.0
            .host()
            .expect("the constructor refuses a URL without a host")
    }
}

fn authority(text: &str) -> &str {
    let after_scheme = text.split_once(':').map_or("", |(_, rest)| rest);
    let rest = after_scheme.strip_prefix("//").unwrap_or_default();
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..url::Position::AfterPath];
        f.write_str(shown)?;
        if self.0.query().is_some() {
            f.write_str("?…")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<EndpointUrl> for String {
    fn from(url: EndpointUrl) -> Self {
        url.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_not_absolute_and_plain_are_refused() {
        for bad in [
            "",
            "/hook",
            "example.com",
            "//example.com/x",
            "https://",
            "https:///x",
            "https:example.com",
            "ftp://example.com",
            "https://user@example.com/",
            "https://user:pw@example.com/",
            "https://@example.com/",
            "https://example.com/#frag",
            "https://exa\nmple.com/",
            "https://example.com/a\tb",
            "https://example.com/a b",
            "javascript:alert(1)",
            "https://[::1",
        ] {
            let error = EndpointUrl::new(bad).unwrap_err();
            assert!(
                matches!(error, Error::InvalidEndpoint(_)),
                "{bad:?}: {error}"
            );
        }
    }

    #[test]
    fn http_needs_the_policy() {
        let url = EndpointUrl::new("http://example.com/hook").unwrap();
        assert!(url.permitted(EndpointPolicy::default()).is_err());
        url.permitted(EndpointPolicy {
            allow_insecure_http: true,
        })
        .unwrap();
    }

    #[test]
    fn a_printed_url_hides_its_query() {
        let url = EndpointUrl::new("https://example.com/hook?token=hunter2").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "https://example.com/hook?… \"https://example.com/hook?…\""
        );
    }
}
