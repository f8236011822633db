//! The crate's error.

use std::fmt;

use orchestra_core::ErrorClass;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A container, reservation or node with this id is there already.
    AlreadyExists,
    /// There is no container, reservation or node with this id.
    NotFound,
    /// The node still carries replicas.
    InUse,
    /// What was asked for cannot be done by anyone: an empty program, a NUL byte.
    Invalid,
    /// The program does not exist or may not be executed.
    ProgramNotFound,
    /// Another runtime uses the state directory.
    DirectoryInUse,
    /// The runtime holds as many containers as it may.
    Full,
    /// The operating system refused.
    Io,
    /// The runtime was shut down.
    ShutDown,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a call of this crate failed: a kind to branch on and a context to read.
///
/// ```
/// use orchestra_scheduler::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "container payments-0 is not known");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(!error.is_retryable());
/// assert_eq!(error.to_string(), "container payments-0 is not known");
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Source>,
}

/// What this crate's fallible calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind; the context names the thing and its id.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// With what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[cfg(feature = "process")]
    pub(crate) fn io(context: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::new(ErrorKind::Io, context).with_source(source)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the error allows.
    pub fn class(&self) -> ErrorClass {
        match self.kind {
            ErrorKind::Io | ErrorKind::InUse => ErrorClass::Transient,
            ErrorKind::Full => ErrorClass::Throttled { after: None },
            ErrorKind::AlreadyExists
            | ErrorKind::NotFound
            | ErrorKind::Invalid
            | ErrorKind::ProgramNotFound
            | ErrorKind::DirectoryInUse
            | ErrorKind::ShutDown => ErrorClass::Permanent,
        }
    }

    /// Whether another attempt makes sense.
    pub fn is_retryable(&self) -> bool {
        self.class().is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
