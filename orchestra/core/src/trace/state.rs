use std::fmt;
use std::sync::Arc;

use super::InvalidTrace;

/// The most members that are kept.
const MAX_MEMBERS: usize = 32;
/// The longest text that is kept, in bytes; the recommendation asks for at least 512.
const MAX_LEN: usize = 4096;

/// The header `tracestate`: at most 32 `key=value` members, the most recent first.
///
/// ```
/// use orchestra_core::TraceState;
///
/// let state = TraceState::from_headers(["congo=t61,rojo=00f0", "dd=s:1"])?;
/// assert_eq!(state.value("rojo"), Some("00f0"));
/// assert_eq!(state.with("ot", "th:8")?.to_string(), "ot=th:8,congo=t61,rojo=00f0,dd=s:1");
/// # Ok::<(), orchestra_core::InvalidTrace>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TraceState(Arc<[(Arc<str>, Arc<str>)]>);

impl TraceState {
    /// Joins the values of all `tracestate` headers in their order. Empty members are allowed and
    /// dropped; one bad member, a repeated key or too many members spoil the whole.
    pub fn from_headers<'a>(
        headers: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidTrace> {
        let mut members: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        let mut length = 0;
        for header in headers {
            length += header.len() + 1;
            if length > MAX_LEN {
                return Err(InvalidTrace("tracestate longer than 4096 bytes"));
            }
            for member in header.split(',') {
                let member = member.trim_matches([' ', '\t']);
                if member.is_empty() {
                    continue;
                }
                let (key, value) = member
                    .split_once('=')
                    .ok_or(InvalidTrace("a tracestate member has no `=`"))?;
                check(key, value)?;
                if members.len() == MAX_MEMBERS {
                    return Err(InvalidTrace("more than 32 tracestate members"));
                }
                if members.iter().any(|(other, _)| &**other == key) {
                    return Err(InvalidTrace("a repeated tracestate key"));
                }
                members.push((Arc::from(key), Arc::from(value)));
            }
        }
        Ok(Self(Arc::from(members)))
    }

    /// The value of a member.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, _)| &**other == key)
            .map(|(_, value)| value.as_ref())
    }

    /// Puts a member first, in place of its old value; the last member goes when there are too many.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, InvalidTrace> {
        check(key, value)?;
        let rest = self.0.iter().filter(|(other, _)| &**other != key).cloned();
        let first = (Arc::from(key), Arc::from(value));
        Ok(Self(
            std::iter::once(first)
                .chain(rest)
                .take(MAX_MEMBERS)
                .collect(),
        ))
    }

    /// Whether there is no member, and so no header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

fn check(key: &str, value: &str) -> Result<(), InvalidTrace> {
    let key_byte = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let key_ok = (1..=256).contains(&key.len())
        && key.bytes().next().is_some_and(first)
        && key.bytes().all(key_byte)
        && key.matches('@').count() <= 1;
    if !key_ok {
        return Err(InvalidTrace("a tracestate key outside its alphabet"));
    }
    let value_byte = |b: u8| (b' '..=b'~').contains(&b) && !matches!(b, b',' | b'=');
    let value_ok =
        (1..=256).contains(&value.len()) && value.bytes().all(value_byte) && !value.ends_with(' ');
    if value_ok {
        Ok(())
    } else {
        Err(InvalidTrace("a tracestate value outside its alphabet"))
    }
}
