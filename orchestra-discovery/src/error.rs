//! What went wrong, and what the caller may do about it.

use std::fmt;
use std::time::Duration;

use orchestra_core::ErrorClass;

/// The result of an operation of this crate.
///
/// ```
/// fn port(text: &str) -> orchestra_discovery::Result<u16> {
///     use orchestra_discovery::{Error, ErrorKind};
///     text.parse().map_err(|error| Error::new(ErrorKind::Invalid, "not a port").with_source(error))
/// }
///
/// assert_eq!(port("80")?, 80);
/// assert!(port("eighty").is_err());
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What kind of failure an [`Error`] is.
///
/// ```
/// use orchestra_discovery::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Replaced, "orders-1 was registered anew");
/// let must_stop = matches!(error.kind(), ErrorKind::Replaced | ErrorKind::LeaseLost);
/// assert!(must_stop && !error.is_retryable());
/// assert_eq!(error.kind().as_str(), "replaced");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input or the configuration is wrong.
    Invalid,
    /// The lease lapsed or was given back: register again.
    LeaseLost,
    /// The id was registered anew by another: whoever holds the old lease must stop serving.
    Replaced,
    /// The registry holds as many instances as it may.
    Full,
    /// The credentials are missing or wrong.
    Unauthorized,
    /// The backend cannot do this at all.
    Unsupported,
    /// The backend could not be reached, or says that it cannot answer now.
    Unavailable,
    /// The backend did not answer in time.
    Timeout,
    /// The backend answered something that makes no sense.
    Protocol,
    /// The component was shut down.
    Closed,
}

impl ErrorKind {
    /// The kind in snake case, as it travels over the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::LeaseLost => "lease_lost",
            Self::Replaced => "replaced",
            Self::Full => "full",
            Self::Unauthorized => "unauthorized",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        const ALL: [ErrorKind; 10] = [
            ErrorKind::Invalid,
            ErrorKind::LeaseLost,
            ErrorKind::Replaced,
            ErrorKind::Full,
            ErrorKind::Unauthorized,
            ErrorKind::Unsupported,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Protocol,
            ErrorKind::Closed,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A failure of a source, a registry or a driver.
///
/// ```
/// use orchestra_discovery::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "registry at 10.0.0.1:7000 refused the connection");
/// assert!(error.is_retryable());
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// An error of this kind; the message names the thing that failed.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            retry_after: None,
            source: None,
        }))
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Keeps how long the peer asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What it allows the caller to do.
    pub fn class(&self) -> ErrorClass {
        let after = self.0.retry_after;
        match self.0.kind {
            ErrorKind::Full => ErrorClass::Throttled { after },
            ErrorKind::Unavailable | ErrorKind::Timeout if after.is_some() => {
                ErrorClass::Throttled { after }
            }
            ErrorKind::Unavailable | ErrorKind::Timeout => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.class().is_retryable()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}
