use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Listener, Silent, TokioClock};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::drive::{self, Shared};
use super::{Notice, Poison, Relay};
use crate::outbox::judge::Rules;
use crate::outbox::{Backlog, Batch, Publisher};

pub(super) type Listening = Arc<dyn for<'a> Listener<Notice<'a>>>;

const TRIES: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// How a relay works.
///
/// ```no_run
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use orchestra_saga::outbox::relay::Notice;
/// use orchestra_saga::outbox::{Poison, Relay, memory};
///
/// # async fn relay() {
/// let relay = Relay::builder(memory::Outbox::default(), memory::Publisher::default())
///     .tries(NonZeroU32::MIN)
///     .poison(Poison::Hold)
///     .timeout(Duration::from_secs(2))
///     .listener(|notice: &Notice<'_>| {
///         if let Notice::Parked { message, error } = notice {
///             eprintln!("message {} is parked: {error}", message.id());
///         }
///     })
///     .start();
/// # relay.shutdown().await;
/// # }
/// ```
#[must_use]
pub struct Builder {
    backlog: Arc<dyn Backlog>,
    publisher: Arc<dyn Publisher>,
    listener: Listening,
    batch: Batch,
    rules: Rules,
    timeout: Duration,
    poll: Duration,
    rng: fastrand::Rng,
}

impl Builder {
    pub(super) fn new(backlog: Arc<dyn Backlog>, publisher: Arc<dyn Publisher>) -> Self {
        Self {
            backlog,
            publisher,
            listener: Arc::new(Silent),
            batch: Batch::new(format!("process {}", std::process::id())),
            rules: Rules {
                tries: TRIES,
                backoff: Backoff::exponential(Duration::from_millis(100), 2.0),
                poison: Poison::default(),
            },
            timeout: Duration::from_secs(10),
            poll: Duration::from_millis(500),
            rng: fastrand::Rng::new(),
        }
    }

    /// How much is taken at a time and for how long. Nothing is published in the last quarter of the
    /// term, so that another relay cannot have the key yet.
    pub fn batch(mut self, batch: Batch) -> Self {
        self.batch = batch;
        self
    }

    /// How often a message may fail before it is parked: 10 times unless told otherwise.
    pub const fn tries(mut self, tries: NonZeroU32) -> Self {
        self.rules.tries = tries;
        self
    }

    /// How long a key waits after its message failed, and the relay after an outage: full jitter below
    /// 100 ms, doubled up to a minute, unless told otherwise.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.rules.backoff = backoff;
        self
    }

    /// What a key does while a message of it is parked.
    pub const fn poison(mut self, poison: Poison) -> Self {
        self.rules.poison = poison;
        self
    }

    /// How long a message may take before it counts as unanswered: 10 seconds unless told otherwise.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often it looks for messages when there are none: twice a second unless told otherwise.
    pub const fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Whom it tells what happens.
    pub fn listener(mut self, listener: impl for<'a> Listener<Notice<'a>> + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// The draws of its jitter, for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = fastrand::Rng::with_seed(seed);
        self
    }

    /// Begins, inside a tokio runtime.
    pub fn start(self) -> Relay {
        let (stop, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
        let shared = Shared {
            backlog: self.backlog,
            publisher: self.publisher,
            listener: self.listener,
            batch: self.batch,
            rules: self.rules,
            timeout: self.timeout,
            poll: self.poll.max(Duration::from_millis(1)),
            clock: TokioClock::new(),
            accepted: parking_lot::Mutex::default(),
            stop: stop.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(drive::run(Arc::new(shared), self.rng, Arc::clone(&wake)));
        Relay { task, stop, wake }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("backlog", &self.backlog)
            .field("publisher", &self.publisher)
            .field("batch", &self.batch)
            .field("rules", &self.rules)
            .field("timeout", &self.timeout)
            .field("poll", &self.poll)
            .finish_non_exhaustive()
    }
}
