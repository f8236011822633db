use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Timestamp;

use super::{Message, MessageId};
use crate::error::Result;

/// How much a relay takes at a time, which bounds its memory: `lanes` times `bytes` and one message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// Who takes it; shown to people.
    pub owner: Arc<str>,
    /// The most keys.
    pub lanes: u32,
    /// The most messages of each.
    pub messages: u32,
    /// The bytes of payload of each after which no further message is taken.
    pub bytes: u32,
    /// How long nobody else gets the keys.
    pub term: Duration,
}

impl Batch {
    /// Up to 32 keys of 64 messages and 1 MiB each, for 30 seconds.
    pub fn new(owner: impl Into<Arc<str>>) -> Self {
        Self {
            owner: owner.into(),
            lanes: 32,
            messages: 64,
            bytes: 1 << 20,
            term: Duration::from_secs(30),
        }
    }
}

/// The messages of one key that are next, lent to one relay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lane {
    /// The key.
    pub key: Arc<str>,
    /// What tells this loan from all others.
    pub token: i64,
    /// How often its first message has failed.
    pub failures: u32,
    /// The next messages in their order; none if there are none any more.
    pub messages: Vec<Message>,
}

impl Lane {
    /// A loan, as a backlog grants it.
    pub const fn new(key: Arc<str>, token: i64, failures: u32, messages: Vec<Message>) -> Self {
        Self {
            key,
            token,
            failures,
            messages,
        }
    }
}

/// What becomes of a key that was lent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// It goes on at once, if there is more.
    Due,
    /// Its first message failed and is tried again after this time.
    After {
        /// The time.
        delay: Duration,
        /// How often it has failed.
        failures: u32,
    },
    /// Its first message is parked.
    Park {
        /// Which.
        id: MessageId,
        /// Why.
        error: String,
        /// Whether the messages after it wait until somebody decides.
        holds: bool,
    },
}

/// What was done with a key that was lent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// The key.
    pub key: Arc<str>,
    /// The token of the loan.
    pub token: i64,
    /// What was published.
    pub sent: Vec<MessageId>,
    /// How it goes on.
    pub next: Next,
}

/// A message that is not sent until somebody decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parked {
    /// The message.
    pub message: Message,
    /// Why it was parked.
    pub error: String,
    /// When, by the clock of the backlog.
    pub at: Timestamp,
}

impl Parked {
    /// A message that was parked.
    pub const fn new(message: Message, error: String, at: Timestamp) -> Self {
        Self { message, error, at }
    }
}

/// The messages that were written and not yet sent.
///
/// Laws:
/// 1. `claim` lends a key whose messages are due to one relay at a time, until it is settled or the term
///    is over, by the backlog's own clock; the key that has waited longest comes first.
/// 2. The messages of a key are lent in the order in which they were written, from the first that was
///    neither sent nor parked, without a gap: if a message is seen, all of its key before it are.
/// 3. `settle` forgets what was sent and does with the key as it is told, unless the loan is over: then
///    it changes nothing of that key and names it.
/// 4. A message that is written while its key is lent is lent later.
/// 5. A parked message is not lent, and shown by `parked`, the oldest first, until `retry` makes it the
///    next of its key or `discard` forgets it; either lets a key go on that was held.
///
/// Cancel: either the whole happened or nothing of it.
#[async_trait]
pub trait Backlog: fmt::Debug + Send + Sync {
    /// Lends keys to whoever asks.
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>>;

    /// Says what was done with keys. Returns those whose loan was over.
    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>>;

    /// The parked messages, at most `limit`.
    async fn parked(&self, limit: u32) -> Result<Vec<Parked>>;

    /// Sends a parked message after all, ahead of its key. Returns whether it was parked.
    async fn retry(&self, id: &MessageId) -> Result<bool>;

    /// Forgets a parked message. Returns whether it was parked.
    async fn discard(&self, id: &MessageId) -> Result<bool>;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Backlog + ?Sized> Backlog for $pointer<T> {
            async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
                (**self).claim(batch).await
            }

            async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
                (**self).settle(settled).await
            }

            async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
                (**self).parked(limit).await
            }

            async fn retry(&self, id: &MessageId) -> Result<bool> {
                (**self).retry(id).await
            }

            async fn discard(&self, id: &MessageId) -> Result<bool> {
                (**self).discard(id).await
            }
        }
    )+};
}

forward!(Arc, Box);
