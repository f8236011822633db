use std::fmt;
use std::sync::Arc;

use orchestra_core::ServiceName;

use super::{Change, Removal};
use crate::instance::Instance;

/// The number of a change; greater than that of every change before it in the same source.
///
/// ```
/// use orchestra_discovery::Revision;
///
/// assert!(Revision::new(8) > Revision::new(7));
/// assert_eq!(Revision::new(8).as_u64(), 8);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Whose members are meant.
///
/// ```
/// use orchestra_discovery::Scope;
///
/// let orders = Scope::Service("orders".parse()?);
/// assert!(orders.covers(&"orders".parse()?) && !orders.covers(&"carts".parse()?));
/// assert_eq!(orders.to_string(), "service orders");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Scope {
    /// Those of one service.
    Service(ServiceName),
    /// Those of every service.
    All,
}

impl Scope {
    /// Whether `service` is within the scope.
    pub fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::Service(name) => name == service,
            Self::All => true,
        }
    }
}

impl From<ServiceName> for Scope {
    fn from(service: ServiceName) -> Self {
        Self::Service(service)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::All => f.write_str("all services"),
        }
    }
}

/// The members of a scope at one revision, in the order of service and id.
///
/// ```
/// use orchestra_discovery::{Revision, Scope, Snapshot};
///
/// let empty = Snapshot::new(Scope::All, Revision::new(4), Vec::new());
/// assert_eq!(empty.revision(), Revision::new(4));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Raw"))]
pub struct Snapshot {
    scope: Scope,
    revision: Revision,
    instances: Vec<Arc<Instance>>,
}

#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Raw {
    scope: Scope,
    revision: Revision,
    instances: Vec<Arc<Instance>>,
}

#[cfg(feature = "serde")]
impl From<Raw> for Snapshot {
    fn from(raw: Raw) -> Self {
        Self::new(raw.scope, raw.revision, raw.instances)
    }
}

impl Snapshot {
    /// Sorts the instances; of those with the same id only the greatest incarnation stays, and those
    /// outside the scope go.
    pub fn new(scope: Scope, revision: Revision, mut instances: Vec<Arc<Instance>>) -> Self {
        instances.retain(|instance| scope.covers(&instance.service));
        instances.sort_by(|a, b| key(a).cmp(&key(b)).then(b.incarnation.cmp(&a.incarnation)));
        instances.dedup_by(|later, first| key(later) == key(first));
        Self {
            scope,
            revision,
            instances,
        }
    }

    /// Whose members these are.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The last change that is contained: a watch goes on from here.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The members.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// The members after `changes`, the last of which has `revision`.
    ///
    /// A removal of an older incarnation leaves a newer one alone.
    pub fn advance(&mut self, revision: Revision, changes: &[Change]) {
        self.revision = revision;
        for change in changes {
            match change {
                Change::Upserted(instance) => self.upsert(instance),
                Change::Removed(removal) => self.remove(removal),
            }
        }
    }

    fn upsert(&mut self, instance: &Arc<Instance>) {
        if !self.scope.covers(&instance.service) {
            return;
        }
        match self.position(&instance.service, instance.id.as_str()) {
            Ok(at) => {
                if let Some(held) = self.instances.get_mut(at)
                    && held.incarnation <= instance.incarnation
                {
                    *held = Arc::clone(instance);
                }
            }
            Err(at) => self.instances.insert(at, Arc::clone(instance)),
        }
    }

    fn remove(&mut self, removal: &Removal) {
        let found = self.position(&removal.service, removal.id.as_str());
        if let Ok(at) = found
            && let Some(held) = self.instances.get(at)
            && held.incarnation <= removal.incarnation
        {
            self.instances.remove(at);
        }
    }

    fn position(&self, service: &ServiceName, id: &str) -> Result<usize, usize> {
        self.instances
            .binary_search_by(|held| key(held).cmp(&(service, id)))
    }
}

fn key(instance: &Instance) -> (&ServiceName, &str) {
    (&instance.service, instance.id.as_str())
}
