use std::collections::BTreeMap;

use orchestra_core::{IdempotencyKey, TraceContext};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::id::SagaId;
use crate::payload::Payload;

/// What to start.
///
/// ```
/// use orchestra_core::IdempotencyKey;
/// use orchestra_saga::Start;
///
/// let start = Start::of("checkout")
///     .input(&serde_json::json!({ "order": 7 }))?
///     .key(IdempotencyKey::new("order-7")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Start {
    pub(super) definition: String,
    pub(super) version: Option<String>,
    pub(crate) input: Payload,
    pub(super) key: Option<IdempotencyKey>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) parent: Option<SagaId>,
    pub(super) priority: u8,
}

impl Start {
    /// A saga of the version of this definition that was given to the executor last.
    pub fn of(definition: impl Into<String>) -> Self {
        Self {
            definition: definition.into(),
            version: None,
            input: Payload::default(),
            key: None,
            trace: None,
            attributes: BTreeMap::new(),
            parent: None,
            priority: 0,
        }
    }

    /// Of exactly this version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// With this input.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Result<Self> {
        self.input = Payload::of(input).map_err(|source| {
            let message = format!("input of saga definition {} is not JSON", self.definition);
            Error::new(ErrorKind::InvalidInput, message).caused_by(source)
        })?;
        Ok(self)
    }

    /// Once for this key: a repetition returns the saga of the first start.
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<IdempotencyKey>>) -> Self {
        self.key = key.into();
        self
    }

    /// Inside this trace.
    #[must_use]
    pub fn trace(mut self, trace: impl Into<Option<TraceContext>>) -> Self {
        self.trace = trace.into();
        self
    }

    /// With something that it can be searched by.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Before sagas of a lower priority, if there is no room for all. Zero by default.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }
}
