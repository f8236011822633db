//! Inputs and outputs: JSON documents that are written once and passed along unread.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON document as text. A clone shares it.
///
/// What a step returned is written down once; the log, the next step's input and a compensation carry
/// the same bytes, so what is sent again is sent identically.
///
/// ```
/// use orchestra_saga::Payload;
///
/// let hold = Payload::of(&serde_json::json!({ "id": 7 }))?;
/// assert_eq!(hold.as_str(), r#"{"id":7}"#);
/// assert_eq!(hold.value()["id"], 7);
/// assert_eq!(Payload::parse("[1, 2]")?.read::<Vec<u32>>()?, [1, 2]);
/// assert_eq!(Payload::default(), Payload::parse("null")?);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct Payload(Option<Arc<RawValue>>);

impl Payload {
    /// The document of this value.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        let raw = serde_json::value::to_raw_value(value)?;
        Ok(Self(Some(Arc::from(raw))))
    }

    /// The document that this text is.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let raw: &RawValue = serde_json::from_str(text)?;
        Ok(Self(Some(Arc::from(raw.to_owned()))))
    }

    /// Reads it as `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    /// Reads it as a tree. A document nested too deeply for one reads as null.
    pub fn value(&self) -> Value {
        self.read().unwrap_or_default()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.raw().get()
    }

    /// Nothing is `null`, which takes no memory of its own.
    fn raw(&self) -> &RawValue {
        self.0.as_deref().unwrap_or(RawValue::NULL)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.as_str().len()
    }

    /// Never: even nothing is written as `null`.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The object of these documents.
    pub(crate) fn object<'a>(members: impl Iterator<Item = (&'a str, Self)>) -> Self {
        let mut text = String::from("{");
        for (name, value) in members {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&Value::from(name).to_string());
            text.push(':');
            text.push_str(value.as_str());
        }
        text.push('}');
        Self::parse(&text).unwrap_or_default()
    }

    /// The array of these documents.
    pub(crate) fn array(items: impl Iterator<Item = Self>) -> Self {
        let mut text = String::from("[");
        for item in items {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(item.as_str());
        }
        text.push(']');
        // Documents between commas are a document.
        Self::parse(&text).unwrap_or_default()
    }
}

/// `null`.
impl Default for Payload {
    fn default() -> Self {
        Self(None)
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        // The keys of a tree are strings, so it can always be written.
        Self::of(&value).unwrap_or_default()
    }
}

/// By the text: the same content in another spelling is another document.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        let is_shared = match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_shared || self.as_str() == other.as_str()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Some(Arc::from(raw))))
    }
}
