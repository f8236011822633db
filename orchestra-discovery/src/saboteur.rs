//! Registries that break one law each, to prove that the suite would notice.
//!
//! ```
//! use std::sync::Arc;
//! use orchestra_discovery::MemoryRegistry;
//! use orchestra_discovery::saboteur::{Saboteur, Sabotage};
//!
//! let sabotage = Sabotage::RevivesLapsedLeases;
//! let registry = Saboteur::new(Arc::new(MemoryRegistry::default()), sabotage);
//! assert_eq!(sabotage.breaks(), "lapsed_lease_is_refused");
//! ```

mod source;
mod stream;

pub use source::{SourceSabotage, SourceSaboteur};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{InstanceId, Labels, ServiceName};
use parking_lot::Mutex;

use self::stream::SabotagedWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Instance, Override, Registration, Status};
use crate::registry::{Lease, Registry};
use crate::source::{Capabilities, Revision, Scope, Snapshot, Source, Watch, WatchEvent};

macro_rules! sabotages {
    ($($(#[$doc:meta])* $name:ident breaks $law:ident,)+) => {
        /// What a [`Saboteur`] does wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Sabotage {
            $($(#[$doc])* $name,)+
        }

        impl Sabotage {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The law that it breaks; it keeps all others.
            pub const fn breaks(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($law),)+
                }
            }
        }
    };
}

sabotages! {
    /// Registers without the labels.
    DropsLabels breaks registered_instance_is_listed,
    /// Counts incarnations down.
    LowersIncarnations breaks incarnations_rise,
    /// Renews a replaced lease.
    WelcomesGhosts breaks registering_anew_replaces_the_ghost,
    /// A replaced lease deregisters its heir.
    LetsGhostsDeregister breaks stale_lease_cannot_deregister,
    /// Says that a status was set though the lease is gone.
    AcceptsAnyStatus breaks status_needs_the_lease,
    /// Says that a status was set and does not set it.
    IgnoresStatus breaks status_change_keeps_the_lease,
    /// Lists what has lapsed.
    ListsTheLapsed breaks unrenewed_lease_expires,
    /// Renews a lapsed lease.
    RevivesLapsedLeases breaks lapsed_lease_is_refused,
    /// Says that a lease was renewed and does not renew it.
    IgnoresRenewals breaks renewal_extends_the_lease,
    /// Lists what was deregistered.
    ListsTheDeregistered breaks deregistered_instance_is_gone_at_once,
    /// Refuses to deregister what is gone.
    DeregistersOnce breaks deregistering_twice_succeeds,
    /// Takes a ttl of zero for an hour.
    GrantsZeroTtl breaks zero_ttl_is_invalid,
    /// Takes ids for unique among all services.
    MixesServices breaks ids_belong_to_their_service,
    /// Gives every snapshot the revision of the first.
    FreezesRevisions breaks revisions_rise,
    /// Says that there is nothing when asked for all services.
    HidesAllServices breaks all_services_are_covered,
    /// Lists no overrides.
    HidesOverrides breaks override_is_listed,
    /// Lists a new registration without the override of its id.
    ForgetsOverrides breaks override_outlives_the_registration,
    /// Does not deliver overrides.
    LosesOverrides breaks watch_tells_overrides,
    /// Tells watches of renewals.
    TellsRenewals breaks renewal_is_silent,
    /// Begins every watch now.
    BeginsWatchesNow breaks watch_begins_at_its_revision,
    /// A watch always says that it is where it began.
    ForgetsProgress breaks watch_resumes_where_another_ended,
    /// Delivers what it has backwards.
    ReversesChanges breaks watch_keeps_the_order,
    /// Delivers everything twice.
    RepeatsChanges breaks watch_delivers_each_change_once,
    /// Does not deliver deregistrations.
    LosesDeregistrations breaks watch_tells_deregistration,
    /// Does not deliver expiries.
    LosesExpiries breaks watch_tells_expiry,
    /// Does not deliver that a ghost is gone.
    LosesReplacements breaks watch_tells_replacement,
    /// Delivers the changes of all services.
    WidensScopes breaks watch_keeps_to_its_scope,
    /// Loses what it has read when the reader goes away.
    LosesOnCancel breaks cancelled_wait_loses_nothing,
    /// Goes on from the present where changes were forgotten.
    SkipsTheForgotten breaks forgotten_revision_says_resync,
    /// Goes on from the present where a revision was never given out.
    TrustsAnyRevision breaks unknown_revision_says_resync,
}

/// A registry with one fault.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::saboteur::{Sabotage, Saboteur};
/// use orchestra_discovery::{MemoryRegistry, Registration, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let honest = Arc::new(MemoryRegistry::default());
/// let registry = Saboteur::new(honest, Sabotage::ALL[0]);
/// registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// println!("it breaks {}", Sabotage::ALL[0].breaks());
/// # Ok(())
/// # }
/// ```
pub struct Saboteur {
    inner: Arc<dyn Registry>,
    sabotage: Sabotage,
    seen: Mutex<Vec<Seen>>,
    first: Mutex<Option<Revision>>,
}

/// A registration, and whether it was given back since.
struct Seen {
    lease: Lease,
    instance: Arc<Instance>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Replaced,
    GivenBack,
}

impl Saboteur {
    /// Breaks one law of a registry that keeps them all.
    pub fn new(inner: Arc<dyn Registry>, sabotage: Sabotage) -> Self {
        Self {
            inner,
            sabotage,
            seen: Mutex::default(),
            first: Mutex::default(),
        }
    }

    fn is(&self, sabotage: Sabotage) -> bool {
        self.sabotage == sabotage
    }

    fn turn(&self, incarnation: Incarnation) -> Incarnation {
        if self.is(Sabotage::LowersIncarnations) {
            stream::turned(incarnation)
        } else {
            incarnation
        }
    }

    /// The lease as the registry inside knows it.
    fn inside(&self, lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        lease.incarnation = self.turn(lease.incarnation);
        lease
    }

    fn note(&self, registration: &Registration, lease: &Lease) {
        let mut seen = self.seen.lock();
        for seen in seen.iter_mut() {
            if seen.lease.service == lease.service && seen.lease.id == lease.id {
                seen.state = State::Replaced;
            }
        }
        seen.push(Seen {
            lease: lease.clone(),
            instance: Arc::new(registration.instance(lease.incarnation)),
            state: State::Held,
        });
    }

    fn state(&self, lease: &Lease) -> Option<State> {
        let seen = self.seen.lock();
        let found = seen.iter().find(|seen| seen.lease == *lease);
        found.map(|seen| seen.state)
    }

    fn give_back(&self, lease: &Lease) {
        let mut seen = self.seen.lock();
        let held = seen.iter_mut().filter(|seen| seen.state == State::Held);
        for seen in held.filter(|seen| seen.lease == *lease) {
            seen.state = State::GivenBack;
        }
    }

    fn with_state(&self, state: State) -> Vec<Arc<Instance>> {
        let seen = self.seen.lock();
        let found = seen.iter().filter(|seen| seen.state == state);
        found.map(|seen| Arc::clone(&seen.instance)).collect()
    }

    async fn is_forgotten(&self, scope: &Scope, after: Revision) -> Result<bool> {
        let mut watch = self.inner.watch(scope, after).await?;
        let said = tokio::time::timeout(Duration::ZERO, watch.next()).await;
        Ok(matches!(said, Ok(Ok(WatchEvent::Resync))))
    }

    /// Registrations of the same id, in whatever service.
    fn namesakes(&self, registration: &Registration) -> Vec<Lease> {
        let seen = self.seen.lock();
        let same = seen.iter().filter(|seen| {
            seen.lease.id == registration.id && seen.lease.service != registration.service
        });
        same.map(|seen| seen.lease.clone()).collect()
    }

    fn heirs(&self, lease: &Lease) -> Vec<Lease> {
        let seen = self.seen.lock();
        let heirs = seen.iter().filter(|seen| {
            seen.state == State::Held
                && seen.lease.id == lease.id
                && seen.lease.service == lease.service
        });
        heirs.map(|seen| seen.lease.clone()).collect()
    }
}

impl fmt::Debug for Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saboteur")
            .field("sabotage", &self.sabotage)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for Saboteur {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        let snapshot = self.inner.snapshot(scope).await?;
        let mut revision = snapshot.revision();
        let mut instances = snapshot.instances().to_vec();
        match self.sabotage {
            Sabotage::ListsTheLapsed => instances.extend(self.with_state(State::Held)),
            Sabotage::ListsTheDeregistered => instances.extend(self.with_state(State::GivenBack)),
            Sabotage::HidesAllServices if *scope == Scope::All => instances.clear(),
            Sabotage::HidesOverrides => {
                instances = instances.iter().map(stream::without_override).collect();
            }
            Sabotage::FreezesRevisions => revision = *self.first.lock().get_or_insert(revision),
            Sabotage::LowersIncarnations => {
                instances = instances.iter().map(stream::turned_instance).collect();
            }
            _ => {}
        }
        Ok(Snapshot::new(scope.clone(), revision, instances))
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let latest = self.inner.snapshot(scope).await?.revision();
        let scope = match self.sabotage {
            Sabotage::WidensScopes => &Scope::All,
            _ => scope,
        };
        let after = match self.sabotage {
            Sabotage::BeginsWatchesNow if !self.is_forgotten(scope, after).await? => {
                after.max(latest)
            }
            Sabotage::TrustsAnyRevision => after.min(latest),
            _ => after,
        };
        let watch = self.inner.watch(scope, after).await?;
        let again = self.inner.watch(scope, latest).await?;
        let is_past = after <= latest;
        let stream = SabotagedWatch::new(watch, again, self.sabotage, after, is_past);
        Ok(Watch::new(stream))
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[async_trait]
impl Registry for Saboteur {
    async fn register(&self, mut registration: Registration) -> Result<Lease> {
        match self.sabotage {
            Sabotage::DropsLabels => registration.labels = Labels::new(),
            Sabotage::GrantsZeroTtl if registration.ttl.is_zero() => {
                registration.ttl = Duration::from_secs(3_600);
            }
            Sabotage::ForgetsOverrides => {
                let Registration { service, id, .. } = &registration;
                self.inner.set_override(service, id, None).await?;
            }
            Sabotage::MixesServices => {
                for lease in self.namesakes(&registration) {
                    self.inner.deregister(&lease).await?;
                }
            }
            _ => {}
        }
        let mut lease = self.inner.register(registration.clone()).await?;
        lease.incarnation = self.turn(lease.incarnation);
        self.note(&registration, &lease);
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let lease = self.inside(lease);
        if self.is(Sabotage::IgnoresRenewals) {
            // Finds out whether it is held without extending it.
            return self.inner.set_status(&lease, Status::Ready).await;
        }
        let renewed = self.inner.renew(&lease).await;
        if self.is(Sabotage::TellsRenewals) && renewed.is_ok() {
            self.inner.set_status(&lease, Status::Starting).await?;
            self.inner.set_status(&lease, Status::Ready).await?;
        }
        let kind = renewed.as_ref().err().map(Error::kind);
        match (self.sabotage, kind) {
            (Sabotage::WelcomesGhosts, Some(ErrorKind::Replaced))
            | (Sabotage::RevivesLapsedLeases, Some(ErrorKind::LeaseLost)) => Ok(()),
            _ => renewed,
        }
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        let lease = self.inside(lease);
        match self.sabotage {
            // Finds out whether it is held without changing it.
            Sabotage::IgnoresStatus => match self.inner.renew(&lease).await {
                Ok(()) => Ok(()),
                Err(error) => Err(error),
            },
            Sabotage::AcceptsAnyStatus => {
                let _lost = self.inner.set_status(&lease, status).await.is_err();
                Ok(())
            }
            _ => self.inner.set_status(&lease, status).await,
        }
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        let state = self.state(lease);
        if self.is(Sabotage::DeregistersOnce) && state == Some(State::GivenBack) {
            return Err(Error::new(ErrorKind::LeaseLost, "it is gone already"));
        }
        if self.is(Sabotage::LetsGhostsDeregister) && state == Some(State::Replaced) {
            for heir in self.heirs(lease) {
                self.inner.deregister(&heir).await?;
            }
        }
        self.give_back(lease);
        self.inner.deregister(&self.inside(lease)).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        self.inner.set_override(service, id, forced).await
    }
}
