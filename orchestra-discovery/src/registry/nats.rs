//! The registry in NATS `JetStream`.
//!
//! Two key-value buckets, here named after a bucket `orchestra`:
//!
//! | key | in bucket | holds |
//! |---|---|---|
//! | `i.SERVICE.ID` | `orchestra` | what changed last about the instance: its registration, or why it is gone |
//! | `o.SERVICE.ID` | `orchestra` | what an operator decided |
//! | `SERVICE.ID` | `orchestra-leases` | the lease; the server itself lets it go by its ttl |
//!
//! In keys, `.` is written `/` and `:` is written `=`.
//!
//! **Revisions** are the sequence numbers of the first bucket, and the incarnation of an instance is that of
//! its registration. Every write names the sequence that it is based on, so of two writers one is refused and
//! reads again. Renewals go to the bucket of leases alone: no watch sees them.
//!
//! **Leases.** A registration first takes the lease and then writes the record, so a record without a lease is
//! one that lapsed, never one that is not finished. The server counts in whole seconds: a ttl is rounded up,
//! and a lease lapses up to about two seconds late. When it does, the server leaves a marker, and whoever
//! watches writes down that the instance expired; a snapshot does so as well. With nobody there, nobody sees
//! the lapsed entry either. Of two registrations at the same time the one that took the lease last holds the id.
//!
//! **A server that starts anew** goes on with what it has on disk, and a watch goes on where it was. The time
//! that it was down counts: leases that were not renewed in the meantime lapse, and their heartbeats register
//! anew. When the buckets are gone they are made again, with sequence numbers that begin at the wall clock of
//! the client who makes them (milliseconds, shifted left by 20): a watch from before says `Resync`. A server
//! that is killed may lose writes that it had acknowledged a moment before unless its `JetStream` has
//! `sync_interval: always`; numbers may then be given out twice.
//!
//! **Watches** read the whole first bucket without a gap: a number that is missing was forgotten, and they say
//! `Resync`. Each key keeps its last changes (64 unless told otherwise), and what is gone is kept for
//! [`Config::remember`].
//!
//! The streams have one replica: in a cluster they live on one of its servers. A list is read through a
//! consumer, and one of a replica that lags would miss what the leader has. NATS 2.11 or later is needed.

mod line;
mod message;
mod store;
mod watch;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Endpoint, InstanceId, ServiceName};

use self::line::Client;
use self::watch::NatsWatch;
use super::{Lease, Registry, record};
use crate::error::Result;
use crate::instance::{Override, Registration, Status};
use crate::source::{Capabilities, Revision, Scope, Snapshot, Source, Watch};

/// How a [`NatsRegistry`] is kept, its bounds and time limits.
///
/// The buckets are made by the first user; what they were made with stays.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::registry::nats::Config;
///
/// let mut config = Config::default();
/// config.bucket = "staging".to_owned();
/// config.timeout = Duration::from_secs(1);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The name of the bucket: 1 to 64 letters, digits, `-` and `_`.
    pub bucket: String,
    /// The longest that a call may take, connecting included.
    pub timeout: Duration,
    /// How often a watch asks whether it has missed anything, a lapsed lease included.
    pub hold: Duration,
    /// The most ids and overrides, with those that are gone and still remembered; one more is refused as `Full`.
    pub max_keys: NonZeroUsize,
    /// The changes of each key that are remembered for watches that fell behind: 1 to 64.
    pub max_changes_per_key: u8,
    /// How long a removal is remembered; rounded up to whole seconds.
    pub remember: Duration,
    /// The longest ttl that is granted; a longer one is refused as `Invalid`.
    pub max_ttl: Duration,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
enum Credentials {
    Token(String),
    User(String, String),
    File(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::User(..) => "User(..)",
            Self::File(_) => "File(..)",
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bucket: "orchestra".to_owned(),
            timeout: Duration::from_secs(5),
            hold: Duration::from_secs(10),
            max_keys: NonZeroUsize::MIN.saturating_add(99_999),
            max_changes_per_key: 64,
            remember: Duration::from_secs(3_600),
            max_ttl: Duration::from_secs(86_400),
            credentials: None,
        }
    }
}

impl Config {
    /// Authenticates with this token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::Token(token.into()));
        self
    }

    /// Authenticates as this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::User(user.into(), password.into()));
        self
    }

    /// Authenticates with the text of a credentials file (a JWT and the seed of its key).
    #[must_use]
    pub fn credentials(mut self, text: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::File(text.into()));
        self
    }
}

/// A registry that is kept in NATS; a clone is one reference count.
///
/// It connects when it is first asked, and again by itself when the connection is lost; until then calls fail
/// as `Unavailable` at once. Nothing is retried in here but writes that another writer came before.
///
/// ```
/// use orchestra_discovery::NatsRegistry;
/// use orchestra_discovery::registry::nats::Config;
///
/// let mut config = Config::default().user("registry", "correct-horse-battery");
/// config.bucket = "shop".to_owned();
/// let registry = NatsRegistry::new(["nats.internal:4222".parse()?], config)?;
/// assert!(!format!("{registry:?}").contains("battery"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct NatsRegistry(Arc<Client>);

impl NatsRegistry {
    /// The registry at these servers of one cluster; nothing is sent yet.
    pub fn new(servers: impl IntoIterator<Item = Endpoint>, config: Config) -> Result<Self> {
        Ok(Self(Arc::new(Client::new(servers, config)?)))
    }
}

impl fmt::Debug for NatsRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsRegistry").field(&self.0).finish()
    }
}

#[async_trait]
impl Source for NatsRegistry {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.timely("snapshot", self.0.snapshot(scope)).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let watch = NatsWatch::new(Arc::clone(&self.0), scope.clone(), after);
        Ok(Watch::new(watch))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for NatsRegistry {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        record::check(&registration, self.0.config.max_ttl)?;
        self.0
            .timely("register", self.0.register(registration))
            .await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.0.timely("renew", self.0.renew(lease)).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        let set = self.0.set_status(lease, status);
        self.0.timely("set a status", set).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.0.timely("deregister", self.0.deregister(lease)).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        let set = self.0.set_override(service, id, forced);
        self.0.timely("set an override", set).await
    }
}
