//! Picking an instance and settling the call, with two readings of the clock as in a real call.

use std::hint::black_box;
use std::sync::Arc;

use orchestra_core::{Clock, Outcome, ServiceName, SystemClock};
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot, Status,
};

use crate::measure::{Session, alone};
use crate::tasks::{shared_by, two_workers};

/// A resolver with power of two choices over so many ready instances.
pub fn resolver(instances: u16) -> Resolver {
    let service: ServiceName = "payments".parse().expect("a name");
    let instance = |number: u16| {
        let id = format!("payments-{number}").parse().expect("an id");
        let endpoint = format!("10.0.0.1:{}", 1024 + number)
            .parse()
            .expect("an endpoint");
        let mut instance = Instance::new(service.clone(), id, Incarnation::new(1), endpoint);
        instance.status = Status::Ready;
        Arc::new(instance)
    };
    let resolver = Resolver::new(service.clone(), Config::default());
    let instances = (0..instances).map(instance).collect();
    resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), instances));
    resolver
}

/// One caller of a resolver.
#[derive(Debug)]
pub struct Caller {
    resolver: Resolver,
    clock: SystemClock,
    rng: fastrand::Rng,
}

impl Caller {
    /// A caller with its own clock and draws.
    pub fn new(resolver: &Resolver) -> Self {
        Self {
            resolver: resolver.clone(),
            clock: SystemClock::new(),
            rng: fastrand::Rng::with_seed(7),
        }
    }

    /// Picks, holds the guard for no time, and settles.
    pub fn call(&mut self) {
        let context = PickContext::new(self.clock.now(), self.rng.u64(..));
        let call = self.resolver.pick(&context).expect("all are ready");
        black_box(call.instance());
        call.settle(Outcome::Success, self.clock.now());
    }
}

/// Alone, and shared between tasks.
pub fn figures(session: &Session) {
    for instances in [10, 1_000] {
        let mut caller = Caller::new(&resolver(instances));
        let figure = format!("discovery_pick_settle_{instances}");
        session.time(&figure, alone(|| caller.call()));
    }
    let runtime = two_workers();
    let resolver = resolver(1_000);
    for tasks in [1, 16] {
        let work = |count| {
            let mut caller = Caller::new(&resolver);
            async move { (0..count).for_each(|_| caller.call()) }
        };
        let figure = format!("discovery_pick_settle_1000_shared_by_{tasks}");
        session.time(&figure, shared_by(tasks, &runtime, work));
    }
}
