//! What a receiver asks for with `Retry-After`.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// How long the receiver asks to be left alone: seconds, or a date in any of the three forms of HTTP
/// (RFC 9110, 10.2.3 and 5.6.7). A date is taken against the answer's own `Date`, so that clocks that
/// differ do no harm, and against `now` where that is missing. What cannot be read asks for nothing.
pub(crate) fn read(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number can hold is a long time all the same; the retry policy has a maximum.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let since = headers
        .get(DATE)
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok())
        .unwrap_or(now);
    Some(until.duration_since(since).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06T08:49:37Z
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn asked(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let headers = headers.iter().map(|(name, value)| {
            let value = http::HeaderValue::from_static(value);
            (http::HeaderName::from_static(name), value)
        });
        read(&headers.collect(), now()).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_taken_as_they_are() {
        assert_eq!(asked(&[("retry-after", "120")]), Some(120));
        assert_eq!(asked(&[("retry-after", " 0 ")]), Some(0));
        assert_eq!(
            asked(&[("retry-after", "99999999999999999999999")]),
            Some(u64::MAX)
        );
    }

    #[test]
    fn a_date_counts_from_the_answers_own_clock() {
        for date in [
            "Sun, 06 Nov 1994 08:50:37 GMT",
            "Sunday, 06-Nov-94 08:50:37 GMT",
            "Sun Nov  6 08:50:37 1994",
        ] {
            assert_eq!(asked(&[("retry-after", date)]), Some(60), "{date}");
        }
        let late = ("date", "Sun, 06 Nov 1994 08:50:27 GMT");
        assert_eq!(
            asked(&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"), late]),
            Some(10)
        );
        assert_eq!(
            asked(&[("retry-after", "Sun, 06 Nov 1994 08:50:17 GMT"), late]),
            Some(0)
        );
    }

    #[test]
    fn what_cannot_be_read_asks_for_nothing() {
        assert_eq!(asked(&[]), None);
        for text in ["", "soon", "-1", "1.5", "60s"] {
            assert_eq!(asked(&[("retry-after", text)]), None, "{text:?}");
        }
    }
}
