//! The key that makes a repeated request the same request.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest key in bytes.
pub const MAX_KEY: usize = 255;

/// A client's name for one request: every repetition carries the same key, and no other request does.
///
/// 1 to 255 visible ASCII characters, the common ground of the services that take the header
/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
///
/// ```
/// use orchestra_core::IdempotencyKey;
///
/// let key = IdempotencyKey::new("order-7f3a")?;
/// assert_eq!(key.as_str(), "order-7f3a");
/// assert!(IdempotencyKey::new("two words").is_err());
/// # Ok::<(), orchestra_core::InvalidKey>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// A text that is not an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an idempotency key has 1 to 255 visible ASCII characters")
    }
}

impl std::error::Error for InvalidKey {}

impl IdempotencyKey {
    /// Validates and wraps a key.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidKey> {
        let text = text.as_ref();
        let valid =
            (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if valid {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidKey)
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::new(text)
    }
}

impl AsRef<str> for IdempotencyKey {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}
