//! What may go wrong while the crates are put together, run and shut down.

use std::fmt;

use orchestra_core::ErrorClass;

/// The result of the facade's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Where an [`Error`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The builder was told something that makes no sense.
    Config,
    /// The platform is shutting down.
    ShutDown,
    /// `orchestra-discovery` failed.
    Discovery,
    /// `orchestra-scheduler` failed.
    Scheduler,
    /// `orchestra-saga` failed.
    Saga,
    /// `orchestra-mesh` failed.
    Mesh,
    /// `orchestra-observe` failed.
    Observe,
}

/// Why the platform could not be built, used or shut down; the crate's own error is its source.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    class: ErrorClass,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            class: ErrorClass::Permanent,
            message: message.into(),
            source: None,
        }
    }

    /// Where it comes from.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What it allows.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// Whether another attempt makes sense.
    pub fn is_retryable(&self) -> bool {
        self.class.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

macro_rules! from {
    ($($feature:literal $crate_name:ident $kind:ident $what:literal)+) => {$(
        #[cfg(feature = $feature)]
        impl From<$crate_name::Error> for Error {
            fn from(source: $crate_name::Error) -> Self {
                Self {
                    kind: ErrorKind::$kind,
                    class: source.class(),
                    message: $what.to_owned(),
                    source: Some(Box::new(source)),
                }
            }
        }
    )+};
}

from! {
    "discovery" orchestra_discovery Discovery "discovery failed"
    "scheduler" orchestra_scheduler Scheduler "the scheduler failed"
    "saga" orchestra_saga Saga "a saga failed"
    "mesh" orchestra_mesh Mesh "the mesh failed"
    "observe" orchestra_observe Observe "observing failed"
}
