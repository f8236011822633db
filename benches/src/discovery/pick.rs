//! Picking an instance and settling the call, with a reading of the clock: the moment in which a call is settled
//! is that of the next pick, as it is to a proxy that has both to do.

use std::hint::black_box;
use std::sync::Arc;

use orchestra_core::{Clock, Monotonic, Outcome, SystemClock};
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{Balancer, P2c, PickContext, Resolver, Weighted};

use super::{resolver, resolver_of, weighted as weighted_members, weights};
use crate::measure::{Session, alone};
use crate::tasks::{shared_by, two_workers};

/// One caller of a resolver.
#[derive(Debug)]
pub struct Caller {
    resolver: Resolver,
    clock: SystemClock,
    pub(super) now: Monotonic,
    rng: fastrand::Rng,
}

impl Caller {
    /// A caller with its own clock.
    pub fn new(resolver: &Resolver) -> Self {
        Self::seeded(resolver, SystemClock::new(), 7)
    }

    /// A caller with its own draws; those that meet at a resolver go by one clock.
    fn seeded(resolver: &Resolver, clock: SystemClock, seed: u64) -> Self {
        Self {
            resolver: resolver.clone(),
            now: clock.now(),
            clock,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Picks, holds the guard for no time, and settles.
    #[inline]
    pub fn call(&mut self) {
        let context = PickContext::new(self.now, self.rng.u64(..));
        let call = self.resolver.pick(&context).expect("all are ready");
        black_box(call.instance());
        self.now = self.clock.now();
        call.settle(Outcome::Success, self.now);
    }

    /// Picks, and that is all: the call stays in flight. The moment stands still, so that no clock is read.
    fn choose(&mut self, now: Monotonic) {
        let context = PickContext::new(now, self.rng.u64(..));
        black_box(self.resolver.choose(&context)).expect("all are ready");
    }

    pub(super) fn calls(&mut self, count: u32) {
        (0..count).for_each(|_| self.call());
    }
}

/// Power of two choices: alone, by two threads, and shared between tasks.
pub fn figures(session: &Session) {
    for instances in [10, 1_000, 10_000, 100_000] {
        let mut caller = Caller::new(&resolver(instances));
        caller.calls(3 * instances);
        let figure = format!("discovery_pick_settle_{instances}");
        session.time(&figure, alone(|| caller.call()));
        if instances == 10_000 {
            let session = session.for_subject("own-10000");
            session.time("discovery_pick_settle_100000", alone(|| caller.call()));
        }
    }
    two_threads(session);
    let runtime = two_workers();
    for instances in [1_000, 10_000] {
        let (resolver, clock) = (resolver(instances), SystemClock::new());
        for tasks in [1, 2, 16] {
            let work = |count| {
                let seed = fastrand::u64(..);
                let mut caller = Caller::seeded(&resolver, clock, seed);
                async move { (0..count).for_each(|_| caller.call()) }
            };
            let figure = format!("discovery_pick_settle_{instances}_shared_by_{tasks}");
            session.time(&figure, shared_by(tasks, &runtime, work));
        }
    }
}

/// Both threads are callers of one resolver.
fn two_threads(session: &Session) {
    let figure = "discovery_pick_settle_10000_2_threads";
    let (resolver, clock) = (resolver(10_000), SystemClock::new());
    let caller = || Caller::seeded(&resolver, clock, fastrand::u64(..));
    caller().calls(30_000);
    session.time_of_two(figure, || {
        let mut caller = caller();
        move || caller.call()
    });
    let mut caller = caller();
    let session = session.for_subject("own-1-thread");
    session.time_of_one(figure, || caller.call());
}

/// Picks by weights from 1 to 65,535 alone, and how near the shares come to them.
pub fn weighted(session: &Session) {
    let weights = weights(10_000);
    let members = weighted_members(&weights);
    let p2c = session.for_subject("p2c");
    let balancers: [(&Session, Arc<dyn Balancer>); 2] = [
        (session, Arc::new(Weighted::default())),
        (&p2c, Arc::new(P2c)),
    ];
    for (session, balancer) in balancers {
        let resolver = resolver_of(Config::default().balancer(balancer), &members);
        let mut caller = Caller::new(&resolver);
        // So many that the lightest ones too have a latency.
        caller.calls(100_000);
        let now = caller.clock.now();
        let figure = "discovery_weighted_pick_10000";
        session.time(figure, alone(|| caller.choose(now)));
    }

    let config = Config::default().balancer(Arc::new(Weighted::default()));
    let resolver = resolver_of(config, &members);
    let mut rng = fastrand::Rng::with_seed(5);
    shares(session, &weights, || {
        let context = PickContext::new(Monotonic::ZERO, rng.u64(..));
        let choice = resolver.choose(&context).expect("all are ready");
        let number = choice.instance.id.as_str().trim_start_matches("payments-");
        number.parse().expect("its place")
    });
    let mut rng = fastrand::Rng::with_seed(5);
    let sums: Vec<u64> = weights
        .iter()
        .scan(0, |sum, &weight| {
            *sum += u64::from(weight);
            Some(*sum)
        })
        .collect();
    let total = sums[sums.len() - 1];
    shares(&session.for_subject("random-draws"), &weights, || {
        let target = rng.u64(..total);
        sums.partition_point(|&sum| sum <= target)
    });
}

/// A million picks: by how much the share of one that expects a hundred of them or more is off at most, and
/// which part of all picks went to another than it should have (the total variation distance).
fn shares(session: &Session, weights: &[u32], mut pick: impl FnMut() -> usize) {
    let mut counts = vec![0_u32; weights.len()];
    for _ in 0..PICKS {
        counts[pick()] += 1;
    }
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let (mut greatest, mut variation) = (0.0_f64, 0.0);
    for (&count, &weight) in counts.iter().zip(weights) {
        let expected = f64::from(weight) / total * f64::from(PICKS);
        let off = (f64::from(count) - expected).abs();
        if expected >= 100.0 {
            greatest = greatest.max(off / expected);
        }
        variation += off / f64::from(PICKS) / 2.0;
    }
    let figure = "discovery_weighted_share_error_10000";
    session.value(&format!("{figure}_greatest"), greatest * 100.0, "%");
    session.value(&format!("{figure}_variation"), variation * 100.0, "%");
}

const PICKS: u32 = 1_000_000;
