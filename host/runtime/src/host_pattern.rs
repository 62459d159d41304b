//! Which hosts are meant: one by its name, all below a domain, or all there are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `api.example.com`, `*.example.com` (all below it, and not itself) or `*`. Names are compared as a URL has
/// them: lower case, internationalised ones in their ASCII form, addresses in their usual form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// Read a pattern.
    pub fn new(text: &str) -> Result<Self, InvalidHostPattern> {
        let text = text.trim().to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let is_label = |label: &str| {
            let mut bytes = label.bytes();
            !label.is_empty()
                && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_address = text.starts_with('[')
            && text.ends_with(']')
            && text[1..text.len() - 1]
                .parse::<std::net::Ipv6Addr>()
                .is_ok();
        if text == "*" || is_address || name.split('.').all(is_label) {
            Ok(Self(text))
        } else {
            Err(InvalidHostPattern)
        }
    }

    /// Whether the host of a URL is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            None => self.0 == host,
            Some("") => true,
            // With its dot, so that `*.example.com` is not `badexample.com`.
            Some(domain) => host.len() > domain.len() && host.ends_with(domain),
        }
    }

    /// Whether everything that the other means is meant by this.
    pub fn covers(&self, other: &Self) -> bool {
        match other.0.strip_prefix('*') {
            None => self.matches(&other.0),
            Some(domain) => match self.0.strip_prefix('*') {
                Some(own) => domain.ends_with(own),
                None => false,
            },
        }
    }
}

/// A text is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a host such as api.example.com, *.example.com for all below it, or *; no scheme, port or path"
)]
pub struct InvalidHostPattern;

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHostPattern;
    fn try_from(text: String) -> Result<Self, InvalidHostPattern> {
        Self::new(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::new(text).unwrap()
    }

    #[test]
    fn a_pattern_means_a_host_a_domain_or_everything() {
        for (text, host, meant) in [
            ("api.example.com", "api.example.com", true),
            ("API.Example.com", "api.example.com", true),
            ("api.example.com", "b.api.example.com", false),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*", "anything", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("[::1]", "[::1]", true),
        ] {
            assert_eq!(pattern(text).matches(host), meant, "{text} {host}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_means_all_of() {
        for (wide, narrow, covered) in [
            ("*", "*", true),
            ("*", "*.example.com", true),
            ("*.example.com", "*", false),
            ("*.example.com", "*.eu.example.com", true),
            ("*.example.com", "*.example.com", true),
            ("*.eu.example.com", "*.example.com", false),
            ("*.example.com", "*.badexample.com", false),
            ("*.example.com", "api.example.com", true),
            ("api.example.com", "*.api.example.com", false),
            ("api.example.com", "api.example.com", true),
        ] {
            assert_eq!(
                pattern(wide).covers(&pattern(narrow)),
                covered,
                "{wide} {narrow}"
            );
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "https://a.b",
            "a.b:443",
            "a.b/c",
            "a..b",
            "*a.b",
            "a.*.b",
            "user@a",
            "[x]",
            "[",
            "**",
        ] {
            assert_eq!(HostPattern::new(text), Err(InvalidHostPattern), "{text:?}");
        }
    }
}
