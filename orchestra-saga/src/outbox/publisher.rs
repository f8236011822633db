use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::Message;
use crate::error::Result;

/// Hands messages to a broker.
///
/// Laws (each is a test of [`conformance`](super::conformance), under `test-util`):
/// 1. `Ok` means that the broker has the message and keeps it, whole: id, topic, key, headers, payload.
/// 2. Of messages published one after another, each after the answer to the one before, whoever reads
///    sees the earlier first.
/// 3. A message may be published again, which is no error. A publisher that `deduplicates` shows it once.
/// 4. Messages published at once do not mix and do not get lost.
///
/// An error says whose fault it is: [`Unavailable`](crate::ErrorKind::Unavailable) that the broker cannot
/// be reached or did not answer, which says nothing about the message;
/// [`Undelivered`](crate::ErrorKind::Undelivered) that this message was not taken now;
/// [`InvalidMessage`](crate::ErrorKind::InvalidMessage) that it never will be. A relay parks messages by
/// that.
///
/// Cancel: a dropped `publish` has published the message or not.
#[async_trait]
pub trait Publisher: fmt::Debug + Send + Sync {
    /// Publishes a message and waits until the broker has it.
    async fn publish(&self, message: &Message) -> Result<()>;

    /// Whether a message that is published again soon is shown once.
    fn deduplicates(&self) -> bool;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Publisher + ?Sized> Publisher for $pointer<T> {
            async fn publish(&self, message: &Message) -> Result<()> {
                (**self).publish(message).await
            }

            fn deduplicates(&self) -> bool {
                (**self).deduplicates()
            }
        }
    )+};
}

forward!(Arc, Box);
