//! What can go wrong, and what it allows.

use std::error::Error as StdError;
use std::fmt;

use orchestra_core::ErrorClass;

use crate::id::{Epoch, SagaId};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The definition breaks a rule of its graph, names or templates.
    InvalidDefinition,
    /// No definition of that id and version was given to the executor.
    UnknownDefinition,
    /// The saga was started with another content of the same definition and version.
    DefinitionChanged,
    /// The input does not have the type that the definition asks for.
    InvalidInput,
    /// A payload is larger than allowed.
    TooLarge,
    /// The log of the saga is as long as it may be: signals and heartbeats are refused.
    HistoryFull,
    /// As many sagas as allowed are running.
    Overloaded,
    /// The executor is shutting down.
    ShuttingDown,
    /// There is no such saga.
    NotFound,
    /// Another append came first.
    StaleVersion,
    /// A later claim owns the partition.
    Fenced,
    /// The saga belongs to another partition than the claim.
    ForeignPartition,
    /// A saga with this start key exists; [`Error::saga`] names it.
    DuplicateStart,
    /// The start key was used for another definition or input.
    KeyReused,
    /// This process has no partition of the sagas at the moment.
    NoPartition,
    /// Another process holds the store, or this one opened it before. The message names the process where that can
    /// be known.
    Locked,
    /// The store holds as much as it may.
    Full,
    /// The store failed to read or write.
    Store,
    /// The store is busy: other processes hold its lock.
    Busy,
    /// A log or record makes no sense.
    Corrupt,
    /// A newer version wrote the store, or one so old that its format is not read any more.
    UnknownFormat,
    /// The headers do not describe a call of a saga.
    InvalidCall,
    /// The database does not prepare transactions, by its configuration.
    CannotPrepare,
    /// A barrier, outbox or inbox was used outside a transaction.
    NoTransaction,
    /// A message breaks a limit, or the broker will never take it.
    InvalidMessage,
    /// The broker did not take a message, and may take it later.
    Undelivered,
    /// The broker cannot be reached or does not answer, whatever the message.
    Unavailable,
}

/// An error of this crate.
///
/// ```
/// use orchestra_saga::{ErrorKind, SagaId};
///
/// let error = orchestra_saga::Error::new(ErrorKind::NotFound, "no such saga")
///     .of(SagaId::from_bytes([0; 16]));
/// assert_eq!(
///     error.to_string(),
///     "no such saga: saga 00000000-0000-0000-0000-000000000000",
/// );
/// assert_eq!(
///     format!("{error:?}"),
///     "Error { kind: NotFound, message: \"no such saga\", \
///      saga: 00000000-0000-0000-0000-000000000000 }",
/// );
/// assert!(!error.is_retryable());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    saga: Option<SagaId>,
    epoch: Option<Epoch>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind; stores of other crates make them too.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            saga: None,
            epoch: None,
            source: None,
        }))
    }

    /// Names the saga it is about.
    #[must_use]
    pub fn of(mut self, saga: SagaId) -> Self {
        self.0.saga = Some(saga);
        self
    }

    /// Names the epoch that won.
    #[must_use]
    pub fn at_epoch(mut self, epoch: Epoch) -> Self {
        self.0.epoch = Some(epoch);
        self
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The saga it is about: for [`ErrorKind::DuplicateStart`] the one that has the key.
    pub fn saga(&self) -> Option<SagaId> {
        self.0.saga
    }

    /// The epoch that won, for [`ErrorKind::Fenced`].
    pub fn epoch(&self) -> Option<Epoch> {
        self.0.epoch
    }

    /// What it allows.
    pub fn class(&self) -> ErrorClass {
        match self.kind() {
            ErrorKind::Overloaded | ErrorKind::Busy => ErrorClass::Throttled { after: None },
            ErrorKind::Store
            | ErrorKind::Full
            | ErrorKind::StaleVersion
            | ErrorKind::NoPartition
            | ErrorKind::ShuttingDown
            | ErrorKind::Undelivered
            | ErrorKind::Unavailable => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.class().is_retryable()
    }

    /// The same error for one more who asked; the causes are kept as text.
    pub(crate) fn repeated(&self) -> Self {
        let source = self.0.source.as_ref().map(ToString::to_string);
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            saga: self.0.saga,
            epoch: self.0.epoch,
            source: source.map(Into::into),
        }))
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }
}

/// What is known of it; a `main` that returns it prints this.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            message,
            saga,
            epoch,
            source,
        } = &*self.0;
        let mut known = f.debug_struct("Error");
        known.field("kind", kind).field("message", message);
        if let Some(saga) = saga {
            known.field("saga", saga);
        }
        if let Some(epoch) = epoch {
            known.field("epoch", epoch);
        }
        if let Some(source) = source {
            known.field("source", source);
        }
        known.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.0.saga {
            Some(saga) => write!(f, ": saga {saga}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}
