//! The members of services in DNS: A and AAAA records at a known port, or SRV records.
//!
//! A service is a name by a template, such as `{service}.svc.example` or `_{service}._tcp.example`, and each
//! address is an instance. An id is address and port, so an instance stays the same for as long as its
//! record is there. An SRV record has port, priority and weight ([RFC 2782]); its weight is shared by the
//! addresses of its target, and one of zero beside others is a very small share.
//!
//! An answer is kept for the least TTL of its records, between a floor and a ceiling, and asked again by
//! whoever asks or watches then, up to a tenth sooner, so that clients which began together do not stay
//! together. That there is no such name, or no such record of it, is an answer too: there are no members. It
//! is kept as its SOA says ([RFC 2308], section 5), below a ceiling of its own. Whatever else goes wrong is a
//! failure and says nothing about the members: SERVFAIL, REFUSED, no answer in time, a server that refers
//! to others, and one target of many that cannot be resolved. Failures are remembered for a moment too, so
//! that a broken server is not asked by each call.
//!
//! Of several servers the next is asked when one fails, and the one that answered is asked first from then
//! on. Truncated answers are asked again over TCP. Search domains and `/etc/hosts` do not count.
//!
//! [RFC 2308]: https://www.rfc-editor.org/rfc/rfc2308
//! [RFC 2782]: https://www.rfc-editor.org/rfc/rfc2782

mod answer;
mod hickory;
mod recent;
mod resolve;
mod template;
mod ttl;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::ServiceName;
use parking_lot::Mutex;

use self::hickory::Hickory;
use self::recent::Recent;
use self::resolve::{Ask, Lookup, Plan};
use self::template::Template;
use self::ttl::Bounds;
use super::ledger::first_revision;
use super::poll::{Poll, PollWatch};
use super::{Capabilities, Revision, Scope, Snapshot, Source, Watch};
use crate::error::{Error, ErrorKind, Result};

/// Which records name the members.
///
/// ```
/// use orchestra_discovery::source::dns::Records;
///
/// let by_service = Records::Services;
/// assert_ne!(by_service, Records::Addresses { port: 443 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Records {
    /// Addresses (A and AAAA), all at the same port.
    Addresses {
        /// The port that every member listens on.
        port: u16,
    },
    /// Targets and ports (SRV), and the addresses of the targets.
    Services,
}

/// Which addresses are members.
///
/// ```
/// use orchestra_discovery::source::dns::Family;
///
/// assert_eq!(Family::default(), Family::PreferV4);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// Those of IPv4, and those of IPv6 of a name that has none: one member for each host that has both.
    #[default]
    PreferV4,
    /// Those of IPv6, and those of IPv4 of a name that has none.
    PreferV6,
    /// All. A host that has both is two members.
    Both,
}

/// Whom a [`DnsSource`] asks, for what, and how long it keeps the answer.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::source::dns::{Config, Family, Records};
///
/// let server = "10.0.0.53:53".parse()?;
/// let mut config = Config::new([server], "_{service}._tcp.shop.internal", Records::Services);
/// config.family = Family::Both;
/// config.ttl_ceiling = Duration::from_secs(60);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers in the order in which they are tried; at least one.
    pub servers: Vec<SocketAddr>,
    /// The name of a service's records, with `{service}` in the place of its name; always absolute.
    pub template: String,
    /// The records that are asked for.
    pub records: Records,
    /// The addresses that are members.
    pub family: Family,
    /// How long one server has to answer one question.
    pub timeout: Duration,
    /// How often a question that no server answered is asked again.
    pub retries: u32,
    /// How long all questions about a service may take together.
    pub deadline: Duration,
    /// The shortest time that an answer is kept, whatever its TTL: the most that the servers are asked.
    pub ttl_floor: Duration,
    /// The longest time that an answer is kept.
    pub ttl_ceiling: Duration,
    /// The longest time that an answer without members is kept.
    pub negative_ceiling: Duration,
    /// How long a failure is told before the servers are asked again.
    pub retry_after: Duration,
    /// The most services that are remembered. The one that was asked for least recently makes room; when
    /// all of them are watched, another one is refused as `Full`.
    pub max_services: NonZeroUsize,
    /// The most members of a service; an answer with more is a failure.
    pub max_members: NonZeroUsize,
    /// The most changes of a service that are remembered for watches that fell behind.
    pub max_changes: NonZeroUsize,
    /// The seed of the jitter; from the system's entropy when absent.
    pub seed: Option<u64>,
}

impl Config {
    /// TTLs from 1 s to 5 min, 30 s for no members; 2 s for a question, one retry, 5 s for all.
    pub fn new(
        servers: impl IntoIterator<Item = SocketAddr>,
        template: impl Into<String>,
        records: Records,
    ) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            template: template.into(),
            records,
            family: Family::default(),
            timeout: Duration::from_secs(2),
            retries: 1,
            deadline: Duration::from_secs(5),
            ttl_floor: Duration::from_secs(1),
            ttl_ceiling: Duration::from_secs(300),
            negative_ceiling: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
            max_services: NonZeroUsize::MIN.saturating_add(1_023),
            max_members: NonZeroUsize::MIN.saturating_add(4_095),
            max_changes: NonZeroUsize::MIN.saturating_add(8_191),
            seed: None,
        }
    }

    fn plan(&self) -> Result<Plan> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
        if self.servers.is_empty() {
            return invalid("no DNS server is configured");
        }
        if self.records == (Records::Addresses { port: 0 }) {
            return invalid("members at port 0 cannot be called");
        }
        let least = self.ttl_ceiling.min(self.negative_ceiling);
        if self.ttl_floor.is_zero() || self.ttl_floor > least {
            return invalid("the floor of TTLs is zero or above a ceiling");
        }
        Ok(Plan {
            records: self.records,
            family: self.family,
            bounds: Bounds {
                floor: self.ttl_floor,
                ceiling: self.ttl_ceiling,
                negative: self.negative_ceiling,
            },
            deadline: self.deadline,
            max_members: self.max_members.get(),
        })
    }
}

/// DNS as a source of one service at a time; a clone is another handle to the same.
///
/// [`Scope::All`] is `Unsupported`: DNS has no list of its names. A service whose name makes no DNS name is
/// `Invalid`.
///
/// ```
/// use orchestra_discovery::source::dns::{Config, Records};
/// use orchestra_discovery::{DnsSource, ErrorKind, Scope, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = "127.0.0.1:53".parse()?;
/// let addresses = Records::Addresses { port: 8080 };
/// let source = DnsSource::new(Config::new([server], "{service}.svc.example", addresses))?;
/// let all = source.snapshot(&Scope::All).await;
/// assert_eq!(all.map_err(|error| error.kind()), Err(ErrorKind::Unsupported));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DnsSource(Arc<Services<Hickory>>);

impl DnsSource {
    /// A source that asks when it is asked first; it is `Invalid` when no question can come of the
    /// configuration.
    pub fn new(config: Config) -> Result<Self> {
        let hickory = Hickory::new(&config)?;
        Ok(Self(Arc::new(Services::new(config, hickory)?)))
    }
}

#[async_trait]
impl Source for DnsSource {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        self.0.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

/// The services that were asked for, whoever answers.
struct Services<A> {
    template: Template,
    plan: Arc<Plan>,
    asker: Arc<A>,
    recent: Mutex<Recent<Poll<Lookup<A>>>>,
    revision: Arc<AtomicU64>,
    rng: Mutex<fastrand::Rng>,
    config: Config,
}

impl<A: Ask> Services<A> {
    fn new(config: Config, asker: A) -> Result<Self> {
        let rng = config
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Ok(Self {
            template: Template::parse(&config.template)?,
            plan: Arc::new(config.plan()?),
            asker: Arc::new(asker),
            recent: Mutex::new(Recent::new(config.max_services.get())),
            revision: Arc::new(AtomicU64::new(first_revision().as_u64())),
            rng: Mutex::new(rng),
            config,
        })
    }

    fn service(&self, scope: &Scope) -> Result<Arc<Poll<Lookup<A>>>> {
        let Scope::Service(service) = scope else {
            let message = "DNS cannot list all services";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let name = self.template.name(service)?;
        let mut recent = self.recent.lock();
        recent
            .get(service, || self.poll(service, name))
            .ok_or_else(|| {
                let limit = self.config.max_services;
                let message = format!("no room for service {service}: {limit} are in use");
                Error::new(ErrorKind::Full, message)
            })
    }

    fn poll(&self, service: &ServiceName, name: String) -> Poll<Lookup<A>> {
        let lookup = Lookup {
            service: service.clone(),
            name,
            plan: Arc::clone(&self.plan),
            asker: Arc::clone(&self.asker),
            revision: Arc::clone(&self.revision),
            rng: Mutex::new(self.rng.lock().fork()),
        };
        Poll::new(lookup, self.config.retry_after, self.config.max_changes)
    }
}

#[async_trait]
impl<A: Ask> Source for Services<A> {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.service(scope)?.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let service = self.service(scope)?;
        Ok(Watch::new(PollWatch::new(service, scope.clone(), after)))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            all_services: false,
            resume: true,
        }
    }
}

impl<A> fmt::Debug for Services<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
