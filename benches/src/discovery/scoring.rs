//! Scoring all candidates of a pool by the four factors, beside a plain sum over the same candidates.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use orchestra_core::{Locality, Monotonic, Outcome, Score};
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Balancer, Candidates, FourFactors, PickContext, PoolMembers, Prepared, Resolver, Scorer,
};

use super::{instance, resolver_of, snapshot};
use crate::measure::Session;

/// What is done with all candidates of a pool.
type Pass = fn(&FourFactors, &Candidates<'_>, &PickContext<'_>, &mut [Option<Score>]);

/// Candidates exist within a pick alone, so what is measured happens there, so many times.
#[derive(Debug)]
struct Bench {
    scorer: FourFactors,
    pass: Pass,
    passes: AtomicU64,
    nanos: AtomicU64,
}

impl Balancer for Bench {
    /// The one whose index is drawn.
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let passes = self.passes.load(Ordering::Relaxed);
        if passes > 0 {
            let mut scores = vec![None; candidates.len()];
            let begun = Instant::now();
            for _ in 0..passes {
                (self.pass)(&self.scorer, candidates, context, &mut scores);
            }
            let nanos = begun.elapsed().as_nanos();
            self.nanos.store(nanos as u64, Ordering::Relaxed);
        }
        usize::try_from(context.draw).ok()
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.scorer.prepare(members, before)
    }
}

/// At one time per candidate, for 1,000 to 100,000 of them.
pub fn figures(session: &Session) {
    let plain = session.for_subject("plain-sum");
    let subjects: [(&Session, Pass); 2] = [(session, score_all), (&plain, sum)];
    for instances in [1_000, 10_000, 100_000] {
        for (session, pass) in subjects {
            let figure = format!("discovery_score_{instances}");
            let (bench, resolver) = busy(instances, pass);
            session.time(&figure, |count| {
                let passes = count.div_ceil(u64::from(instances));
                bench.passes.store(passes, Ordering::Relaxed);
                drop(resolver.choose(&context(0)));
                let nanos = bench.nanos.load(Ordering::Relaxed) as f64;
                let candidates = passes * u64::from(instances);
                Duration::from_nanos((nanos * count as f64 / candidates as f64) as u64)
            });
        }
    }
}

fn score_all(
    scorer: &FourFactors,
    candidates: &Candidates<'_>,
    context: &PickContext<'_>,
    scores: &mut [Option<Score>],
) {
    scorer.score_all(candidates, context, scores);
    black_box(scores);
}

/// What the factors are made of, but for where a candidate is. A moment before all calls is one that no average
/// has decayed at, so what is there is read, and no more.
fn sum(_: &FourFactors, candidates: &Candidates<'_>, _: &PickContext<'_>, _: &mut [Option<Score>]) {
    let mut sum = 0.0;
    for index in 0..candidates.len() {
        sum += candidates.success(index)
            + f64::from(candidates.in_flight(index))
            + candidates
                .latency(index, Monotonic::ZERO)
                .unwrap_or_default();
    }
    black_box(sum);
}

static HERE: LazyLock<Locality> = LazyLock::new(|| Locality::new("eu-west").zone("a"));

/// The pick of the candidate at this index, a minute after the start.
fn context(index: u64) -> PickContext<'static> {
    let now = Monotonic::ZERO + Duration::from_secs(60);
    PickContext::new(now, index).locality(&HERE)
}

/// A resolver with so many instances in three zones of two regions, each of which had a few calls of one latency
/// or another in the last half minute, failed some, and has some in flight.
fn busy(instances: u32, pass: Pass) -> (Arc<Bench>, Resolver) {
    let bench = Arc::new(Bench {
        scorer: FourFactors::default(),
        pass,
        passes: AtomicU64::new(0),
        nanos: AtomicU64::new(0),
    });
    let member = |number: u32| {
        let mut instance = (*instance(number, 1)).clone();
        let region = ["eu-west", "us-east"][number as usize % 2];
        instance.locality = Locality::new(region).zone(["a", "b", "c"][number as usize % 3]);
        Arc::new(instance)
    };
    let members = snapshot((0..instances).map(member).collect());
    let config = Config::default().balancer(Arc::clone(&bench) as Arc<dyn Balancer>);
    let resolver = resolver_of(config, &members);
    let mut rng = fastrand::Rng::with_seed(9);
    for index in 0..u64::from(instances) {
        let end = context(index).now;
        for age in [rng.u64(20_000..30_000), rng.u64(1..20_000)] {
            let mut begun = context(index);
            begun.now = Monotonic::from_nanos(end.as_nanos() - age * 1_000_000);
            let choice = resolver.choose(&begun).expect("all are ready");
            let outcome = if rng.u8(..) < 8 {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            let took = Duration::from_micros(rng.u64(500..100_000));
            resolver.settle(choice.token, outcome, begun.now + took);
        }
        for _ in 0..rng.u32(0..4) {
            drop(resolver.choose(&context(index)));
        }
    }
    (bench, resolver)
}
