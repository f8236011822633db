//! The registry in Redis.
//!
//! Every operation is one Lua script, so it happens at once or not at all, and by the server's clock alone.
//! A prefix `orchestra` makes these keys; the braces keep them in one slot of a cluster:
//!
//! | key | holds |
//! |---|---|
//! | `{orchestra}:meta` | the last revision, the run of the server, the bytes of all records |
//! | `{orchestra}:of:SERVICE` | by id: incarnation, ttl, status and the registration as JSON |
//! | `{orchestra}:due` | by `SERVICE/ID`: when the lease lapses |
//! | `{orchestra}:forced` | by `SERVICE/ID`: what an operator decided |
//! | `{orchestra}:log` | the last changes, a stream whose ids are the revisions |
//!
//! **Leases.** Every script first removes what lapsed, and a waiting watch wakes up at the next deadline: as
//! long as anybody asks or watches, a lease is gone within one round trip of its deadline. With nobody there,
//! nobody sees the lapsed entry either.
//!
//! **Revisions** begin at the server's wall clock (milliseconds, shifted left by 20) and rise by one with each
//! change. The incarnation of an instance is the revision of its registration.
//!
//! **A server that starts anew** is told by its run id, which every script is given. It may have lost its last
//! writes (or, without persistence, everything), so it begins a new range of revisions, above all before, and
//! every watch from before says `Resync`. What it kept is held for at least a whole ttl from then on, since
//! nobody could renew in the meantime; what it lost is refused as `LeaseLost`, upon which a heartbeat
//! registers anew. A replica that was promoted is such a server too. So that this works, no proxy may stand
//! between which spreads the commands of one connection over several servers, and `maxmemory-policy`
//! should be `noeviction`.
//!
//! **Watches** each have a connection of their own, which blocks in `XREAD`, and read the log in pages; each
//! reads all changes of the registry, and those outside its scope stay on the server.
//!
//! Redirections of a cluster are not followed: the endpoint is the node that owns the slot. There is no TLS.
//! A snapshot costs the server a time that is linear in its size, during which it does nothing else.
//! Redis 5 or later is needed.

mod line;
mod record;
mod reply;
mod script;
mod watch;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Endpoint, InstanceId, ServiceName};

use self::line::Client;
use self::reply::Outcome;
use self::watch::RedisWatch;
use super::record::{check, lost, replaced};
use super::{Lease, Registry};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Override, Registration, Status};
use crate::source::{Capabilities, Revision, Scope, Snapshot, Source, Watch};

/// How a [`RedisRegistry`] is kept, its bounds and time limits.
///
/// All users of one prefix should agree on the bounds: each operation goes by those of its caller.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::registry::redis::Config;
///
/// let mut config = Config::default();
/// config.prefix = "staging".to_owned();
/// config.timeout = Duration::from_secs(1);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the names of all keys begin: 1 to 128 visible ASCII characters without braces.
    pub prefix: String,
    /// The number of the database.
    pub database: u16,
    /// The longest that a call may take, connecting included.
    pub timeout: Duration,
    /// The longest that a watch is silent on its connection: a server that is gone without a word is noticed
    /// after this and the timeout.
    pub hold: Duration,
    /// The most instances that are held, and the most overrides; one more is refused as `Full`.
    pub max_instances: NonZeroUsize,
    /// The most bytes of all records, and so of an answer; a registration above is refused as `Full`.
    pub max_bytes: NonZeroUsize,
    /// The most changes that are remembered for watches that fell behind.
    pub max_changes: NonZeroUsize,
    /// The longest ttl that is granted; a longer one is refused as `Invalid`.
    pub max_ttl: Duration,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
struct Credentials {
    user: Option<String>,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "orchestra".to_owned(),
            database: 0,
            timeout: Duration::from_secs(5),
            hold: Duration::from_secs(5),
            max_instances: NonZeroUsize::MIN.saturating_add(99_999),
            max_bytes: NonZeroUsize::MIN.saturating_add(64 * 1024 * 1024 - 1),
            max_changes: NonZeroUsize::MIN.saturating_add(16_383),
            max_ttl: Duration::from_secs(86_400),
            credentials: None,
        }
    }
}

impl Config {
    /// Authenticates with this password, as the default user.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        let password = password.into();
        self.credentials = Some(Credentials {
            user: None,
            password,
        });
        self
    }

    /// Authenticates as this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials {
            user: Some(user.into()),
            password: password.into(),
        });
        self
    }
}

/// A registry that is kept in Redis; a clone is one reference count.
///
/// It connects when it is first asked, and again by itself when a connection is lost; a call on a connection
/// that turns out to be closed is repeated once, and nothing else is retried in here.
///
/// ```
/// use orchestra_discovery::RedisRegistry;
/// use orchestra_discovery::registry::redis::Config;
///
/// let mut config = Config::default().user("registry", "correct-horse-battery");
/// config.prefix = "shop".to_owned();
/// let registry = RedisRegistry::new("redis.internal:6379".parse()?, config)?;
/// assert!(!format!("{registry:?}").contains("battery"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RedisRegistry(Arc<Client>);

impl RedisRegistry {
    /// The registry at this server; nothing is sent yet.
    pub fn new(endpoint: Endpoint, config: Config) -> Result<Self> {
        Ok(Self(Arc::new(Client::new(endpoint, config)?)))
    }

    async fn act(&self, lease: &Lease, script: &script::Script, rest: &[&str]) -> Result<()> {
        let member = record::key(&lease.service, &lease.id);
        let incarnation = lease.incarnation.to_string();
        let mut arguments = vec![&*member, &*incarnation];
        arguments.extend(rest);
        match Outcome::parse(&self.0.call(script, &arguments).await?)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Lost => Err(lost(lease)),
            Outcome::Replaced(by) => Err(replaced(lease, by)),
            Outcome::Full(what) => Err(Error::new(ErrorKind::Full, what)),
        }
    }
}

impl fmt::Debug for RedisRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisRegistry").field(&self.0).finish()
    }
}

#[async_trait]
impl Source for RedisRegistry {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        let scripts = &self.0.scripts;
        let answer = self
            .0
            .call(&scripts.snapshot, &[reply::service(scope)])
            .await?;
        reply::snapshot(scope, &answer)
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let watch = RedisWatch::new(Arc::clone(&self.0), scope.clone(), after);
        Ok(Watch::new(watch))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for RedisRegistry {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        let config = &self.0.config;
        check(&registration, config.max_ttl)?;
        let text = record::encode(&registration)?;
        let Registration {
            service,
            id,
            ttl,
            status,
            ..
        } = registration;
        let arguments = [
            &*record::key(&service, &id),
            &*ttl.as_micros().max(1).to_string(),
            record::status_name(status),
            &*text,
            &*config.max_instances.to_string(),
            &*config.max_bytes.to_string(),
        ];
        let answer = self.0.call(&self.0.scripts.register, &arguments).await?;
        match Outcome::parse(&answer)? {
            Outcome::Done(Some(revision)) => {
                Ok(Lease::new(service, id, Incarnation::new(revision), ttl))
            }
            Outcome::Full(what) => {
                let message = format!("no room for instance {id} of service {service}: {what}");
                Err(Error::new(ErrorKind::Full, message))
            }
            Outcome::Done(None) | Outcome::Lost | Outcome::Replaced(_) => {
                Err(reply::strange("a registration"))
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.act(lease, &self.0.scripts.renew, &[]).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        let status = record::status_name(status);
        self.act(lease, &self.0.scripts.status, &[status]).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.act(lease, &self.0.scripts.deregister, &[]).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        let arguments = [
            &*record::key(service, id),
            record::override_name(forced),
            &*self.0.config.max_instances.to_string(),
        ];
        let answer = self.0.call(&self.0.scripts.forced, &arguments).await?;
        match Outcome::parse(&answer)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Full(what) => {
                let message = format!(
                    "no room for an override of instance {id} of service {service}: {what}"
                );
                Err(Error::new(ErrorKind::Full, message))
            }
            Outcome::Lost | Outcome::Replaced(_) => Err(reply::strange("an override")),
        }
    }
}
