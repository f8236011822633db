//! What sagas carry, written as a codec of yours wants it: encrypted, say.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orchestra_core::{IdempotencyKey, Timestamp};

use super::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Position, SagaStore, Snapshot, Summary, Timer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{Partition, SagaId, Version};
use crate::payload::Payload;

/// Turns what sagas carry into what a store keeps, and back.
///
/// Laws: `decode(saga, encode(saga, bytes)) = bytes`, also by a later version and in another process.
/// `decode` refuses what `encode` did not make, rather than to guess. Neither blocks for long: both are called
/// on the way of every append and every read, so keys are in memory.
///
/// An authenticated cipher does well to bind the id of the saga, so that what one saga carries cannot be
/// put into another.
pub trait Codec: fmt::Debug + Send + Sync {
    /// What the store is to keep.
    fn encode(&self, saga: SagaId, plain: &[u8]) -> Result<Vec<u8>>;

    /// What was given to `encode`.
    fn decode(&self, saga: SagaId, kept: &[u8]) -> Result<Vec<u8>>;
}

/// A store whose payloads and snapshots go through a [`Codec`]: inputs, outputs, signals, heartbeats and what
/// operators resolve.
///
/// Everything else stays readable, for the store and for people: ids, names of steps, definitions, moments,
/// start keys, attributes to search by, reasons of failures. A store is read with the codec that it was
/// written with; what that refuses is [`Corrupt`](ErrorKind::Corrupt), except a snapshot, in place of which
/// the log is read. A payload grows by a third, since what a codec makes is kept as base64.
///
/// ```
/// use orchestra_saga::store::{Codec, EncodedStore};
/// use orchestra_saga::{Call, Definition, Executor, MemoryStore, Result, SagaId, Start};
///
/// #[derive(Debug)]
/// struct Mirror;
///
/// impl Codec for Mirror {
///     fn encode(&self, _: SagaId, plain: &[u8]) -> Result<Vec<u8>> {
///         Ok(plain.iter().rev().copied().collect())
///     }
///
///     fn decode(&self, _: SagaId, kept: &[u8]) -> Result<Vec<u8>> {
///         Ok(kept.iter().rev().copied().collect())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let mut d = Definition::builder("greeting", "1");
/// let name = d.input::<String>();
/// d.step("greet", name, |_: Call, name: String| async move { Ok(format!("hello {name}")) }).pivot();
/// let store = EncodedStore::new(MemoryStore::default(), Mirror);
/// let executor = Executor::builder(store).definition(d.build()?).build().await?;
/// let view = executor.run(Start::of("greeting").input(&"ada")?).await?;
/// assert_eq!(view.output("greet").map(|output| output.as_str()), Some(r#""hello ada""#));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EncodedStore<S, C> {
    store: S,
    codec: C,
}

impl<S: SagaStore, C: Codec> EncodedStore<S, C> {
    /// The store, with payloads that go through the codec.
    pub const fn new(store: S, codec: C) -> Self {
        Self { store, codec }
    }

    /// The store with what it keeps as it keeps it.
    pub const fn inner(&self) -> &S {
        &self.store
    }

    fn encode(&self, saga: SagaId, payload: &mut Payload) -> Result<()> {
        let kept = self.codec.encode(saga, payload.as_str().as_bytes())?;
        let text = Payload::of(&STANDARD.encode(kept));
        *payload = text.map_err(|source| unreadable(saga, &source))?;
        Ok(())
    }

    fn decode(&self, saga: SagaId, payload: &mut Payload) -> Result<()> {
        let text: String = payload.read().map_err(|source| unreadable(saga, &source))?;
        let kept = STANDARD
            .decode(text)
            .map_err(|source| unreadable(saga, &source))?;
        let plain = self.codec.decode(saga, &kept)?;
        let plain = String::from_utf8(plain).map_err(|source| unreadable(saga, &source))?;
        let plain = Payload::parse(&plain);
        *payload = plain.map_err(|source| unreadable(saga, &source))?;
        Ok(())
    }

    fn read_one(&self, saga: SagaId, recorded: &mut Recorded) -> Result<()> {
        match recorded.event.payload_mut() {
            Some(payload) => self.decode(saga, payload),
            None => Ok(()),
        }
    }
}

fn unreadable(saga: SagaId, source: &dyn fmt::Display) -> Error {
    let message = format!("a payload is not what the codec makes: {source}");
    Error::new(ErrorKind::Corrupt, message).of(saga)
}

#[async_trait]
impl<S: SagaStore, C: Codec> SagaStore for EncodedStore<S, C> {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        self.store.claim(partition, owner).await
    }

    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>> {
        self.store.lease(partition, owner, term).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.store.renew(claim, term).await
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.store.release(claim).await
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        self.store.holders().await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let mut append = append.clone();
        for event in &mut append.events {
            if let Some(payload) = event.payload_mut() {
                self.encode(append.saga, payload)?;
            }
        }
        self.store.append(claim, &append).await
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        let mut log = self.store.load(saga, after).await?;
        for recorded in &mut log {
            self.read_one(saga, recorded)?;
        }
        Ok(log)
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        self.store.find_start(key).await
    }

    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>> {
        self.store.timers(partition, now, limit).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        self.store.list(filter).await
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        let bytes = self.codec.encode(saga, &snapshot.bytes)?;
        let kept = Snapshot::new(snapshot.version, bytes);
        self.store.save_snapshot(saga, kept).await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        let kept = self.store.load_snapshot(saga).await?;
        let Some(kept) = kept.filter(Snapshot::is_intact) else {
            return Ok(None);
        };
        match self.codec.decode(saga, &kept.bytes) {
            Ok(bytes) => Ok(Some(Snapshot::new(kept.version, bytes))),
            Err(error) => {
                tracing::warn!(%saga, %error, "snapshot not readable: the log is read");
                Ok(None)
            }
        }
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        let mut entries = self.store.read(after, limit).await?;
        for entry in &mut entries {
            self.read_one(entry.saga, &mut entry.recorded)?;
        }
        Ok(entries)
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        self.store.define(blueprint).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        self.store.definition(hash).await
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        self.store.purge(claim, before, limit).await
    }
}
