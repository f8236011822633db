//! What is sent, within its limits.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// The longest id, topic and key in bytes.
pub const MAX_NAME: usize = 255;
/// The most headers of a message.
pub const MAX_HEADERS: usize = 32;
/// The longest name and value of a header together, in bytes.
pub const MAX_HEADER: usize = 4 << 10;
/// The longest payload in bytes. A broker may take less.
pub const MAX_PAYLOAD: usize = 8 << 20;

/// What tells a message from every other: 1 to 255 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Validates and wraps an id.
    ///
    /// ```
    /// use orchestra_saga::outbox::MessageId;
    ///
    /// assert_eq!(MessageId::new("order-7-paid")?.as_str(), "order-7-paid");
    /// assert!(MessageId::new("two words").is_err());
    /// # Ok::<(), orchestra_saga::Error>(())
    /// ```
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(invalid("an id has 1 to 255 visible ASCII characters"))
        }
    }

    /// An id that nobody else has: a version 7 UUID, so that an index of them grows at its end.
    pub fn random() -> Self {
        Self(Arc::from(uuid::Uuid::now_v7().hyphenated().to_string()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::str::FromStr for MessageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

/// A message to whoever reads the topic.
///
/// Messages of one key arrive in the order in which they were written. A clone shares the content.
///
/// ```
/// use orchestra_saga::outbox::Message;
///
/// let paid = Message::json("orders.paid", "order-7", &serde_json::json!({ "amount": 30 }))?
///     .header("tenant", "north")?;
/// assert_eq!(paid.topic(), "orders.paid");
/// assert_eq!(paid.payload(), br#"{"amount":30}"#.as_slice());
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    id: MessageId,
    topic: Arc<str>,
    key: Arc<str>,
    headers: Vec<(String, String)>,
    payload: Bytes,
}

impl Message {
    /// A message with a new id. The topic is visible ASCII without `*` and `>`, in parts between dots;
    /// the key is any text without control characters.
    pub fn new(
        topic: impl AsRef<str>,
        key: impl AsRef<str>,
        payload: impl Into<Bytes>,
    ) -> Result<Self> {
        let (topic, key, payload) = (topic.as_ref(), key.as_ref(), payload.into());
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'*' | b'>');
        if topic.len() > MAX_NAME
            || topic.split('.').any(str::is_empty)
            || !topic.bytes().all(plain)
        {
            return Err(invalid(format!("{topic:?} is not a topic")));
        }
        if !(1..=MAX_NAME).contains(&key.len()) || key.chars().any(char::is_control) {
            return Err(invalid(format!("{key:?} is not a key")));
        }
        if payload.len() > MAX_PAYLOAD {
            let message = format!("a payload of {} bytes on topic {topic}", payload.len());
            return Err(invalid(format!("{message} is more than {MAX_PAYLOAD}")));
        }
        Ok(Self {
            id: MessageId::random(),
            topic: Arc::from(topic),
            key: Arc::from(key),
            headers: Vec::new(),
            payload,
        })
    }

    /// A message whose payload is this value as JSON.
    pub fn json<T: Serialize + ?Sized>(
        topic: impl AsRef<str>,
        key: impl AsRef<str>,
        value: &T,
    ) -> Result<Self> {
        let payload = serde_json::to_vec(value)
            .map_err(|source| invalid("the payload is not JSON").caused_by(source))?;
        Self::new(topic, key, payload)
    }

    /// With this id, which the same message written twice has in common.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.id = id;
        self
    }

    /// With another header. Names are letters, digits, `-`, `_` and `.`; values have no control
    /// characters.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Result<Self> {
        let (name, value) = (name.as_ref(), value.as_ref());
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let fits = !name.is_empty() && name.len() + value.len() <= MAX_HEADER;
        if !fits || !name.bytes().all(token) || value.chars().any(char::is_control) {
            return Err(invalid(format!(
                "{name:?} is not a header, or its value is none"
            )));
        }
        if self.headers.len() >= MAX_HEADERS {
            return Err(invalid(format!("more than {MAX_HEADERS} headers")));
        }
        // Brokers keep the order of the values of one name, not that of the names.
        let place = self
            .headers
            .partition_point(|(known, _)| known.as_str() <= name);
        self.headers
            .insert(place, (name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// The id.
    pub const fn id(&self) -> &MessageId {
        &self.id
    }

    /// Where it is sent.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it is in order with.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The headers by name, the values of one name in the order in which they were given.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The content.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub(crate) fn shared_key(&self) -> Arc<str> {
        Arc::clone(&self.key)
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidMessage, message)
}

/// A message as the databases keep it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Message {
    pub(crate) fn headers_json(&self) -> String {
        serde_json::to_string(&self.headers).unwrap_or_else(|_never| "[]".to_owned())
    }

    pub(crate) fn from_row(
        id: &str,
        topic: &str,
        key: &Arc<str>,
        headers: &str,
        payload: Vec<u8>,
    ) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(format!("outbox: {what} of message {id}"));
        let pairs: Vec<(String, String)> = serde_json::from_str(headers)
            .map_err(|source| corrupt("the headers").caused_by(source))?;
        Ok(Self {
            id: MessageId::new(id)?,
            topic: Arc::from(topic),
            key: Arc::clone(key),
            headers: pairs,
            payload: payload.into(),
        })
    }
}
