//! What the tests of the relay have in common: a broker that keeps what it is given, in the order in
//! which it comes, and can be told to misbehave.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_saga::outbox::memory::Outbox;
use orchestra_saga::outbox::{Message, MessageId, Publisher};
use orchestra_saga::{Error, ErrorKind, Result};
use parking_lot::Mutex;

/// What a broker does with one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Fails(ErrorKind),
    Hangs,
    Slow(Duration),
}

type Script = dyn Fn(&Message, u32) -> Mood + Send + Sync;

#[derive(Clone)]
pub(crate) struct Broker {
    script: Arc<Script>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Message>,
    attempts: HashMap<MessageId, u32>,
    flying: HashSet<String>,
    /// Keys of which two messages were on the way at once.
    collided: Vec<String>,
    most_flying: usize,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    /// The script is told the message and the number of the attempt, from 1.
    pub(crate) fn new(script: impl Fn(&Message, u32) -> Mood + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            state: Arc::default(),
        }
    }

    pub(crate) fn kind() -> Self {
        Self::new(|_, _| Mood::Takes)
    }

    /// The ids in the order in which they came, repetitions included.
    pub(crate) fn taken(&self) -> Vec<String> {
        let state = self.state.lock();
        state
            .taken
            .iter()
            .map(|message| message.id().to_string())
            .collect()
    }

    /// By key: the ids in the order in which they first came.
    pub(crate) fn first(&self) -> BTreeMap<String, Vec<String>> {
        let state = self.state.lock();
        assert_eq!(state.collided, [""; 0], "were on the way twice at once");
        let mut seen = HashSet::new();
        let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in &state.taken {
            if seen.insert(message.id()) {
                let key = message.key().to_owned();
                first.entry(key).or_default().push(message.id().to_string());
            }
        }
        first
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.state.lock().attempts.values().sum()
    }

    pub(crate) fn most_flying(&self) -> usize {
        self.state.lock().most_flying
    }

    fn begin(&self, message: &Message) -> Mood {
        let mut state = self.state.lock();
        let attempt = state.attempts.entry(message.id().clone()).or_default();
        *attempt += 1;
        let mood = (self.script)(message, *attempt);
        // A panic here would be one of the relay's tasks, and nobody would hear of it.
        if !state.flying.insert(message.key().to_owned()) {
            state.collided.push(message.key().to_owned());
        }
        state.most_flying = state.most_flying.max(state.flying.len());
        mood
    }
}

/// Ends an attempt, also one that is given up.
struct Flight<'a>(&'a Broker, &'a str);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.state.lock().flying.remove(self.1);
    }
}

#[async_trait]
impl Publisher for Broker {
    async fn publish(&self, message: &Message) -> Result<()> {
        let mood = self.begin(message);
        let _flight = Flight(self, message.key());
        match mood {
            Mood::Takes => {}
            Mood::Slow(time) => tokio::time::sleep(time).await,
            Mood::Hangs => std::future::pending().await,
            Mood::Fails(kind) => return Err(Error::new(kind, "the broker says no")),
        }
        self.state.lock().taken.push(message.clone());
        Ok(())
    }

    fn deduplicates(&self) -> bool {
        false
    }
}

pub(crate) fn message(key: &str, number: u32) -> Message {
    let id = MessageId::new(format!("{key}-{number}")).expect("valid");
    Message::new("topic", key, "x").expect("valid").with_id(id)
}

/// So many messages of each of so many keys, the keys in turn.
pub(crate) fn filled(keys: u32, each: u32) -> Outbox {
    let outbox = Outbox::default();
    for number in 0..each {
        for key in 0..keys {
            outbox
                .add(&[message(&format!("k{key}"), number)])
                .expect("room");
        }
    }
    outbox
}

/// What the keys of [`filled`] hold.
pub(crate) fn whole(keys: u32, each: u32) -> BTreeMap<String, Vec<String>> {
    let ids = |key: u32| {
        (0..each)
            .map(move |number| format!("k{key}-{number}"))
            .collect()
    };
    (0..keys).map(|key| (format!("k{key}"), ids(key))).collect()
}

/// Waits in virtual time.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let limit = Duration::from_secs(1_000);
    assert!(
        tokio::time::timeout(limit, waiting).await.is_ok(),
        "never: {what}"
    );
}
