//! Sends what was written.
//!
//! One task asks the backlog for keys, lets each be published by a task of its own, and settles those
//! that are done together. What becomes of a key is decided by a pure function; this is the part that
//! waits.

mod builder;
mod drive;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use builder::Builder;

use super::{Backlog, Message, Publisher};
use crate::error::Error;

/// What a key does while a message of it is parked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Poison {
    /// It goes on with the next message: the order holds, with a gap.
    #[default]
    StepAside,
    /// It waits until the message is sent or forgotten: no gap, and no progress of the key.
    Hold,
}

/// What a relay tells its listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The broker has a message.
    Published {
        /// The message.
        message: &'a Message,
        /// How long that took.
        took: Duration,
    },
    /// A message failed and is tried again.
    Failed {
        /// The message.
        message: &'a Message,
        /// How often it has failed; not raised by an outage.
        failures: u32,
        /// After what time it is tried again.
        delay: Duration,
        /// Why.
        error: &'a Error,
    },
    /// A message is not tried any more until somebody decides.
    Parked {
        /// The message.
        message: &'a Message,
        /// Why.
        error: &'a Error,
    },
    /// Another relay may have a key that this one had: some of its messages may be sent again.
    LeaseLost {
        /// The key.
        key: &'a str,
    },
    /// The backlog failed; it is asked again after a pause.
    BacklogFailed {
        /// What it said.
        error: &'a Error,
    },
}

/// Sends the messages of a [`Backlog`] through a [`Publisher`] until it is shut down.
///
/// Memory: at most what its [`Batch`](super::Batch) allows, whatever waits in the backlog.
///
/// Drop: aborts; what was being sent is sent again by the next relay when its loan is over.
/// [`Relay::shutdown`] lets what is being sent end and settles it.
///
/// ```
/// use orchestra_saga::outbox::{Message, Relay, memory};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let outbox = memory::Outbox::default();
/// let broker = memory::Publisher::default();
/// let relay = Relay::builder(outbox.clone(), broker.clone()).start();
///
/// outbox.add(&[Message::new("orders", "order-7", "paid")?])?;
/// relay.wake(); // or wait until it looks by itself
/// while !outbox.is_empty() {
///     tokio::task::yield_now().await;
/// }
/// assert_eq!(broker.take().len(), 1);
/// relay.shutdown().await;
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a relay that is dropped sends nothing"]
pub struct Relay {
    task: JoinSet<()>,
    stop: CancellationToken,
    wake: Arc<Notify>,
}

impl Relay {
    /// A relay from here to there.
    pub fn builder(
        backlog: impl Backlog + 'static,
        publisher: impl Publisher + 'static,
    ) -> Builder {
        Builder::new(Arc::new(backlog), Arc::new(publisher))
    }

    /// Looks for messages now. Call it after a commit, to save the wait for the next look.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Begins no further message, lets those on the way end, settles them and returns the keys.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("runs", &!self.task.is_empty())
            .finish_non_exhaustive()
    }
}
