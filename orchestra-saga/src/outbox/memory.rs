//! An outbox and a broker in memory, for tests and for what need not survive the process.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{Clock, Monotonic, Timestamp, TokioClock};
use parking_lot::Mutex;

use super::{Backlog, Batch, Lane, Message, MessageId, Next, Parked, Settled};
use crate::error::{Error, ErrorKind, Result};

/// The messages that an [`Outbox`] or [`Publisher`] holds unless told otherwise.
pub const CAPACITY: usize = 65_536;

/// A [`Backlog`] in memory. A clone is the same backlog.
///
/// ```
/// use orchestra_saga::outbox::memory::Outbox;
/// use orchestra_saga::outbox::{Backlog, Batch, Message};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let outbox = Outbox::new(100);
/// outbox.add(&[Message::new("orders", "order-7", "paid")?])?;
/// let lanes = outbox.claim(&Batch::new("reader")).await?;
/// assert_eq!(lanes[0].messages[0].payload(), b"paid".as_slice());
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Outbox {
    capacity: usize,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<Arc<str>, Row>,
    parked: Vec<Parked>,
    ids: HashSet<MessageId>,
    loans: i64,
    turns: u64,
}

/// A key with something to send.
struct Row {
    messages: VecDeque<Message>,
    /// None while it is held. The second is the order among those due at once.
    due: Option<(Monotonic, u64)>,
    lent: Option<(Monotonic, i64)>,
    failures: u32,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("capacity", &self.capacity)
            .field("messages", &self.len())
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// An outbox of so many messages, the parked ones included.
    pub fn new(capacity: usize) -> Self {
        Self::with_clock(capacity, Arc::new(TokioClock::new()))
    }

    /// An outbox whose terms and delays go by this clock.
    pub fn with_clock(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        let state = Arc::default();
        Self {
            capacity,
            clock,
            state,
        }
    }

    /// Writes messages: all, or [`ErrorKind::Full`]. An id that is there is not written again.
    pub fn add(&self, messages: &[Message]) -> Result<()> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.ids.len() + messages.len() > self.capacity {
            let message = format!("the outbox holds {} messages", self.capacity);
            return Err(Error::new(ErrorKind::Full, message));
        }
        for message in messages {
            if state.ids.insert(message.id().clone()) {
                state
                    .lane(message.shared_key(), now)
                    .messages
                    .push_back(message.clone());
            }
        }
        Ok(())
    }

    /// How many messages it holds, the parked ones included.
    pub fn len(&self) -> usize {
        self.state.lock().ids.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn unpark(&self, id: &MessageId, again: bool) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(at) = state
            .parked
            .iter()
            .position(|parked| parked.message.id() == id)
        else {
            return false;
        };
        let message = state.parked.remove(at).message;
        if !again {
            state.ids.remove(id);
        }
        let lane = state.lane(message.shared_key(), now);
        if lane.due.is_none() {
            lane.due = Some((now, 0));
        }
        if again {
            lane.failures = 0;
            lane.messages.push_front(message);
        } else if lane.messages.is_empty() && lane.lent.is_none() {
            state.lanes.remove(message.key());
        }
        true
    }
}

impl State {
    fn lane(&mut self, key: Arc<str>, now: Monotonic) -> &mut Row {
        self.turns += 1;
        let due = Some((now, self.turns));
        self.lanes.entry(key).or_insert_with(|| Row {
            messages: VecDeque::new(),
            due,
            lent: None,
            failures: 0,
        })
    }

    /// Does with a key as it is told; false if the loan is over.
    fn settle(&mut self, settled: &Settled, now: Monotonic) -> bool {
        self.turns += 1;
        let turn = self.turns;
        let Some(lane) = self.lanes.get_mut(&settled.key) else {
            return false;
        };
        if !lane
            .lent
            .is_some_and(|(end, token)| token == settled.token && now < end)
        {
            return false;
        }
        lane.lent = None;
        lane.failures = 0;
        lane.due = Some((now, turn));
        for id in &settled.sent {
            lane.messages.retain(|message| message.id() != id);
            self.ids.remove(id);
        }
        match &settled.next {
            Next::Due => {}
            Next::After { delay, failures } => {
                lane.failures = *failures;
                lane.due = Some((now + *delay, turn));
            }
            Next::Park { id, error, holds } => {
                let found = lane.messages.iter().position(|message| message.id() == id);
                if let Some(message) = found.and_then(|at| lane.messages.remove(at)) {
                    let at = Timestamp::from_unix_nanos(now.as_nanos());
                    self.parked.push(Parked::new(message, error.clone(), at));
                }
                if *holds {
                    lane.due = None;
                }
            }
        }
        if lane.messages.is_empty() && lane.due.is_some() {
            self.lanes.remove(&settled.key);
        }
        true
    }
}

#[async_trait]
impl Backlog for Outbox {
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let mut due: Vec<_> = state
            .lanes
            .iter()
            .filter(|(_, lane)| lane.lent.is_none_or(|(end, _)| end <= now))
            .filter_map(|(key, lane)| Some((lane.due?, Arc::clone(key))))
            .filter(|((at, _), _)| *at <= now)
            .collect();
        due.sort();
        due.truncate(usize::try_from(batch.lanes).unwrap_or(usize::MAX));
        let mut lent = Vec::with_capacity(due.len());
        for (_, key) in due {
            state.loans += 1;
            let token = state.loans;
            if let Some(lane) = state.lanes.get_mut(&key) {
                lane.lent = Some((now + batch.term, token));
                lent.push(Lane::new(key, token, lane.failures, lane.first(batch)));
            }
        }
        Ok(lent)
    }

    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let lost = settled.iter().filter(|one| !state.settle(one, now));
        Ok(lost.map(|one| Arc::clone(&one.key)).collect())
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(self
            .state
            .lock()
            .parked
            .iter()
            .take(limit)
            .cloned()
            .collect())
    }

    async fn retry(&self, id: &MessageId) -> Result<bool> {
        Ok(self.unpark(id, true))
    }

    async fn discard(&self, id: &MessageId) -> Result<bool> {
        Ok(self.unpark(id, false))
    }
}

impl Row {
    fn first(&self, batch: &Batch) -> Vec<Message> {
        let mut bytes = 0;
        let messages = usize::try_from(batch.messages).unwrap_or(usize::MAX);
        let limit = usize::try_from(batch.bytes).unwrap_or(usize::MAX);
        let taken = self.messages.iter().take(messages).take_while(|message| {
            let fits = bytes < limit;
            bytes += message.payload().len();
            fits
        });
        taken.cloned().collect()
    }
}

/// A broker in memory: what was published, in its order. A clone is the same broker.
///
/// It keeps messages until they are taken, and shows each id once while it remembers it: as many ids as
/// it holds messages. Full, it is [`ErrorKind::Unavailable`].
///
/// ```
/// use orchestra_saga::outbox::memory::Publisher;
/// use orchestra_saga::outbox::{Message, Publisher as _};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let broker = Publisher::new(100);
/// let paid = Message::new("orders", "order-7", "paid")?;
/// broker.publish(&paid).await?;
/// broker.publish(&paid).await?;
/// assert_eq!(broker.take(), [paid]);
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Publisher {
    capacity: usize,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    messages: Vec<Message>,
    recent: VecDeque<MessageId>,
    known: HashSet<MessageId>,
}

impl Publisher {
    /// A broker of so many messages.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            log: Arc::default(),
        }
    }

    /// What was published and not yet taken, in its order.
    pub fn published(&self) -> Vec<Message> {
        self.log.lock().messages.clone()
    }

    /// Takes what was published.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.log.lock().messages)
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

#[async_trait]
impl super::Publisher for Publisher {
    async fn publish(&self, message: &Message) -> Result<()> {
        let mut log = self.log.lock();
        if log.known.contains(message.id()) {
            return Ok(());
        }
        if log.messages.len() >= self.capacity {
            let text = format!("the broker holds {} messages", self.capacity);
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        if log.recent.len() >= self.capacity
            && let Some(oldest) = log.recent.pop_front()
        {
            log.known.remove(&oldest);
        }
        log.recent.push_back(message.id().clone());
        log.known.insert(message.id().clone());
        log.messages.push(message.clone());
        Ok(())
    }

    fn deduplicates(&self) -> bool {
        true
    }
}
