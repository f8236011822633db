//! What can go wrong here.

use std::borrow::Cow;
use std::fmt;

use orchestra_core::ErrorClass;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A metric name outside the alphabet, or one that the exposition reserves.
    InvalidName,
    /// A label name outside the alphabet, reserved, or given twice.
    InvalidLabel,
    /// Bucket bounds that are empty, unordered, negative or not finite.
    InvalidBuckets,
    /// The name is registered already, as something else.
    Conflict,
    /// A sampling ratio outside `0..=1`.
    InvalidRatio,
    /// The exporter could not deliver a batch.
    Export,
    /// The exporter did not answer in time.
    Timeout,
    /// The thing was shut down.
    Closed,
}

impl ErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::InvalidName => "invalid metric name",
            Self::InvalidLabel => "invalid label name",
            Self::InvalidBuckets => "invalid bucket bounds",
            Self::Conflict => "conflicting registration of metric",
            Self::InvalidRatio => "invalid sampling ratio",
            Self::Export => "export failed by",
            Self::Timeout => "export timed out by",
            Self::Closed => "already shut down:",
        }
    }

    const fn class(self) -> ErrorClass {
        match self {
            Self::Export | Self::Timeout => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }
}

/// The error of this crate.
///
/// ```
/// use orchestra_observe::{ErrorKind, Registry};
///
/// let registry = Registry::new();
/// let error = registry.counter("no spaces", "A name that no scraper reads.").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidName);
/// assert!(!error.is_retryable());
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    class: ErrorClass,
    subject: String,
    reason: Cow<'static, str>,
    source: Option<Source>,
}

impl Error {
    /// The longest subject that a message repeats, in characters.
    const MAX_SUBJECT: usize = 64;

    pub(crate) fn new(
        kind: ErrorKind,
        subject: &str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            class: kind.class(),
            subject: subject.chars().take(Self::MAX_SUBJECT).collect(),
            reason: reason.into(),
            source: None,
        }
    }

    /// The error of an [`Exporter`](crate::Exporter) that could not deliver: which one, what an
    /// attempt later may hope for, and why.
    pub fn export(exporter: &str, class: ErrorClass, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            ..Self::new(ErrorKind::Export, exporter, reason)
        }
    }

    /// The error of an [`Exporter`](crate::Exporter) that was shut down.
    pub fn closed(exporter: &str) -> Self {
        Self::new(ErrorKind::Closed, exporter, "it takes nothing more")
    }

    /// Adds the error that this one was caused by.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What it allows the caller to do.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.class.is_retryable()
    }

    /// The name of the thing that it is about, cut to 64 characters.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?}: {}",
            self.kind.text(),
            self.subject,
            self.reason
        )
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
