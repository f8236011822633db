use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::StepOutcome;
use crate::barrier::KEY_REUSED;
use crate::payload::Payload;

/// The most of a participant's answer that is kept as the reason.
const MAX_REASON: usize = 256;

impl StepOutcome {
    /// What an HTTP answer says about the attempt that asked.
    ///
    /// | answer | outcome |
    /// |---|---|
    /// | 2xx | `Done` with the JSON of the body; `null` when empty, a string when not JSON |
    /// | 425, 429, or 503 with `Retry-After` | `Retryable` |
    /// | 408, 1xx, any other 5xx | `Unknown`: the work may have been done |
    /// | 422 with a problem of type `urn:orchestra-saga:key-reused` | `Unknown`: work was done, for another body |
    /// | 3xx and any other 4xx | `Rejected` |
    ///
    /// Without an answer: a connection that was never made is `Retryable`, anything later `Unknown`. A typed
    /// step makes a result of it with [`into_result`](Self::into_result).
    ///
    /// ```
    /// use http::StatusCode;
    /// use orchestra_saga::StepOutcome;
    ///
    /// let done = StepOutcome::from_http(StatusCode::CREATED, None, br#"{"hold":7}"#);
    /// assert_eq!(done, StepOutcome::Done(serde_json::json!({ "hold": 7 }).into()));
    /// assert_eq!(StepOutcome::from_http(StatusCode::BAD_GATEWAY, None, b"").name(), "unknown");
    /// ```
    pub fn from_http(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        match status.as_u16() {
            200..=299 => Self::Done(output(body)),
            425 | 429 => Self::Retryable {
                reason: reason(status, body),
                after: retry_after,
            },
            503 if retry_after.is_some() => Self::Retryable {
                reason: reason(status, body),
                after: retry_after,
            },
            422 if is_of_another_body(body) => Self::Unknown(reason(status, body)),
            300..=399 => Self::Rejected(reason(status, body)),
            400..=499 if status != StatusCode::REQUEST_TIMEOUT => {
                Self::Rejected(reason(status, body))
            }
            _ => Self::Unknown(reason(status, body)),
        }
    }
}

/// Whether it is a refusal of a key that was used with another body: something may have been done under that key.
fn is_of_another_body(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Problem<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice(body).is_ok_and(|Problem { kind }| kind == KEY_REUSED)
}

fn output(body: &[u8]) -> Payload {
    if body.is_empty() {
        return Payload::default();
    }
    let text = String::from_utf8_lossy(body);
    Payload::parse(&text)
        .or_else(|_not_json| Payload::of(&*text))
        .unwrap_or_default()
}

fn reason(status: StatusCode, body: &[u8]) -> String {
    let start = body.get(..MAX_REASON).unwrap_or(body);
    let text = String::from_utf8_lossy(start);
    if text.trim().is_empty() {
        status.to_string()
    } else {
        format!("{status}: {}", text.trim())
    }
}
