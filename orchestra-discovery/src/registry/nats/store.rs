//! The operations, each of them a few messages that are based on one another.

use std::collections::HashSet;
use std::sync::Arc;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use orchestra_core::{InstanceId, ServiceName};

use super::line::{Client, Line, Message, failed};
use super::message::{Gone, Grant, Held, Key, Present, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Override, Registration, Status};
use crate::registry::{Lease, record};
use crate::source::{RemovalReason, Revision, Scope, Snapshot};

/// How often a write is tried that others always come before.
const ATTEMPTS: u32 = 32;

/// What is held, as far as it is read, and what of it has no lease.
struct Survey {
    revision: u64,
    held: Vec<Held>,
    lapsed: Vec<Key>,
}

/// The last message about an instance, and what it says.
struct Last {
    sequence: u64,
    held: Option<Held>,
}

fn contended(key: &Key) -> Error {
    let message = format!(
        "too many write instance {} of service {} at once",
        key.id, key.service
    );
    Error::new(ErrorKind::Unavailable, message)
}

impl Client {
    async fn last_of(&self, line: &Line, key: &Key) -> Result<Last> {
        let message = self.last(&line.log, &self.subjects.instance(key)).await?;
        let Some(message) = message else {
            let nothing = Last {
                sequence: 0,
                held: None,
            };
            return Ok(nothing);
        };
        let sequence = message.sequence;
        let held = match Record::parse(key, &message.payload) {
            Ok(record) => Held::new(key.clone(), sequence, record),
            Err(reason) => {
                skipped(&message.subject, &reason);
                None
            }
        };
        Ok(Last { sequence, held })
    }

    /// The last message of a lease and its grant, unless it lapsed.
    async fn lease_of(&self, line: &Line, key: &Key) -> Result<Option<(u64, u64)>> {
        let message = self.last(&line.leases, &self.subjects.lease(key)).await?;
        let Some(message) = message.filter(|message| !message.is_marker) else {
            return Ok(None);
        };
        let sequence = message.sequence;
        let grant: Grant = serde_json::from_slice(&message.payload).unwrap_or_default();
        Ok(Some((sequence, grant.grant.unwrap_or(sequence))))
    }

    async fn forced_of(&self, line: &Line, key: &Key) -> Result<Option<Override>> {
        let message = self.last(&line.log, &self.subjects.forced(key)).await?;
        let Some(message) = message.filter(|message| !message.is_marker) else {
            return Ok(None);
        };
        let forced = serde_json::from_slice(&message.payload);
        Ok(forced.unwrap_or_else(|error| {
            skipped(&message.subject, &error.to_string());
            None
        }))
    }

    pub(super) async fn register(&self, registration: Registration) -> Result<Lease> {
        let line = self.line().await?;
        let key = Key::new(&registration.service, &registration.id);
        let (ttl, status) = (registration.ttl, registration.status);
        let mut present = Present {
            incarnation: None,
            grant: 0,
            status,
            forced: None,
            registration,
        };
        for _ in 0..ATTEMPTS {
            let (forced, granted, last, state) = tokio::try_join!(
                self.forced_of(&line, &key),
                self.lease_of(&line, &key),
                self.last_of(&line, &key),
                self.state(&line),
            )?;
            // A key that is there already takes no more.
            if last.sequence == 0 {
                self.has_room(&key, state.1)?;
            }
            present.forced = forced;
            let lease = self.subjects.lease(&key);
            let taken = self
                .write(&line, lease, &Grant::default(), None, Some(ttl))
                .await?;
            present.grant = taken.ok_or_else(|| contended(&key))?;
            let reason = match granted {
                Some(_) => RemovalReason::Replaced,
                None => RemovalReason::Expired,
            };
            if let Some(revision) = self.put(&line, last, &present, reason).await? {
                self.agree(&line, &key, present.forced).await?;
                let incarnation = Incarnation::new(revision);
                return Ok(Lease::new(key.service, key.id, incarnation, ttl));
            }
        }
        Err(contended(&key))
    }

    /// Writes a registration over what is there; nothing when somebody took the lease since.
    async fn put(
        &self,
        line: &Line,
        mut last: Last,
        present: &Present,
        reason: RemovalReason,
    ) -> Result<Option<u64>> {
        let registration = &present.registration;
        let key = Key::new(&registration.service, &registration.id);
        for _ in 0..ATTEMPTS {
            let ghost = last.held.as_ref();
            if ghost.is_some_and(|ghost| ghost.present.grant > present.grant) {
                return Ok(None);
            }
            let record = Record {
                gone: ghost.map(|ghost| Gone {
                    incarnation: ghost.incarnation(),
                    reason,
                }),
                present: Some(present.clone()),
            };
            let subject = self.subjects.instance(&key);
            let written = self
                .write(line, subject, &record, Some(last.sequence), None)
                .await?;
            if written.is_some() {
                return Ok(written);
            }
            last = self.last_of(line, &key).await?;
        }
        Err(contended(&key))
    }

    fn has_room(&self, key: &Key, keys: u64) -> Result<()> {
        let most = self.config.max_keys.get();
        if usize::try_from(keys).is_ok_and(|keys| keys < most) {
            return Ok(());
        }
        let message = format!(
            "no room for instance {} of service {}: {most} keys are the most",
            key.id, key.service
        );
        Err(Error::new(ErrorKind::Full, message))
    }

    /// An override may have been set between our reading it and our writing the record.
    async fn agree(&self, line: &Line, key: &Key, written: Option<Override>) -> Result<()> {
        let forced = self.forced_of(line, key).await?;
        if forced == written {
            return Ok(());
        }
        self.amend(line, key, |present| present.forced = forced)
            .await
    }

    /// Changes what is held, if anything is.
    async fn amend(
        &self,
        line: &Line,
        key: &Key,
        change: impl Fn(&mut Present) + Send,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(held) = self.last_of(line, key).await?.held else {
                return Ok(());
            };
            if self.rewrite(line, &held, &change).await? {
                return Ok(());
            }
        }
        Err(contended(key))
    }

    /// Whether nobody wrote in between.
    async fn rewrite(
        &self,
        line: &Line,
        held: &Held,
        change: &(impl Fn(&mut Present) + Send),
    ) -> Result<bool> {
        let mut present = held.present.clone();
        change(&mut present);
        if present == held.present {
            return Ok(true);
        }
        present.incarnation = Some(held.incarnation());
        let record = Record {
            gone: None,
            present: Some(present),
        };
        let subject = self.subjects.instance(&held.key);
        let written = self
            .write(line, subject, &record, Some(held.sequence), None)
            .await?;
        Ok(written.is_some())
    }

    /// What the lease holds, and the sequence and grant of the lease itself.
    async fn owned(&self, line: &Line, lease: &Lease) -> Result<(Held, u64, u64)> {
        let key = Key::new(&lease.service, &lease.id);
        let (last, granted) =
            tokio::try_join!(self.last_of(line, &key), self.lease_of(line, &key))?;
        let Some(held) = last.held else {
            return Err(record::lost(lease));
        };
        let current = held.incarnation();
        if current > lease.incarnation {
            return Err(record::replaced(lease, current));
        }
        let Some((sequence, grant)) = granted.filter(|_| current == lease.incarnation) else {
            return Err(record::lost(lease));
        };
        if grant != held.present.grant {
            return Err(record::replaced(lease, "one that is being registered"));
        }
        Ok((held, sequence, grant))
    }

    pub(super) async fn renew(&self, lease: &Lease) -> Result<()> {
        let line = self.line().await?;
        let key = Key::new(&lease.service, &lease.id);
        for _ in 0..ATTEMPTS {
            let (held, sequence, grant) = self.owned(&line, lease).await?;
            let renewed = Grant { grant: Some(grant) };
            let ttl = held.present.registration.ttl;
            let subject = self.subjects.lease(&key);
            let written = self
                .write(&line, subject, &renewed, Some(sequence), Some(ttl))
                .await?;
            if written.is_some() {
                return Ok(());
            }
        }
        Err(contended(&key))
    }

    pub(super) async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        let line = self.line().await?;
        for _ in 0..ATTEMPTS {
            let (held, ..) = self.owned(&line, lease).await?;
            let change = |present: &mut Present| present.status = status;
            if self.rewrite(&line, &held, &change).await? {
                return Ok(());
            }
        }
        Err(contended(&Key::new(&lease.service, &lease.id)))
    }

    pub(super) async fn deregister(&self, lease: &Lease) -> Result<()> {
        let line = self.line().await?;
        let key = Key::new(&lease.service, &lease.id);
        for _ in 0..ATTEMPTS {
            let (last, granted) =
                tokio::try_join!(self.last_of(&line, &key), self.lease_of(&line, &key))?;
            let ours = |held: &Held| held.incarnation() == lease.incarnation;
            let Some(held) = last.held.filter(ours) else {
                return Ok(());
            };
            let reason = match granted {
                Some(_) => RemovalReason::Deregistered,
                None => RemovalReason::Expired,
            };
            if self.remove(&line, &held, reason).await? {
                return Ok(());
            }
        }
        Err(contended(&key))
    }

    /// Whether nobody wrote in between.
    async fn remove(&self, line: &Line, held: &Held, reason: RemovalReason) -> Result<bool> {
        let record = Record::gone(held.incarnation(), reason);
        let subject = self.subjects.instance(&held.key);
        let (expected, ttl) = (Some(held.sequence), Some(self.config.remember));
        let written = self.write(line, subject, &record, expected, ttl).await?;
        Ok(written.is_some())
    }

    /// Writes down that an instance expired, if it is held and its lease is gone; whether it was.
    pub(super) async fn lapse(&self, line: &Line, key: &Key) -> Result<bool> {
        // In this order: whoever registers takes the lease first.
        let Some(held) = self.last_of(line, key).await?.held else {
            return Ok(false);
        };
        if self.lease_of(line, key).await?.is_some() {
            return Ok(false);
        }
        self.remove(line, &held, RemovalReason::Expired).await
    }

    pub(super) async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        let line = self.line().await?;
        let key = Key::new(service, id);
        let (before, state) = tokio::try_join!(self.forced_of(&line, &key), self.state(&line))?;
        if before != forced {
            if before.is_none() {
                self.has_room(&key, state.1)?;
            }
            // One that is taken back is remembered no longer than an instance that is gone.
            let ttl = forced.is_none().then_some(self.config.remember);
            let subject = self.subjects.forced(&key);
            self.write(&line, subject, &forced, None, ttl).await?;
        }
        self.amend(&line, &key, |present| present.forced = forced)
            .await
    }

    pub(super) async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        let line = self.line().await?;
        let mut survey = self.survey(&line, scope).await?;
        for _ in 0..ATTEMPTS {
            if !self.lapse_all(&line, &survey.lapsed).await? {
                break;
            }
            survey = self.survey(&line, scope).await?;
        }
        let instances = survey.held.iter();
        let instances = instances.map(|held| Arc::new(held.instance())).collect();
        let revision = Revision::new(survey.revision);
        Ok(Snapshot::new(scope.clone(), revision, instances))
    }

    /// Writes down what lapsed while nobody watched.
    pub(super) async fn sweep(&self, line: &Line, scope: &Scope) -> Result<()> {
        let survey = self.survey(line, scope).await?;
        self.lapse_all(line, &survey.lapsed).await.map(drop)
    }

    async fn lapse_all(&self, line: &Line, keys: &[Key]) -> Result<bool> {
        let mut any = false;
        for key in keys {
            any |= self.lapse(line, key).await?;
        }
        Ok(any)
    }

    async fn survey(&self, line: &Line, scope: &Scope) -> Result<Survey> {
        let (before, _) = self.state(line).await?;
        let messages = last_messages(&line.log, self.subjects.instances(scope)).await?;
        let seen = messages.last().map_or(0, |message| message.sequence);
        let held: Vec<_> = messages.iter().filter_map(|it| self.held(it)).collect();
        // In this order: whoever registers takes the lease first.
        let leases = last_messages(&line.leases, self.subjects.leases(scope)).await?;
        let leases: HashSet<_> = leases
            .iter()
            .filter(|message| !message.is_marker)
            .map(|message| message.subject.as_str())
            .collect();
        let lapsed = held
            .iter()
            .filter(|held| !leases.contains(&*self.subjects.lease(&held.key)))
            .map(|held| held.key.clone())
            .collect();
        Ok(Survey {
            revision: before.max(seen),
            held,
            lapsed,
        })
    }

    fn held(&self, message: &Message) -> Option<Held> {
        let subject = &*message.subject;
        let Some(key) = self.subjects.parse_instance(subject) else {
            skipped(subject, "its name is none of ours");
            return None;
        };
        match Record::parse(&key, &message.payload) {
            Ok(record) => Held::new(key, message.sequence, record),
            Err(reason) => {
                skipped(subject, &reason);
                None
            }
        }
    }
}

pub(super) fn skipped(subject: &str, reason: &str) {
    let subject: String = subject.chars().take(128).collect();
    tracing::warn!(%subject, reason, "a message in nats is none of ours, skipped");
}

/// The last message of each subject, in the order of their sequences.
async fn last_messages(stream: &Stream, filter: String) -> Result<Vec<Message>> {
    let unavailable = |error: async_nats::Error| failed("list", ErrorKind::Unavailable, error);
    let config = OrderedConfig {
        filter_subject: filter,
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..OrderedConfig::default()
    };
    // The library's futures are large.
    let consumer = Box::pin(stream.create_consumer(config)).await;
    let consumer = consumer.map_err(|error| unavailable(error.into()))?;
    let info = consumer.cached_info();
    let (name, pending) = (info.name.clone(), info.num_pending);
    let mut read = Vec::new();
    if pending > 0 {
        let messages = Box::pin(consumer.messages()).await;
        let mut messages = messages.map_err(|error| unavailable(error.into()))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| unavailable(error.into()))?;
            let (message, pending) = Message::delivered(&message)?;
            read.push(message);
            if pending == 0 {
                break;
            }
        }
    }
    // It would go by itself, half a minute later.
    let _best_effort = Box::pin(stream.delete_consumer(&name)).await.is_ok();
    Ok(read)
}
