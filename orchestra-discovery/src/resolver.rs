//! The members of one service, and which of them gets the next call.
//!
//! A pick loads an immutable view (one atomic load), asks the [`Balancer`] for an index, and asks the chosen
//! one's [`Gate`](crate::Gate); refused, it goes on to the others. It takes no lock and allocates nothing. Its
//! cost is the balancer's, unless gates refuse: then it is at most one question to each gate. Changes of the
//! membership build a new view, in time proportional to the members.

mod choice;
pub(crate) mod view;

pub use crate::slab::Token;
pub use choice::{Choice, InFlight, NoCandidate, PickContext};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use orchestra_core::{InstanceId, Listener, Monotonic, Outcome, ServiceName};
use parking_lot::Mutex;

use self::view::{Entry, Member, Refused, View};
use crate::balance::{Balancer, Candidates, P2c};
use crate::event::{Event, Events};
use crate::gate::{Gates, Open};
use crate::health::Health;
use crate::instance::{Incarnation, Instance};
use crate::slab::Slab;
use crate::source::{Revision, Snapshot};

/// What a [`Resolver`] is made of: power of two choices and open gates unless told otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    balancer: Arc<dyn Balancer>,
    gates: Arc<dyn Gates>,
    events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            balancer: Arc::new(P2c),
            gates: Arc::new(Open),
            events: Events::default(),
        }
    }
}

impl Config {
    /// Chooses with this balancer.
    #[must_use]
    pub fn balancer(mut self, balancer: Arc<dyn Balancer>) -> Self {
        self.balancer = balancer;
        self
    }

    /// Admits through these gates.
    #[must_use]
    pub fn gates(mut self, gates: Arc<dyn Gates>) -> Self {
        self.gates = gates;
        self
    }

    /// Tells this listener when members change.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}

/// Picks instances of one service; a clone is another handle to the same resolver.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{Monotonic, Outcome};
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::Config;
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
///
/// let now = Monotonic::ZERO; // a driver reads a clock
/// let call = resolver.pick(&PickContext::new(now, 42))?;
/// assert_eq!(call.instance().id.as_str(), "payments-1");
/// call.settle(Outcome::Success, Monotonic::from_nanos(1_000_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    service: ServiceName,
    balancer: Arc<dyn Balancer>,
    gates: Arc<dyn Gates>,
    events: Events,
    view: ArcSwap<View>,
    writer: Mutex<Writer>,
    changed: tokio::sync::watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct Writer {
    revision: Revision,
    members: BTreeMap<InstanceId, Member>,
    slab: Slab,
}

impl Resolver {
    /// A resolver without members.
    pub fn new(service: ServiceName, config: Config) -> Self {
        Self(Arc::new(Shared {
            service,
            balancer: config.balancer,
            gates: config.gates,
            events: config.events,
            view: ArcSwap::default(),
            writer: Mutex::default(),
            changed: tokio::sync::watch::Sender::default(),
        }))
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// Takes these as the members; those of other services are passed over.
    ///
    /// A member that stays under the same incarnation keeps its gate, its health, its latency and its calls
    /// in flight; one under a new incarnation begins anew.
    pub fn apply(&self, snapshot: &Snapshot) {
        let mut writer = self.0.writer.lock();
        writer.apply(&self.0.service, snapshot, &*self.0.gates);
        self.publish(&writer);
        self.0.events.emit(&Event::MembersChanged {
            service: self.0.service.clone(),
            revision: writer.revision,
            members: writer.members.len(),
        });
    }

    /// Takes a verdict on one member; another incarnation than the present one is not meant.
    ///
    /// An unhealthy member gets no calls. Returns whether anything changed.
    pub fn set_health(&self, id: &InstanceId, incarnation: Incarnation, health: Health) -> bool {
        let mut writer = self.0.writer.lock();
        let changed = match writer.members.get_mut(id) {
            Some(member) if member.instance.incarnation == incarnation => {
                std::mem::replace(&mut member.health, health) != health
            }
            _ => false,
        };
        if changed {
            self.publish(&writer);
        }
        changed
    }

    fn publish(&self, writer: &Writer) {
        let members = writer.members.values();
        let view = View::new(writer.revision, members, writer.slab.len());
        self.0.view.store(Arc::new(view));
        self.0.changed.send_replace(writer.revision);
    }

    /// All members, whether they take calls or not.
    pub fn members(&self) -> Vec<Arc<Instance>> {
        let writer = self.0.writer.lock();
        let members = writer.members.values();
        members.map(|member| Arc::clone(&member.instance)).collect()
    }

    /// Wakes when members or their health changed.
    pub(crate) fn changed(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.0.changed.subscribe()
    }

    /// The revision of the members.
    pub fn revision(&self) -> Revision {
        self.0.view.load().revision
    }

    /// The calls of one member that are not settled; `None` if it is no member.
    pub fn in_flight(&self, id: &InstanceId) -> Option<u32> {
        let writer = self.0.writer.lock();
        writer.members.get(id).map(|member| member.slot.in_flight())
    }

    /// Picks an instance for one call, which the returned guard settles.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<InFlight, NoCandidate> {
        let choice = self.choose(context)?;
        Ok(InFlight::new(self.clone(), choice))
    }

    /// Picks an instance for one call, which the caller settles by [`Resolver::settle`].
    pub fn choose(&self, context: &PickContext<'_>) -> Result<Choice, NoCandidate> {
        let view = self.0.view.load();
        let mut refused = Refused::default();
        while !refused.is_full() {
            let candidates = Candidates::new(&view, context, &refused);
            // A balancer of somebody else may answer anything; what is not open counts as no answer.
            let chosen = self.0.balancer.choose(&candidates, context);
            let Some(index) = chosen.filter(|&index| candidates.is_open(index)) else {
                break;
            };
            if let Some(choice) = admit(&view, index, context.now, &mut refused) {
                return Ok(choice);
            }
        }
        self.choose_any(&view, context, refused)
    }

    /// The first that admits, from a drawn place on; reached only when gates refuse or nothing is open.
    fn choose_any(
        &self,
        view: &View,
        context: &PickContext<'_>,
        mut refused: Refused,
    ) -> Result<Choice, NoCandidate> {
        let start = Candidates::new(view, context, &refused).sample(context.draw);
        let start = start.unwrap_or_default();
        for index in (start..view.ready.len()).chain(0..start) {
            if Candidates::new(view, context, &refused).is_open(index)
                && let Some(choice) = admit(view, index, context.now, &mut refused)
            {
                return Ok(choice);
            }
        }
        Err(NoCandidate::new(&self.0.service, view, context, &refused))
    }

    /// Says what became of a call. A token of an instance that is gone, or was replaced, settles nothing.
    pub fn settle(&self, token: Token, outcome: Outcome, now: Monotonic) {
        let view = self.0.view.load();
        if let Some(slot) = view.slot(token) {
            slot.settle(token, outcome, now);
        }
    }
}

fn admit(view: &View, index: usize, now: Monotonic, refused: &mut Refused) -> Option<Choice> {
    let Entry { slot, instance, .. } = view.ready.get(index)?;
    match slot.gate().try_admit(now) {
        Ok(gate) => Some(Choice {
            instance: Arc::clone(instance),
            token: slot.begin(gate, now),
        }),
        Err(refusal) => {
            refused.add(index, refusal);
            None
        }
    }
}

impl Writer {
    fn apply(&mut self, service: &ServiceName, snapshot: &Snapshot, gates: &dyn Gates) {
        self.revision = snapshot.revision();
        let mut before = std::mem::take(&mut self.members);
        for instance in snapshot.instances() {
            if instance.service != *service {
                continue;
            }
            let kept = before
                .remove(&instance.id)
                .and_then(|member| self.keep(member, instance));
            let member = kept.unwrap_or_else(|| self.admit(instance, gates));
            match self.members.entry(instance.id.clone()) {
                MapEntry::Vacant(vacant) => {
                    vacant.insert(member);
                }
                // A snapshot lists each id once.
                MapEntry::Occupied(_) => self.slab.release(&member.slot),
            }
        }
        for member in before.values() {
            self.slab.release(&member.slot);
        }
    }

    fn keep(&mut self, mut member: Member, instance: &Arc<Instance>) -> Option<Member> {
        if member.instance.incarnation != instance.incarnation {
            self.slab.release(&member.slot);
            return None;
        }
        member.instance = Arc::clone(instance);
        Some(member)
    }

    fn admit(&mut self, instance: &Arc<Instance>, gates: &dyn Gates) -> Member {
        Member {
            instance: Arc::clone(instance),
            slot: self.slab.allocate(gates.bind(instance)),
            health: Health::default(),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0.view.load();
        f.debug_struct("Resolver")
            .field("service", &self.0.service)
            .field("revision", &view.revision)
            .field("ready", &view.ready.len())
            .finish_non_exhaustive()
    }
}

/// The shortest of two waits, either of which may be unknown.
fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
