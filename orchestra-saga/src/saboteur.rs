//! Stores that break one law each, to prove that the suite notices.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;

use crate::error::{ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{Partition, SagaId, Version};
use crate::status::Status;
use crate::store::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Position, SagaStore, Snapshot, Summary, Timer,
};

/// What a [`Saboteur`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The end of a long log is lost.
    LosesTheLastEvent,
    /// The end of a long log is read in another order.
    ReordersEvents,
    /// A batch is appended whatever version it expects.
    IgnoresTheVersion,
    /// A refused batch leaves its first event behind.
    LeavesHalf,
    /// A claim repeats the one before.
    RepeatsTheEpoch,
    /// Older owners may write.
    IgnoresTheEpoch,
    /// Any claim serves for every partition.
    IgnoresThePartition,
    /// Start keys are not kept.
    LosesTheStartKey,
    /// Timers are not kept.
    LosesTimers,
    /// Timers come in the wrong order.
    ReversesTimers,
    /// Lists show every saga as started.
    ListsOldStatus,
    /// Lists show the sagas of every definition.
    ListsEveryDefinition,
    /// Only the first snapshot is kept.
    KeepsTheFirstSnapshot,
    /// An unknown saga has the events of another.
    MixesSagas,
    /// A partition is leased although somebody has it.
    LendsTwice,
    /// A lease is renewed although somebody else has the partition.
    RenewsWhatWasLost,
    /// A lease never ends by itself.
    LendsForEver,
    /// The stream passes some events by.
    SkipsInTheStream,
    /// A definition may be replaced.
    KeepsTheLastDefinition,
    /// A purge goes by the time alone, or not even by that.
    PurgesTooMuch,
}

impl Fault {
    /// Every fault, and the law that it breaks.
    pub const ALL: &[(Self, &'static str)] = &[
        (
            Self::LosesTheLastEvent,
            "appended_events_are_loaded_in_order",
        ),
        (Self::ReordersEvents, "appended_events_are_loaded_in_order"),
        (Self::IgnoresTheVersion, "a_stale_version_is_refused"),
        (Self::LeavesHalf, "a_refused_batch_leaves_nothing"),
        (Self::RepeatsTheEpoch, "a_claim_raises_the_epoch"),
        (Self::IgnoresTheEpoch, "an_older_epoch_is_refused"),
        (Self::IgnoresThePartition, "another_partition_is_refused"),
        (Self::LosesTheStartKey, "a_start_key_starts_once"),
        (Self::LosesTimers, "due_timers_come_in_order"),
        (Self::ReversesTimers, "due_timers_come_in_order"),
        (Self::ListsOldStatus, "a_list_shows_the_last_status"),
        (Self::ListsEveryDefinition, "a_list_shows_the_last_status"),
        (Self::KeepsTheFirstSnapshot, "the_last_snapshot_is_read"),
        (Self::MixesSagas, "sagas_do_not_mix"),
        (Self::LendsTwice, "a_lease_keeps_others_out"),
        (
            Self::RenewsWhatWasLost,
            "a_lease_that_was_lost_is_not_renewed",
        ),
        (Self::LendsForEver, "a_lease_ends_with_its_term"),
        (Self::SkipsInTheStream, "the_stream_passes_every_event_once"),
        (
            Self::KeepsTheLastDefinition,
            "a_definition_is_kept_as_it_was_first",
        ),
        (Self::PurgesTooMuch, "a_purge_forgets_what_ended_before"),
    ];
}

/// The shortest log whose end is tampered with.
const LONG: usize = 4;

/// A store that does one thing wrong and all else right.
#[derive(Debug)]
pub struct Saboteur<S> {
    store: S,
    fault: Fault,
    claims: Mutex<Vec<Claim>>,
    sagas: Mutex<Vec<SagaId>>,
    definitions: Mutex<HashMap<Arc<str>, Blueprint>>,
}

impl<S: SagaStore> Saboteur<S> {
    /// This store with this fault.
    pub fn new(store: S, fault: Fault) -> Self {
        Self {
            store,
            fault,
            claims: Mutex::default(),
            sagas: Mutex::default(),
            definitions: Mutex::default(),
        }
    }

    fn latest(&self, partition: Partition) -> Option<Claim> {
        let claims = self.claims.lock();
        claims
            .iter()
            .rev()
            .find(|claim| claim.partition == partition)
            .copied()
    }

    /// The claim of another partition, for a store that does not tell them apart.
    fn elsewhere(&self, partition: Partition) -> Option<Claim> {
        let claims = self.claims.lock();
        let mut others = claims.iter().rev();
        others
            .find(|claim| self.fault == Fault::IgnoresThePartition && claim.partition != partition)
            .copied()
    }

    async fn version(&self, saga: SagaId) -> Result<Version> {
        let events = self.store.load(saga, Version(0)).await?;
        Ok(events.last().map(|last| last.version).unwrap_or_default())
    }

    /// What is written of a batch that was refused as stale.
    async fn after_refusal(&self, claim: Claim, mut append: Append) -> Result<Option<Version>> {
        append.expected = self.version(append.saga).await?;
        match self.fault {
            Fault::IgnoresTheVersion => self.store.append(claim, &append).await.map(Some),
            Fault::LeavesHalf if append.expected > Version(0) => {
                append.events.truncate(1);
                self.store.append(claim, &append).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl<S: SagaStore> SagaStore for Saboteur<S> {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        let last = self.latest(partition);
        if let (Fault::RepeatsTheEpoch, Some(last)) = (self.fault, last) {
            return Ok(last);
        }
        let claim = self.store.claim(partition, owner).await?;
        self.claims.lock().push(claim);
        Ok(claim)
    }

    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>> {
        let term = match self.fault {
            Fault::LendsForEver => Duration::from_secs(3600),
            _ => term,
        };
        match self.store.lease(partition, owner, term).await? {
            None if self.fault == Fault::LendsTwice && self.latest(partition).is_none() => {
                self.store.claim(partition, owner).await.map(Some)
            }
            lease => Ok(lease),
        }
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        match self.store.renew(claim, term).await {
            Err(_) if self.fault == Fault::RenewsWhatWasLost => Ok(()),
            answer => answer,
        }
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.store.release(claim).await
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        self.store.holders().await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let mut append = append.clone();
        let mut claim = claim;
        match self.fault {
            Fault::IgnoresTheEpoch => claim = self.latest(claim.partition).unwrap_or(claim),
            Fault::LosesTheStartKey => append.start_key = None,
            Fault::LosesTimers => append.wake = None,
            _ => {}
        }
        self.sagas.lock().push(append.saga);
        match self.store.append(claim, &append).await {
            Err(error) if error.kind() == ErrorKind::StaleVersion => {
                let written = self.after_refusal(claim, append).await?;
                written.ok_or(error)
            }
            Err(error) if error.kind() == ErrorKind::ForeignPartition => {
                match self.elsewhere(claim.partition) {
                    Some(owner) => self.store.append(owner, &append).await,
                    None => Err(error),
                }
            }
            answer => answer,
        }
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        let mut events = self.store.load(saga, after).await?;
        let long = events.len() >= LONG;
        match self.fault {
            Fault::LosesTheLastEvent if long => drop(events.pop()),
            Fault::ReordersEvents if long => {
                let last = events.len() - 1;
                events.swap(last - 1, last);
            }
            Fault::MixesSagas if events.is_empty() && after == Version(0) => {
                let other = self.sagas.lock().first().copied();
                if let Some(other) = other {
                    return self.store.load(other, after).await;
                }
            }
            _ => {}
        }
        Ok(events)
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
        let mut timers = self.store.timers(partition, now, limit).await?;
        if self.fault == Fault::ReversesTimers {
            timers.reverse();
        }
        Ok(timers)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let mut filter = filter.clone();
        if self.fault == Fault::ListsEveryDefinition {
            filter.definition = None;
        }
        let mut found = self.store.list(&filter).await?;
        if self.fault == Fault::ListsOldStatus {
            for line in &mut found {
                line.status = Status::Started;
            }
        }
        Ok(found)
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        let first = self.store.load_snapshot(saga).await?;
        if self.fault == Fault::KeepsTheFirstSnapshot && first.is_some() {
            return Ok(());
        }
        self.store.save_snapshot(saga, snapshot).await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        self.store.load_snapshot(saga).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        let mut entries = self.store.read(after, limit).await?;
        if self.fault == Fault::SkipsInTheStream && entries.len() > 2 {
            drop(entries.remove(1));
        }
        Ok(entries)
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        if self.fault == Fault::KeepsTheLastDefinition {
            let hash = Arc::clone(&blueprint.hash);
            self.definitions.lock().insert(hash, blueprint.clone());
        }
        self.store.define(blueprint).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        let last = self.definitions.lock().get(hash).cloned();
        match last {
            Some(last) => Ok(Some(last)),
            None => self.store.definition(hash).await,
        }
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        let before = match self.fault {
            Fault::PurgesTooMuch => Timestamp::from_unix_nanos(u64::MAX),
            _ => before,
        };
        self.store.purge(claim, before, limit).await
    }
}
