//! Names and numbers: sagas, steps, versions, epochs, partitions.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use orchestra_core::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest name of a step in bytes.
pub const MAX_STEP_NAME: usize = 64;

/// Identifies one run of a definition: a version 7 UUID, so ids sort by the time of their start.
///
/// ```
/// use orchestra_core::Timestamp;
/// use orchestra_saga::SagaId;
///
/// let first = SagaId::from_parts(Timestamp::from_unix_nanos(1_000_000), 7);
/// let second = SagaId::from_parts(Timestamp::from_unix_nanos(2_000_000), 3);
/// assert!(first < second);
/// assert_eq!(first.to_string().parse::<SagaId>()?, first);
/// # Ok::<(), orchestra_saga::InvalidId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId(u128);

impl SagaId {
    /// The id of this moment (by the millisecond) and these random bits.
    pub fn from_parts(at: Timestamp, draw: u128) -> Self {
        let [_, _, _, _, _, _, random @ ..] = draw.to_be_bytes();
        let uuid = uuid::Builder::from_unix_timestamp_millis(at.as_unix_millis(), &random);
        Self(uuid.into_uuid().as_u128())
    }

    /// The greatest id below it, for a page that begins with it; none before the least.
    pub(crate) fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The 16 bytes of the UUID, most significant first.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// Something of sagas that exist: an executor draws their ids, so nobody outside chooses any.
pub(crate) type BySaga<T> = HashMap<SagaId, T, BuildHasherDefault<Random>>;

/// Takes the last bits of what is random already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Random(u64);

impl Hasher for Random {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the last 62 bits are random"
        )]
        let random = id as u64;
        self.0 = random;
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an id or name of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId(&'static str);

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for SagaId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let uuid = uuid::Uuid::try_parse(text)
            .map_err(|_source| InvalidId("a saga id is a UUID in its text form"))?;
        Ok(Self(uuid.as_u128()))
    }
}

impl Serialize for SagaId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SagaId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a step, unique within its definition: 1 to 64 of `a-z A-Z 0-9 _ - .`.
///
/// ```
/// use orchestra_saga::StepName;
///
/// assert_eq!(StepName::new("charge_payment")?.as_str(), "charge_payment");
/// assert!(StepName::new("charge payment").is_err());
/// # Ok::<(), orchestra_saga::InvalidId>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StepName(Arc<str>);

impl StepName {
    /// Validates and wraps a name.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
        let text = text.as_ref();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if (1..=MAX_STEP_NAME).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidId(
                "a step name has 1 to 64 letters, digits, `_`, `-` or `.`",
            ))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one is a clone of the other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for StepName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for StepName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of events in the log of a saga; zero before `saga_started`.
    Version(u64)
}

number! {
    /// The fencing number of a claim: an owner with a lower one is refused, by the store and by the
    /// participants' barriers.
    Epoch(u64)
}

number! {
    /// A share of the sagas that one executor owns at a time.
    Partition(u32)
}
