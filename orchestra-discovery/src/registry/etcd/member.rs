//! Registering, renewing, changing and giving back, each guarded by the revision that it was decided on.

use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use orchestra_core::{InstanceId, ServiceName};

use super::Shared;
use super::record::{self, Record};
use super::snapshot::unsigned;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Instance, Override, Registration, Status};
use crate::registry::Lease;

/// How often a change is decided anew because somebody else's came first.
const ATTEMPTS: u32 = 16;

/// An instance as it is stored.
struct Held {
    instance: Box<Instance>,
    /// The revision of the last change of its key.
    revision: i64,
    /// The lease that etcd holds it under.
    lease: i64,
}

/// What is decided about an id, and the revision that did.
#[derive(Default)]
struct Decided {
    forced: Option<Override>,
    revision: i64,
}

impl Decided {
    fn read(kv: Option<&KeyValue>) -> Self {
        kv.map_or_else(Self::default, |kv| Self {
            forced: record::read_override(kv.value()),
            revision: kv.mod_revision(),
        })
    }
}

impl Shared {
    pub(super) async fn register(&self, asked: &Registration) -> Result<Lease> {
        let seconds = record::seconds(asked, self.max_ttl)?;
        record::check_size(asked)?;
        let (lease, ttl) = self.grant(seconds).await?;
        // Most ids have no override: that is tried first.
        let mut decided = Decided::default();
        for _ in 0..ATTEMPTS {
            let answer = self.put(asked, lease, &decided).await?;
            let first = answer.op_responses().into_iter().next();
            match first {
                Some(TxnOpResponse::Put(put)) => {
                    if let Some(ghost) = put.prev_key() {
                        self.bury(ghost, lease).await;
                    }
                    let header = answer.header();
                    let revision = header.map_or(0, etcd_client::ResponseHeader::revision);
                    let incarnation = Incarnation::new(unsigned(revision));
                    let (service, id) = (asked.service.clone(), asked.id.clone());
                    return Ok(Lease::new(service, id, incarnation, ttl));
                }
                Some(TxnOpResponse::Get(got)) => decided = Decided::read(got.kvs().first()),
                _ => return Err(strange("register an instance")),
            }
        }
        Err(contended(&asked.service, &asked.id))
    }

    async fn grant(&self, seconds: i64) -> Result<(i64, Duration)> {
        let granted = self
            .link
            .call("grant a lease", |mut peer| async move {
                peer.lease.grant(seconds, None).await
            })
            .await?;
        Ok((granted.id(), Duration::from_secs(unsigned(granted.ttl()))))
    }

    async fn put(
        &self,
        asked: &Registration,
        lease: i64,
        decided: &Decided,
    ) -> Result<TxnResponse> {
        let key = self.keys.instance(&asked.service, &asked.id);
        let forced = self.keys.forced(&asked.service, &asked.id);
        let value = Record::new(asked, decided.forced).encode()?;
        let options = PutOptions::new().with_lease(lease).with_prev_key();
        let txn = Txn::new()
            .when([unchanged(&forced, decided.revision)])
            .and_then([TxnOp::put(key, value, Some(options))])
            .or_else([TxnOp::get(forced, None)]);
        self.commit("register an instance", txn).await
    }

    /// Revokes the lease of what was replaced; the key is not under it any more.
    async fn bury(&self, ghost: &KeyValue, heir: i64) {
        let read = self
            .keys
            .read(ghost.key(), ghost.value(), unsigned(ghost.mod_revision()));
        // The lease of a foreign value may hold other keys. Our own is there when an answer was lost.
        if read.is_some() && ghost.lease() != heir {
            self.revoke(ghost.lease()).await;
        }
    }

    /// Best effort: a lease that is not revoked lapses.
    async fn revoke(&self, lease: i64) {
        if lease == 0 {
            return;
        }
        let revoked = self
            .link
            .call("revoke a lease", |mut peer| async move {
                peer.lease.revoke(lease).await
            })
            .await;
        match revoked {
            Err(error) if error.kind() != ErrorKind::LeaseLost => {
                tracing::debug!(%error, lease, "a lease is left to lapse");
            }
            _ => {}
        }
    }

    pub(super) async fn renew(&self, lease: &Lease) -> Result<()> {
        let held = self.owned(lease).await?.lease;
        if held == 0 {
            return Err(lost(lease));
        }
        self.link
            .call("renew a lease", |mut peer| async move {
                peer.lease.keep_alive(held).await.map(drop)
            })
            .await
    }

    pub(super) async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let mut held = self.owned(lease).await?;
            if held.instance.status == status {
                return Ok(());
            }
            held.instance.status = status;
            let record = Record::Listed(held.instance);
            if self.change(lease, held.revision, &record).await? {
                return Ok(());
            }
        }
        Err(contended(&lease.service, &lease.id))
    }

    pub(super) async fn deregister(&self, lease: &Lease) -> Result<()> {
        let record = Record::Gone(lease.incarnation);
        for _ in 0..ATTEMPTS {
            let held = match self.owned(lease).await {
                Ok(held) => held,
                Err(error) => match error.kind() {
                    ErrorKind::LeaseLost | ErrorKind::Replaced => return Ok(()),
                    _ => return Err(error),
                },
            };
            if self.change(lease, held.revision, &record).await? {
                self.revoke(held.lease).await;
                return Ok(());
            }
        }
        Err(contended(&lease.service, &lease.id))
    }

    /// Puts another value under the same lease, if the key is still as it was.
    async fn change(&self, lease: &Lease, revision: i64, record: &Record) -> Result<bool> {
        let key = self.keys.instance(&lease.service, &lease.id);
        let put = TxnOp::put(&*key, record.encode()?, Some(keeping_lease()));
        let txn = Txn::new().when([unchanged(&key, revision)]).and_then([put]);
        let answer = self.commit("change an instance", txn).await?;
        Ok(answer.succeeded())
    }

    pub(super) async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        let (key, own) = (
            self.keys.instance(service, id),
            self.keys.forced(service, id),
        );
        for _ in 0..ATTEMPTS {
            let read = Txn::new().and_then([TxnOp::get(&*key, None), TxnOp::get(&*own, None)]);
            let answer = self.commit("read an override", read).await?;
            let [instance, decided] = &*gets(&answer)? else {
                return Err(strange("read an override"));
            };
            let decided = Decided::read(decided.as_ref());
            let revision = instance.as_ref().map_or(0, KeyValue::mod_revision);
            let mut acts = Vec::with_capacity(2);
            match forced {
                Some(forced) if decided.forced != Some(forced) => {
                    acts.push(TxnOp::put(&*own, record::write_override(forced)?, None));
                }
                None if decided.revision != 0 => acts.push(TxnOp::delete(&*own, None)),
                _ => {}
            }
            if let Some(mut held) = instance.as_ref().and_then(|kv| self.listed(kv))
                && held.instance.forced != forced
            {
                held.instance.forced = forced;
                let value = Record::Listed(held.instance).encode()?;
                acts.push(TxnOp::put(&*key, value, Some(keeping_lease())));
            }
            if acts.is_empty() {
                return Ok(());
            }
            let guards = [unchanged(&key, revision), unchanged(&own, decided.revision)];
            let txn = Txn::new().when(guards).and_then(acts);
            if self.commit("set an override", txn).await?.succeeded() {
                return Ok(());
            }
        }
        Err(contended(service, id))
    }

    /// What the lease holds.
    async fn owned(&self, lease: &Lease) -> Result<Held> {
        let key = self.keys.instance(&lease.service, &lease.id);
        let answer = self
            .link
            .call("read an instance", |mut peer| {
                let key = key.clone();
                async move { peer.kv.get(key, None).await }
            })
            .await?;
        let held = answer.kvs().first().and_then(|kv| self.listed(kv));
        let held = held.ok_or_else(|| lost(lease))?;
        let current = held.instance.incarnation;
        if current == lease.incarnation {
            return Ok(held);
        }
        let message = format!(
            "incarnation {} of instance {} of service {} was replaced by {current}",
            lease.incarnation, lease.id, lease.service
        );
        Err(Error::new(ErrorKind::Replaced, message))
    }

    fn listed(&self, kv: &KeyValue) -> Option<Held> {
        let revision = kv.mod_revision();
        match self.keys.read(kv.key(), kv.value(), unsigned(revision))? {
            Record::Listed(instance) => Some(Held {
                instance,
                revision,
                lease: kv.lease(),
            }),
            Record::Gone(_) => None,
        }
    }

    async fn commit(&self, what: &str, txn: Txn) -> Result<TxnResponse> {
        self.link
            .call(what, |mut peer| {
                let txn = txn.clone();
                async move { peer.kv.txn(txn).await }
            })
            .await
    }
}

/// A key that is not there has revision 0.
fn unchanged(key: &str, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}

fn keeping_lease() -> PutOptions {
    PutOptions::new().with_ignore_lease()
}

/// What each read of a transaction found.
fn gets(answer: &TxnResponse) -> Result<Vec<Option<KeyValue>>> {
    let found = |response| match response {
        TxnOpResponse::Get(mut got) => Ok(got.take_kvs().into_iter().next()),
        _ => Err(strange("read")),
    };
    answer.op_responses().into_iter().map(found).collect()
}

fn lost(lease: &Lease) -> Error {
    let message = format!(
        "the lease of instance {} of service {} is gone",
        lease.id, lease.service
    );
    Error::new(ErrorKind::LeaseLost, message)
}

fn contended(service: &ServiceName, id: &InstanceId) -> Error {
    let message = format!("instance {id} of service {service} is changed by too many at once");
    Error::new(ErrorKind::Unavailable, message)
}

fn strange(what: &str) -> Error {
    let message = format!("etcd gave an answer that makes no sense when asked to {what}");
    Error::new(ErrorKind::Protocol, message)
}
