//! The laws of [`Source`](crate::Source) and [`Registry`] as tests for any backend.
//!
//! [`registry_suite!`](crate::registry_suite) stamps one named test per law of a registry, and
//! [`source_suite!`](crate::source_suite) one per law of a source that is edited by other means. The laws that
//! wait do so by tokio's clock: a backend without real I/O runs in no time under `start_paused = true`. A
//! registry is a source too: [`SourceSubject::of_registry`] makes a subject of the second out of one.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use orchestra_discovery::{MemoryRegistry, conformance::{SourceSubject, Subject}};
//!
//! async fn fresh() -> Subject {
//!     let registry = Arc::new(MemoryRegistry::default());
//!     Subject::new(registry, Duration::from_secs(9), Duration::from_millis(10))
//! }
//!
//! orchestra_discovery::registry_suite!(memory, fresh, start_paused = true);
//!
//! async fn list() -> SourceSubject {
//!     let registry = Arc::new(MemoryRegistry::default());
//!     SourceSubject::of_registry(registry, Duration::from_secs(3_600), Duration::from_millis(2))
//! }
//!
//! orchestra_discovery::source_suite!(memory_as_a_source, list, start_paused = true);
//! # fn main() {}
//! ```

mod lease;
mod source;
mod watch;

pub use source::{Expresses, SOURCE_LAWS, SourceLaw, SourceSubject, enforce_source};

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::ServiceName;

use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Registration};
use crate::registry::{Lease, Registry};
use crate::source::{Change, Revision, Scope, Snapshot, Watch, WatchEvent};

/// A fresh, empty registry, and what the laws have to know of it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::conformance::Subject;
///
/// let registry = Arc::new(MemoryRegistry::default());
/// let directory = "a handle that is dropped when the test ends";
/// let subject = Subject::new(registry, Duration::from_secs(9), Duration::from_millis(10))
///     .remembers(16_384)
///     .keep(directory);
/// assert!(format!("{subject:?}").contains("16384"));
/// ```
pub struct Subject {
    registry: Arc<dyn Registry>,
    ttl: Duration,
    slack: Duration,
    remembers: Option<u32>,
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Subject {
    /// A registry whose leases may be as short as `ttl` and lapse at most `slack` late.
    ///
    /// Within a quarter of the ttl the registry should be able to answer several calls.
    pub fn new(registry: Arc<dyn Registry>, ttl: Duration, slack: Duration) -> Self {
        Self {
            registry,
            ttl,
            slack,
            remembers: None,
            kept: None,
        }
    }

    /// It remembers at most this many changes: a watch from before them must say `Resync`.
    #[must_use]
    pub fn remembers(mut self, changes: u32) -> Self {
        self.remembers = Some(changes);
        self
    }

    /// Keeps something alive for as long as the registry is tested: a server, a directory.
    #[must_use]
    pub fn keep(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept = Some(Box::new(kept));
        self
    }

    /// The same, seen through something else.
    #[must_use]
    pub fn through(mut self, wrap: impl FnOnce(Arc<dyn Registry>) -> Arc<dyn Registry>) -> Self {
        self.registry = wrap(self.registry);
        self
    }

    /// A registration of `id` of the service that most laws use.
    fn asked(&self, id: &str) -> Result<Registration> {
        self.asked_of("conformance-a", id)
    }

    fn asked_of(&self, service: &str, id: &str) -> Result<Registration> {
        let id = id.parse().map_err(own)?;
        let endpoint = "127.0.0.1:9".parse().map_err(own)?;
        Ok(Registration::new(name(service)?, id, endpoint, self.ttl))
    }

    async fn register(&self, id: &str) -> Result<Lease> {
        self.registry.register(self.asked(id)?).await
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        self.registry.snapshot(&scope()?).await
    }

    /// The incarnations that are listed, in the order of their ids.
    async fn listed(&self) -> Result<Vec<Incarnation>> {
        let snapshot = self.snapshot().await?;
        let instances = snapshot.instances().iter();
        Ok(instances.map(|instance| instance.incarnation).collect())
    }

    async fn watch(&self, after: Revision) -> Result<Watch> {
        self.registry.watch(&scope()?, after).await
    }

    /// A watch of everything from now on.
    async fn watch_from_now(&self) -> Result<Watch> {
        let revision = self.snapshot().await?.revision();
        self.watch(revision).await
    }

    /// Reads until at least `count` changes have come.
    async fn changes(&self, watch: &mut Watch, count: usize) -> Result<Vec<Change>, Violation> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let Ok(event) = tokio::time::timeout(self.patience(), watch.next()).await else {
                return broken(format!("only {seen:?} of {count} changes came"));
            };
            match event? {
                WatchEvent::Changes { changes, .. } => seen.extend(changes),
                WatchEvent::Resync => return broken("resync without need".to_owned()),
            }
        }
        Ok(seen)
    }

    fn patience(&self) -> Duration {
        (self.ttl + self.slack) * 4
    }

    async fn lapse(&self) {
        tokio::time::sleep(self.ttl + self.slack).await;
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("ttl", &self.ttl)
            .field("slack", &self.slack)
            .field("remembers", &self.remembers)
            .field("kept", &self.kept.is_some())
            .finish_non_exhaustive()
    }
}

fn name(text: &str) -> Result<ServiceName> {
    text.parse().map_err(own)
}

fn scope() -> Result<Scope> {
    Ok(Scope::Service(name("conformance-a")?))
}

fn own(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Invalid, "the suite itself is wrong").with_source(error)
}

/// How a law was broken.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::conformance::{LAWS, Subject};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A registry that is said to remember one change remembers more: the law finds it out.
/// let registry = Arc::new(MemoryRegistry::default());
/// let subject = Subject::new(registry, Duration::from_secs(9), Duration::from_millis(10)).remembers(1);
/// let law = LAWS.iter().find(|law| law.name() == "forgotten_revision_says_resync").ok_or("no law")?;
/// let violation = law.check(&subject).await.err().ok_or("the law is kept")?;
/// println!("{}: {violation}", law.name());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self(format!("a call failed: {error} ({:?})", error.kind()))
    }
}

type Verdict = Result<(), Violation>;

fn broken<T>(found: String) -> Result<T, Violation> {
    Err(Violation(found))
}

fn expect(holds: bool, found: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { broken(found()) }
}

/// A call must fail with this kind.
fn refused<T>(result: Result<T>, kind: ErrorKind, what: &str) -> Verdict {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => broken(format!("{what} is {:?}, not {kind:?}", error.kind())),
        Ok(_) => broken(format!("{what} succeeds")),
    }
}

/// One law by its name: of registries, or of another kind of subject.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::conformance::{LAWS, Subject};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Arc::new(MemoryRegistry::default());
/// let subject = Subject::new(registry, Duration::from_secs(9), Duration::from_millis(10));
/// assert_eq!(LAWS[0].name(), "registered_instance_is_listed");
/// LAWS[0].check(&subject).await?;
/// # Ok(())
/// # }
/// ```
pub struct Law<S = Subject> {
    name: &'static str,
    check: for<'a> fn(&'a S) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>,
}

impl<S> Law<S> {
    /// Its name, which says what must hold.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a fresh subject keeps it.
    pub async fn check(&self, subject: &S) -> Result<(), Violation> {
        (self.check)(subject).await
    }
}

impl<S> Clone for Law<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Law<S> {}

impl<S> fmt::Debug for Law<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Law").field(&self.name).finish()
    }
}

macro_rules! list {
    (
        ($d:tt) $laws:ident of $subject:ty, $(#[$doc:meta])* $suite_of:ident by $enforce:ident:
        $($module:ident::$law:ident)+
    ) => {
        /// All laws.
        pub const $laws: &[$crate::conformance::Law<$subject>] = &[$($crate::conformance::Law {
            name: stringify!($law),
            check: |subject| Box::pin($module::$law(subject)),
        }),+];

        /// Checks the law of this name, and panics with what was found if it is broken.
        ///
        /// # Panics
        ///
        /// If the law is broken, or there is none of this name: it is meant for tests.
        #[doc(hidden)]
        pub async fn $enforce(name: &str, subject: &$subject) {
            $crate::conformance::enforce_one_of($laws, name, subject).await;
        }

        $(#[$doc])*
        ///
        /// The arguments: a name for the module, an async function or closure that makes a fresh subject, and
        /// options for `#[tokio::test]`; tokio with the features `macros` and `rt` is needed.
        #[macro_export]
        macro_rules! $suite_of {
            ($suite:ident, $fresh:expr $d(, $option:ident = $value:tt)* $d(,)?) => {
                mod $suite {
                    use super::*;

                    $(
                        #[tokio::test($d($option = $value),*)]
                        async fn $law() {
                            let subject = ($fresh)().await;
                            $crate::conformance::$enforce(stringify!($law), &subject).await;
                        }
                    )+
                }
            };
        }
    };
}

use list;

#[expect(clippy::panic, reason = "a test fails by panicking")]
async fn enforce_one_of<S>(laws: &[Law<S>], name: &str, subject: &S) {
    let Some(law) = laws.iter().find(|law| law.name == name) else {
        panic!("there is no law {name}");
    };
    if let Err(violation) = law.check(subject).await {
        panic!("{name}: {violation}");
    }
}

list! {
    ($) LAWS of Subject,
    /// Stamps a module with one test per law of a [`Subject`](crate::conformance::Subject).
    registry_suite by enforce:
    lease::registered_instance_is_listed
    lease::incarnations_rise
    lease::registering_anew_replaces_the_ghost
    lease::stale_lease_cannot_deregister
    lease::status_needs_the_lease
    lease::status_change_keeps_the_lease
    lease::unrenewed_lease_expires
    lease::lapsed_lease_is_refused
    lease::renewal_extends_the_lease
    lease::deregistered_instance_is_gone_at_once
    lease::deregistering_twice_succeeds
    lease::zero_ttl_is_invalid
    lease::ids_belong_to_their_service
    lease::revisions_rise
    lease::all_services_are_covered
    lease::override_is_listed
    watch::override_outlives_the_registration
    watch::watch_tells_overrides
    watch::renewal_is_silent
    watch::watch_begins_at_its_revision
    watch::watch_resumes_where_another_ended
    watch::watch_keeps_the_order
    watch::watch_delivers_each_change_once
    watch::watch_tells_deregistration
    watch::watch_tells_expiry
    watch::watch_tells_replacement
    watch::watch_keeps_to_its_scope
    watch::cancelled_wait_loses_nothing
    watch::forgotten_revision_says_resync
    watch::unknown_revision_says_resync
}
