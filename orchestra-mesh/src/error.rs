//! The one error of the crate.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use orchestra_core::{ErrorClass, InstanceId, ServiceName};

/// An error of somebody else, kept as a source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A setting makes no sense.
    Config,
    /// A listener could not be bound.
    Bind,
    /// The service has no instance that could be asked.
    NoEndpoint,
    /// Every instance that could be asked is behind an open circuit.
    CircuitOpen,
    /// No connection: the request was not sent.
    Connect,
    /// The connection broke while the request was under way: it may have been processed.
    Reset,
    /// The instance refused the stream before it looked at the request.
    RefusedStream,
    /// One attempt took longer than it may.
    AttemptTimeout,
    /// The whole call took longer than it may.
    DeadlineExceeded,
    /// The last attempt failed and the budget allows no other.
    BudgetExhausted,
    /// A body is longer than allowed.
    BodyTooLarge,
    /// A body could not be read.
    Body,
    /// The request cannot be sent as it is.
    InvalidRequest,
    /// The client or gateway is shutting down.
    ShutDown,
    /// A service mounted in this process failed.
    Service,
}

/// Why a call, a connection or a configuration failed.
///
/// ```
/// use orchestra_mesh::error::Kind;
/// use orchestra_mesh::retry::RetryOn;
///
/// let error = "5xx,sometimes".parse::<RetryOn>().err().ok_or("parsed")?;
/// assert_eq!(error.kind(), Kind::Config);
/// assert!(!error.is_retryable());
/// assert_eq!(error.to_string(), "unknown retry condition \"sometimes\"");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    service: Option<ServiceName>,
    instance: Option<InstanceId>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            service: None,
            instance: None,
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Config, message)
    }

    pub(crate) fn with_service(mut self, service: &ServiceName) -> Self {
        self.0.service = Some(service.clone());
        self
    }

    pub(crate) fn with_instance(mut self, instance: &InstanceId) -> Self {
        self.0.instance = Some(instance.clone());
        self
    }

    pub(crate) fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.0.retry_after = after;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The service that was called, if the error belongs to one.
    pub fn service(&self) -> Option<&ServiceName> {
        self.0.service.as_ref()
    }

    /// The instance of the last attempt, if there was one.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.0.instance.as_ref()
    }

    /// What the error allows the caller to do.
    pub fn class(&self) -> ErrorClass {
        match self.0.kind {
            Kind::Config
            | Kind::Bind
            | Kind::BodyTooLarge
            | Kind::InvalidRequest
            | Kind::ShutDown => ErrorClass::Permanent,
            Kind::NoEndpoint | Kind::CircuitOpen | Kind::BudgetExhausted => ErrorClass::Throttled {
                after: self.0.retry_after,
            },
            Kind::Connect
            | Kind::Reset
            | Kind::RefusedStream
            | Kind::AttemptTimeout
            | Kind::DeadlineExceeded
            | Kind::Body
            | Kind::Service => ErrorClass::Transient,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.class().is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            message,
            service,
            instance,
            ..
        } = &*self.0;
        if let Some(service) = service {
            write!(f, "service {service}: ")?;
        }
        if let Some(instance) = instance {
            write!(f, "instance {instance}: ")?;
        }
        f.write_str(message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("service", &self.0.service)
            .field("instance", &self.0.instance)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
