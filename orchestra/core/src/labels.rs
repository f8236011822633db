//! Labels and selectors with the semantics of Kubernetes.
//!
//! A [`Selector`] is a conjunction of [`Requirement`]s; the empty selector matches everything.
//! `NotIn` and `!=` also match an object *without* the key; `Gt` and `Lt` compare 64-bit integers and
//! never match a value that is absent or not an integer. The text form is that of `kubectl -l`
//! (`k8s.io/apimachinery/pkg/labels`), extended by `>` and `<` as that parser has them.

mod selector;

pub use selector::{InvalidSelector, Operator, Requirement, Selector};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The longest name part of a key, and the longest value, in bytes.
pub const MAX_NAME: usize = 63;
/// The longest prefix of a key, in bytes.
pub const MAX_PREFIX: usize = 253;

/// Why a text is not a label key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLabel {
    part: &'static str,
    text: String,
    reason: &'static str,
}

impl InvalidLabel {
    fn new(part: &'static str, text: &str, reason: &'static str) -> Self {
        let text = text.chars().take(64).collect();
        Self { part, text, reason }
    }
}

impl fmt::Display for InvalidLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid label {} {:?}: {}",
            self.part, self.text, self.reason
        )
    }
}

impl std::error::Error for InvalidLabel {}

/// A set of key-value pairs attached to an object, ordered by key.
///
/// A clone is one reference count.
///
/// ```
/// use orchestra_core::Labels;
///
/// let labels: Labels = [("app", "shop"), ("example.com/tier", "backend")].try_into()?;
/// assert_eq!(labels.value("app"), Some("shop"));
/// assert_eq!(labels.to_string(), "app=shop,example.com/tier=backend");
/// # Ok::<(), orchestra_core::InvalidLabel>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<BTreeMap<Arc<str>, Arc<str>>>);

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair, replacing the value of a key that is already there.
    pub fn with(mut self, key: &str, value: &str) -> Result<Self, InvalidLabel> {
        check_key(key)?;
        check_value(value)?;
        Arc::make_mut(&mut self.0).insert(Arc::from(key), Arc::from(value));
        Ok(self)
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(AsRef::as_ref)
    }

    /// The pairs in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const N: usize> TryFrom<[(&str, &str); N]> for Labels {
    type Error = InvalidLabel;

    fn try_from(pairs: [(&str, &str); N]) -> Result<Self, InvalidLabel> {
        pairs
            .into_iter()
            .try_fold(Self::new(), |labels, (key, value)| labels.with(key, value))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

fn is_qualified(text: &str, max: usize, allowed: fn(u8) -> bool) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err("empty");
    };
    if bytes.len() > max {
        return Err("too long");
    }
    if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
        return Err("must begin and end with a letter or digit");
    }
    if bytes.iter().all(|&byte| allowed(byte)) {
        Ok(())
    } else {
        Err("holds a character outside its alphabet")
    }
}

fn name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn prefix_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
}

fn check_key(key: &str) -> Result<(), InvalidLabel> {
    let fail = |reason| InvalidLabel::new("key", key, reason);
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            is_qualified(prefix, MAX_PREFIX, prefix_byte).map_err(fail)?;
            name
        }
        None => key,
    };
    is_qualified(name, MAX_NAME, name_byte).map_err(fail)
}

fn check_value(value: &str) -> Result<(), InvalidLabel> {
    if value.is_empty() {
        return Ok(());
    }
    is_qualified(value, MAX_NAME, name_byte)
        .map_err(|reason| InvalidLabel::new("value", value, reason))
}
