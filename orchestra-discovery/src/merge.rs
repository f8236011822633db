//! One membership out of what several sources say of one service.
//!
//! Sources are given in the order of their precedence. An instance of a later source is the same as one of an
//! earlier source if it has its id, or else its endpoint (an IPv4 address mapped into IPv6 is the IPv4 address):
//! DNS knows addresses where a registry knows ids. Two ids of *one* source are never the same instance, even on
//! one endpoint. Where that leaves an id of a later source without a partner of its own, although its endpoint
//! is that of an earlier source's instance, it is left out: nobody gets a double share.
//!
//! Each field has the value of the first source that states it. Id and endpoint are stated by every source;
//! incarnation and status by the first that holds leases, and by the first of all if none does; weight,
//! priority, override, locality and probe by whoever has something else than the default there, as sources such
//! as DNS cannot leave a weight open. Labels are united, key by key.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use orchestra_core::{Endpoint, InstanceId, Labels, Locality};

use crate::instance::Instance;

/// A part of an instance that has an origin of its own.
///
/// ```
/// use orchestra_discovery::merge::Field;
///
/// assert_eq!(Field::Lease.to_string(), "lease");
/// assert_eq!(Field::Label("version".into()).to_string(), "label version");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The id.
    Id,
    /// The endpoint.
    Endpoint,
    /// The incarnation and the status, which belong together.
    Lease,
    /// The weight.
    Weight,
    /// The priority.
    Priority,
    /// The operator's override.
    Override,
    /// The locality.
    Locality,
    /// Where the health is asked.
    Probe,
    /// The label with this key.
    Label(Arc<str>),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Endpoint => "endpoint",
            Self::Lease => "lease",
            Self::Weight => "weight",
            Self::Priority => "priority",
            Self::Override => "override",
            Self::Locality => "locality",
            Self::Probe => "probe",
            Self::Label(key) => return write!(f, "label {key}"),
        })
    }
}

/// Which source stated what; a field that none stated has its default and is absent.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::merge::{Field, Statement, merge};
/// use orchestra_discovery::{Incarnation, Instance};
///
/// let mut listed = Instance::new(
///     "orders".parse()?, "orders-1".parse()?, Incarnation::new(7), "10.0.0.1:80".parse()?,
/// );
/// listed.weight = 3;
///
/// let statements = [Statement::new("registry", vec![Arc::new(listed)])];
/// let provenance = merge(&statements)[0].provenance();
/// assert_eq!(&*provenance[&Field::Weight], "registry");
/// assert!(!provenance.contains_key(&Field::Probe), "nobody stated one");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Provenance = BTreeMap<Field, Arc<str>>;

/// What one source says of a service.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::merge::Statement;
/// use orchestra_discovery::{Incarnation, Instance};
///
/// let mut listed = Instance::new(
///     "orders".parse()?, "orders-1".parse()?, Incarnation::new(7), "10.0.0.1:80".parse()?,
/// );
/// listed.weight = 3;
///
/// let statement = Statement::new("dns", vec![Arc::new(listed)]).without_leases();
/// assert!(!statement.leases);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Statement {
    /// The name of the source.
    pub source: Arc<str>,
    /// Whether its instances are there by leases, so that it knows incarnations.
    pub leases: bool,
    /// Its instances, each id once.
    pub instances: Vec<Arc<Instance>>,
}

impl Statement {
    /// A statement of a source that holds leases. Of instances with the same id the one of the greatest
    /// incarnation stays.
    pub fn new(source: impl Into<Arc<str>>, mut instances: Vec<Arc<Instance>>) -> Self {
        instances.sort_by(|a, b| a.id.cmp(&b.id).then(b.incarnation.cmp(&a.incarnation)));
        instances.dedup_by(|later, first| later.id == first.id);
        Self {
            source: source.into(),
            leases: true,
            instances,
        }
    }

    /// The same of a source that holds no leases.
    #[must_use]
    pub fn without_leases(mut self) -> Self {
        self.leases = false;
        self
    }
}

/// All that is said of one instance, in the order of precedence.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::merge::{Statement, merge};
/// use orchestra_discovery::{Incarnation, Instance};
///
/// let mut listed = Instance::new(
///     "orders".parse()?, "orders-1".parse()?, Incarnation::new(7), "10.0.0.1:80".parse()?,
/// );
/// listed.weight = 3;
///
/// let listed = Arc::new(listed);
/// let statements = [Statement::new("registry", vec![Arc::clone(&listed)])];
/// let merged = merge(&statements);
/// assert!(Arc::ptr_eq(&merged[0].instance(), &listed), "one source: its own instance");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Merged<'a>(Vec<(&'a Statement, &'a Arc<Instance>)>);

/// Finds which instances are the same, in the order of their ids.
///
/// Linear in the number of instances, but for the order.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::merge::{Field, Statement, merge};
/// use orchestra_discovery::{Incarnation, Instance};
///
/// let listed = Instance::new(
///     "orders".parse()?, "orders-1".parse()?, Incarnation::new(7), "10.0.0.1:80".parse()?,
/// );
/// let mut resolved = Instance::new(
///     "orders".parse()?, "a".parse()?, Incarnation::new(0), "[::ffff:10.0.0.1]:80".parse()?,
/// );
/// resolved.weight = 5;
/// let statements = [
///     Statement::new("registry", vec![Arc::new(listed)]),
///     Statement::new("dns", vec![Arc::new(resolved)]).without_leases(),
/// ];
/// let merged = merge(&statements);
/// assert_eq!(merged.len(), 1);
/// let instance = merged[0].instance();
/// assert_eq!((instance.id.as_str(), instance.weight), ("orders-1", 5));
/// assert_eq!(&*merged[0].provenance()[&Field::Weight], "dns");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn merge(statements: &[Statement]) -> Vec<Merged<'_>> {
    let mut groups = Groups::default();
    for (rank, statement) in statements.iter().enumerate() {
        let (known, new): (Vec<_>, Vec<_>) = statement
            .instances
            .iter()
            .partition(|instance| groups.by_id.contains_key(&instance.id));
        for instance in known.into_iter().chain(new) {
            groups.add(rank, statement, instance);
        }
    }
    let mut merged: Vec<_> = groups.all.into_iter().map(|group| group.merged).collect();
    merged.sort_by(|a, b| a.id().cmp(&b.id()));
    merged
}

/// The instances of [`merge`]; without its tables where one source alone has any, which is most often so.
pub(crate) fn instances(statements: Vec<Statement>) -> Vec<Arc<Instance>> {
    let speaking = statements.iter().filter(|said| !said.instances.is_empty());
    if speaking.count() > 1 {
        return merge(&statements).iter().map(Merged::instance).collect();
    }
    let mut instances: Vec<_> = statements
        .into_iter()
        .flat_map(|said| said.instances)
        .collect();
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    instances
}

struct Group<'a> {
    merged: Merged<'a>,
    /// The rank of the source that founded it, and of the last one that joined.
    founder: usize,
    last: usize,
}

#[derive(Default)]
struct Groups<'a> {
    all: Vec<Group<'a>>,
    by_id: HashMap<&'a InstanceId, usize>,
    by_endpoint: HashMap<Endpoint, usize>,
}

impl<'a> Groups<'a> {
    fn add(&mut self, rank: usize, statement: &'a Statement, instance: &'a Arc<Instance>) {
        let same_id = self.by_id.get(&instance.id).copied();
        let at = same_id.or_else(|| self.elsewhere(rank, &instance.endpoint));
        match at.and_then(|at| self.all.get_mut(at)) {
            Some(group) if group.last < rank => {
                group.last = rank;
                group.merged.0.push((statement, instance));
            }
            // Its source has said something else of that endpoint already.
            Some(_) => {}
            None => self.found(rank, statement, instance),
        }
    }

    /// The group that an earlier source founded on this endpoint.
    fn elsewhere(&self, rank: usize, endpoint: &Endpoint) -> Option<usize> {
        let at = *self.by_endpoint.get(&canonical(endpoint))?;
        self.all
            .get(at)
            .is_some_and(|group| group.founder < rank)
            .then_some(at)
    }

    fn found(&mut self, rank: usize, statement: &'a Statement, instance: &'a Arc<Instance>) {
        let at = self.all.len();
        self.by_id.insert(&instance.id, at);
        self.by_endpoint
            .entry(canonical(&instance.endpoint))
            .or_insert(at);
        self.all.push(Group {
            merged: Merged(vec![(statement, instance)]),
            founder: rank,
            last: rank,
        });
    }
}

/// The form in which two spellings of one address are equal.
pub(crate) fn canonical(endpoint: &Endpoint) -> Endpoint {
    match endpoint {
        Endpoint::Tcp(SocketAddr::V6(address)) => {
            Endpoint::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
        }
        other => other.clone(),
    }
}

impl Merged<'_> {
    pub(crate) fn id(&self) -> Option<&InstanceId> {
        self.0.first().map(|(_, instance)| &instance.id)
    }

    /// The instance that all of them make: that of the source itself if there is but one.
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "a group is founded by an instance and never shrinks"
    )]
    pub fn instance(&self) -> Arc<Instance> {
        let (_, first) = self.0.first().expect("a group has a founder");
        if self.0.len() == 1 {
            return Arc::clone(first);
        }
        let mut instance = Instance::clone(first);
        if let Some((_, lease)) = self.lease() {
            instance.incarnation = lease.incarnation;
            instance.status = lease.status;
        }
        if let Some((_, stated)) = self.first(weight) {
            instance.weight = stated.weight;
        }
        if let Some((_, stated)) = self.first(priority) {
            instance.priority = stated.priority;
        }
        if let Some((_, stated)) = self.first(forced) {
            instance.forced = stated.forced;
        }
        if let Some((_, stated)) = self.first(locality) {
            instance.locality = stated.locality.clone();
        }
        if let Some((_, stated)) = self.first(probe) {
            instance.probe.clone_from(&stated.probe);
        }
        instance.labels = self.labels();
        Arc::new(instance)
    }

    /// Which source stated what.
    pub fn provenance(&self) -> Provenance {
        let mut provenance = Provenance::new();
        let mut state = |field, stated: Option<&(&Statement, &Arc<Instance>)>| {
            if let Some((statement, _)) = stated {
                provenance.insert(field, Arc::clone(&statement.source));
            }
        };
        state(Field::Id, self.0.first());
        state(Field::Endpoint, self.0.first());
        state(Field::Lease, self.lease());
        state(Field::Weight, self.first(weight));
        state(Field::Priority, self.first(priority));
        state(Field::Override, self.first(forced));
        state(Field::Locality, self.first(locality));
        state(Field::Probe, self.first(probe));
        for stated in self.0.iter().rev() {
            for (key, _) in stated.1.labels.iter() {
                state(Field::Label(Arc::from(key)), Some(stated));
            }
        }
        provenance
    }

    fn first(&self, states: fn(&Instance) -> bool) -> Option<&(&Statement, &Arc<Instance>)> {
        self.0.iter().find(|(_, instance)| states(instance))
    }

    fn lease(&self) -> Option<&(&Statement, &Arc<Instance>)> {
        let holder = self.0.iter().find(|(statement, _)| statement.leases);
        holder.or_else(|| self.0.first())
    }

    fn labels(&self) -> Labels {
        let mut stated = self.0.iter().rev().map(|(_, instance)| &instance.labels);
        let last = stated.next().cloned().unwrap_or_default();
        stated.fold(last, |united, labels| {
            let mut pairs = labels.iter();
            // They were checked when they were made, so the first ones stay only in theory.
            let all = pairs.try_fold(united.clone(), |united, (key, value)| {
                if united.value(key) == Some(value) {
                    Ok(united)
                } else {
                    united.with(key, value)
                }
            });
            all.unwrap_or(united)
        })
    }
}

fn weight(instance: &Instance) -> bool {
    instance.weight != 1
}

fn priority(instance: &Instance) -> bool {
    instance.priority != 0
}

fn forced(instance: &Instance) -> bool {
    instance.forced.is_some()
}

fn locality(instance: &Instance) -> bool {
    instance.locality != Locality::default()
}

fn probe(instance: &Instance) -> bool {
    instance.probe.is_some()
}

#[cfg(test)]
mod tests;
