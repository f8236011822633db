use std::borrow::Cow;
use std::fmt;

/// A value that a [`Masker`](crate::Masker) has looked at; nothing else makes one.
///
/// ```
/// use orchestra_observe::{Masked, Masker};
///
/// fn store(line: Masked<String>) -> usize {
///     line.as_str().len()
/// }
/// let line = Masker::new().mask("password=hunter2").into_owned();
/// assert_eq!(line.to_string(), "password=[masked]");
/// assert_eq!(store(line), 17);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Masked<T>(T);

impl<T> Masked<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<str>> Masked<T> {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }
}

impl Masked<Cow<'_, str>> {
    /// The same with a text of its own.
    pub fn into_owned(self) -> Masked<String> {
        Masked(self.0.into_owned())
    }
}

impl<T: fmt::Display> fmt::Display for Masked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
