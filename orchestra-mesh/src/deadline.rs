//! How long a caller still waits, as headers tell it.
//!
//! Two conventions are read and written: `grpc-timeout` (at most eight digits and a unit, gRPC over
//! HTTP/2) and `x-envoy-expected-rq-timeout-ms`. A duration crosses the wire, never a moment: clocks of
//! two machines disagree.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the milliseconds that are left, as Envoy writes it.
pub const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// The header of gRPC.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long an outsider waits, which is no measure of the service: one who gives up early, by a deadline as
/// by hanging up, must not make an instance look broken to everybody else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(pub(crate) Duration);

/// The time that the headers leave; the smaller one if both are there, `None` if neither can be read.
///
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use orchestra_mesh::deadline;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("grpc-timeout", "2S".parse()?);
/// assert_eq!(deadline::from_headers(&headers), Some(Duration::from_secs(2)));
/// headers.insert("x-envoy-expected-rq-timeout-ms", "150".parse()?);
/// assert_eq!(deadline::from_headers(&headers), Some(Duration::from_millis(150)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn from_headers(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let envoy = text(EXPECTED_TIMEOUT)
        .and_then(digits)
        .map(Duration::from_millis);
    let grpc = text(GRPC_TIMEOUT).and_then(parse_grpc);
    match (envoy, grpc) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Writes the time that is left; `grpc-timeout` only where the request is one of gRPC.
pub fn to_headers(headers: &mut HeaderMap, left: Option<Duration>) {
    headers.remove(EXPECTED_TIMEOUT);
    headers.remove(GRPC_TIMEOUT);
    let Some(left) = left else { return };
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    let is_grpc = headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc && let Ok(value) = HeaderValue::try_from(format_grpc(millis)) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

fn digits(text: &str) -> Option<u64> {
    let valid = (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

fn parse_grpc(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 {
        return None;
    }
    let number = digits(number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The finest unit whose number fits into eight digits.
fn format_grpc(millis: u64) -> String {
    const MOST: u64 = 99_999_999;
    match millis {
        0..=MOST => format!("{millis}m"),
        _ if millis / 1000 <= MOST => format!("{}S", millis / 1000),
        _ => format!("{}H", (millis / 3_600_000).min(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::{format_grpc, parse_grpc};
    use std::time::Duration;

    #[test]
    fn grpc_timeouts_of_every_unit_are_read() {
        let cases = [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("4m", Some(4_000_000)),
            ("5u", Some(5_000)),
            ("6n", Some(6)),
            ("99999999H", Some(359_999_996_400_000_000_000)),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
            ("1\u{e9}", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_grpc(text).map(|d| d.as_nanos()), nanos, "{text}");
        }
    }

    #[test]
    fn written_grpc_timeouts_are_never_longer_than_what_is_left() {
        for millis in [0, 1, 99_999_999, 100_000_000, 99_999_999_999, 1 << 50] {
            let read = parse_grpc(&format_grpc(millis)).unwrap_or(Duration::MAX);
            assert!(read <= Duration::from_millis(millis), "{millis}");
        }
    }
}
