//! Messages to NATS `JetStream`.
//!
//! A topic is a subject; a stream that takes it must exist, and how long it keeps messages and how many
//! replicas it has is its own. Each message is waited for until the stream has acknowledged it. The id is
//! sent as `Nats-Msg-Id`, by which the stream drops a repetition inside its duplicate window (two minutes
//! unless configured otherwise); beyond it the consumer's inbox does. The key is sent as
//! [`KEY`], percent-encoded where it is not visible ASCII.
//!
//! A stream keeps the order in which one publisher's messages arrive, and a relay publishes the messages
//! of a key one after another.

use std::fmt::Write as _;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_trait::async_trait;

use super::{Message, MessageId};
use crate::error::{Error, ErrorKind, Result};

/// The header with the id of the message.
pub const ID: &str = "Nats-Msg-Id";
/// The header with the key of the message.
pub const KEY: &str = "Orchestra-Key";

/// Publishes to the streams of a `JetStream` context.
///
/// ```no_run
/// use orchestra_saga::outbox::{Relay, memory, nats};
///
/// # async fn relay() -> Result<(), Box<dyn std::error::Error>> {
/// let client = async_nats::connect("127.0.0.1:4222").await?;
/// let publisher = nats::Publisher::new(async_nats::jetstream::new(client));
/// let relay = Relay::builder(memory::Outbox::default(), publisher).start();
/// # relay.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Publisher {
    context: Context,
}

impl Publisher {
    /// A publisher in this context. The context's own timeout should not be longer than the relay's.
    pub const fn new(context: Context) -> Self {
        Self { context }
    }

    /// The message that a consumer was given, by its subject, headers and payload; what is not from a
    /// publisher like this is [`ErrorKind::InvalidMessage`].
    pub fn read(subject: &str, headers: &HeaderMap, payload: bytes::Bytes) -> Result<Message> {
        let one = |name: &str| {
            let value = headers.get(name).map(async_nats::HeaderValue::as_str);
            value.ok_or_else(|| {
                let text = format!("header {name} is missing on subject {subject}");
                Error::new(ErrorKind::InvalidMessage, text)
            })
        };
        let id = MessageId::new(one(ID)?)?;
        let mut message = Message::new(subject, decode(one(KEY)?), payload)?.with_id(id);
        for (name, values) in headers.iter() {
            if is_ours(name.as_ref()) {
                continue;
            }
            for value in values {
                message = message.header(name, decode(value.as_str()))?;
            }
        }
        Ok(message)
    }
}

/// Names that mean something to the server or to us.
fn is_ours(name: &str) -> bool {
    name == KEY
        || name
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case("nats-"))
}

#[async_trait]
impl super::Publisher for Publisher {
    async fn publish(&self, message: &Message) -> Result<()> {
        let mut headers = HeaderMap::new();
        for (name, value) in message.headers() {
            if is_ours(name) {
                let text = format!("message {}: header {name} is the server's", message.id());
                return Err(Error::new(ErrorKind::InvalidMessage, text));
            }
            headers.append(name.as_str(), encode(value));
        }
        headers.insert(ID, message.id().as_str());
        headers.insert(KEY, encode(message.key()));
        let (topic, payload) = (message.topic().to_owned(), message.payload().clone());
        let failed = |error| failed(message, error);
        let sent = self.context.publish_with_headers(topic, headers, payload);
        sent.await.map_err(failed)?.await.map_err(failed)?;
        Ok(())
    }

    /// For as long as the duplicate window of the stream.
    fn deduplicates(&self) -> bool {
        true
    }
}

fn failed(message: &Message, source: PublishError) -> Error {
    let kind = match source.kind() {
        PublishErrorKind::MaxPayloadExceeded => ErrorKind::InvalidMessage,
        // Nobody takes the subject, or the stream is at one of its limits: so it may be for this message
        // alone.
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::Other => ErrorKind::Undelivered,
        PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => ErrorKind::Unavailable,
    };
    let text = format!(
        "message {} on subject {} failed",
        message.id(),
        message.topic()
    );
    Error::new(kind, text).caused_by(source)
}

/// Percent-encodes what is not visible ASCII, and the percent sign.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // A string takes whatever is written to it.
            let _never = write!(encoded, "%{byte:02X}").is_err();
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.as_bytes());
        let byte = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (Some(byte), Some(tail)) = (byte, after.get(2..)) {
            bytes.push(byte);
            rest = tail;
        } else {
            bytes.push(b'%');
            rest = after;
        }
    }
    bytes.extend(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_text_survives_a_header() {
        for text in ["order-7", "a b", "100%", "%41", "\u{fc}\u{1f600}", " x "] {
            let encoded = encode(text);
            assert!(encoded.bytes().all(|b| b.is_ascii_graphic()), "{encoded}");
            assert_eq!(decode(&encoded), text);
        }
        assert_eq!(decode("50%"), "50%");
        assert_eq!(decode("%zz"), "%zz");
    }
}
