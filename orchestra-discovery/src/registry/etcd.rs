//! The registry in etcd v3, which survives the loss of its machines as long as most of them are left.
//!
//! | key | value | lease |
//! |---|---|---|
//! | `<prefix><service>/<id>` | the instance as JSON, or that it was given back | one of its own |
//! | `<prefix><service>/<id>/override` | what an operator decided | none |
//!
//! * The incarnation is the revision of the transaction that registered the instance: it rises over all
//!   registrations for as long as the cluster keeps its data.
//! * Registering anew puts the key under the new lease, which takes it from the old one, and revokes the
//!   old one only then: nothing but an orphan goes with it.
//! * Giving back is a put that says so, followed by the revocation of the lease. A watch tells the two kinds of
//!   end apart by what the deleted value said. A key that somebody else deletes counts as expired.
//! * An override is written to its own key and into the instance in one transaction, so that each change is
//!   complete in itself; registering reads it in the transaction that puts the instance.
//! * A value that is not understood is skipped and logged. What it replaced counts as replaced.
//!
//! # Leases
//!
//! etcd counts whole seconds and has a least ttl of its own (2 seconds with its default election timeout), and looks
//! for lapsed leases every half second. A ttl is rounded up, so an instance is gone between its ttl and a second and a
//! half after it, or that much after etcd's least ttl; [`Lease::ttl`] tells what was granted.
//!
//! A renewal is not replicated. When the server, or the leader of a cluster, is restarted or replaced, **every lease
//! starts again with its full ttl** and an election timeout: an instance that died just before stays listed for up to a ttl more, and none
//! lapses because the registry was down.
//!
//! # Revisions
//!
//! They are etcd's own, common to all its users. A watch resumes after the last one it delivered; where etcd has
//! compacted what follows, where its revisions are behind (its data was lost, a backup was restored), or where another
//! cluster answers, it says [`WatchEvent::Resync`](crate::WatchEvent::Resync). The revision of a quiet watch moves on as
//! often as the server notifies of progress (`--experimental-watch-progress-notify-interval`, 10 minutes by default).
//!
//! # Failure
//!
//! Each request to etcd is bounded by [`Config::timeout`]; a registration is at least two of them, a renewal two, a
//! snapshot one per thousand keys. When an endpoint is not reachable the others are asked in turn, within the call. A
//! watch whose connection breaks fails once per failed attempt and connects again when it is asked again, at a growing
//! distance; a connection that is silent for 10 seconds is tested by a ping. No task is left behind by a value that is
//! dropped.
//!
//! Building this module needs `protoc`. The connection is not encrypted: keep it within a trusted network, or let a
//! proxy on each side do it.

mod change;
mod fault;
mod link;
mod member;
mod record;
mod snapshot;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Endpoint, InstanceId, ServiceName};

use self::link::Link;
use self::record::Keys;
use self::watch::EtcdWatch;
use super::{Lease, Registry};
use crate::error::Result;
use crate::instance::{Override, Registration, Status};
use crate::source::{Capabilities, Revision, Scope, Snapshot, Source, Watch};

/// Where etcd is, and how it is used.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::registry::etcd::Config;
///
/// let config = Config::new(["etcd.internal:2379".parse()?])
///     .prefix("shop/")
///     .user("discovery", "correct-horse-battery")
///     .timeout(Duration::from_secs(2));
/// assert!(!format!("{config:?}").contains("horse"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The members of the cluster. One is used until it fails, then the next.
    pub endpoints: Vec<Endpoint>,
    /// What the keys begin with, `orchestra/` unless told otherwise; a slash is added to the end if it is missing.
    pub prefix: String,
    /// The longest that one request may take, 5 seconds unless told otherwise.
    pub timeout: Duration,
    /// The longest ttl that is asked for, a day unless told otherwise; a longer one is refused as `Invalid`.
    pub max_ttl: Duration,
    user: Option<(String, String)>,
}

impl Config {
    /// Uses the etcd that these endpoints belong to.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            prefix: "orchestra/".to_owned(),
            timeout: Duration::from_secs(5),
            max_ttl: Duration::from_secs(86_400),
            user: None,
        }
    }

    /// Keeps to keys that begin with this.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Bounds each request by this.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Authenticates as this user.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("max_ttl", &self.max_ttl)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .finish()
    }
}

/// A registry that is kept in etcd; a clone is one reference count and shares the connections.
///
/// ```
/// use orchestra_discovery::EtcdRegistry;
/// use orchestra_discovery::registry::etcd::Config;
///
/// let endpoints = ["10.0.0.1:2379".parse()?, "10.0.0.2:2379".parse()?];
/// // It connects when it is first asked something.
/// let registry = EtcdRegistry::new(Config::new(endpoints).prefix("shop/"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EtcdRegistry(Arc<Shared>);

struct Shared {
    link: Link,
    keys: Keys,
    max_ttl: Duration,
}

impl EtcdRegistry {
    /// Checks the configuration; connects when something is asked.
    pub fn new(config: Config) -> Result<Self> {
        let keys = Keys::new(&config.prefix)?;
        let link = Link::new(config.endpoints, config.user, config.timeout)?;
        let max_ttl = config.max_ttl;
        Ok(Self(Arc::new(Shared {
            link,
            keys,
            max_ttl,
        })))
    }
}

impl fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistry")
            .field("link", &self.0.link)
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for EtcdRegistry {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let stream = EtcdWatch::new(Arc::clone(&self.0), scope.clone(), after);
        Ok(Watch::new(stream))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for EtcdRegistry {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        self.0.register(&registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.0.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        self.0.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.0.deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        self.0.set_override(service, id, forced).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_bad_configuration_is_refused_at_once() {
        let good = || Config::new(["127.0.0.1:2379".parse().unwrap()]);
        assert!(EtcdRegistry::new(good()).is_ok());
        let socket = "unix:/run/etcd.sock".parse().unwrap();
        let bad = [good().prefix(""), Config::new([]), Config::new([socket])];
        for bad in bad {
            let refused = EtcdRegistry::new(bad).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let config = Config::new(["127.0.0.1:2379".parse().unwrap()]).user("me", "secret");
        let text = format!(
            "{config:?} {:?}",
            EtcdRegistry::new(config.clone()).unwrap()
        );
        assert!(text.contains("me") && !text.contains("secret"), "{text}");
    }
}
