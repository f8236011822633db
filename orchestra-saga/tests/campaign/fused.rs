//! A store whose process dies before or after what it was told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Partition, Position, Recorded, Result, SagaId,
    SagaStore, Snapshot, Summary, Timer, Version,
};

use crate::fuse::Fuse;

#[derive(Debug)]
pub(crate) struct Fused {
    pub(crate) store: Arc<dyn SagaStore>,
    pub(crate) fuse: Arc<Fuse>,
}

impl Fused {
    async fn around<T>(&self, what: &str, operation: impl Future<Output = T>) -> T {
        self.fuse.at("before", what);
        let done = operation.await;
        self.fuse.at("after", what);
        done
    }
}

#[async_trait]
impl SagaStore for Fused {
    async fn claim(&self, of: Partition, owner: &str) -> Result<Claim> {
        self.around("claim", self.store.claim(of, owner)).await
    }

    async fn lease(&self, of: Partition, owner: &str, term: Duration) -> Result<Option<Claim>> {
        let lease = self.store.lease(of, owner, term);
        self.around("lease", lease).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.around("renew", self.store.renew(claim, term)).await
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.around("release", self.store.release(claim)).await
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        self.around("holders", self.store.holders()).await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        for event in &append.events {
            self.fuse.at("before", event.name());
        }
        let version = self.store.append(claim, append).await?;
        for event in &append.events {
            self.fuse.at("after", event.name());
        }
        Ok(version)
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        self.around("load", self.store.load(saga, after)).await
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        self.around("find_start", self.store.find_start(key)).await
    }

    async fn timers(&self, of: Partition, now: Timestamp, limit: usize) -> Result<Vec<Timer>> {
        let timers = self.store.timers(of, now, limit);
        self.around("timers", timers).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        self.around("list", self.store.list(filter)).await
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        let saved = self.store.save_snapshot(saga, snapshot);
        self.around("save_snapshot", saved).await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        let loaded = self.store.load_snapshot(saga);
        self.around("load_snapshot", loaded).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        self.store.read(after, limit).await
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        self.around("define", self.store.define(blueprint)).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        self.store.definition(hash).await
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        self.store.purge(claim, before, limit).await
    }
}
