use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Endpoint, InstanceId, Silent};
use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config};
use orchestra_mesh::conformance::{Law, breaker, pick};
use orchestra_mesh::pick::{Pick, RoundRobin, Target};
use orchestra_mesh::saboteur::{BreakerFault, BrokenBreaker, BrokenPick, PickFault};

#[expect(clippy::expect_used, reason = "the suites take breakers, not results")]
fn real_breaker() -> Arc<dyn CircuitBreaker> {
    let config = Config::default().consecutive_failures(5).probes(3);
    Arc::new(Breaker::new(config).expect("the configuration is valid"))
}

fn breakers(fresh: impl Fn() -> Arc<dyn CircuitBreaker> + 'static) -> breaker::Subject {
    breaker::Subject::new(fresh, 5, Duration::from_secs(1), 3)
}

fn targets(ids: &[InstanceId]) -> impl Iterator<Item = Target> {
    let endpoint = |port| Endpoint::Tcp(([127, 0, 0, 1], port).into());
    ids.iter()
        .zip(1..)
        .map(move |(id, port)| Target::new(id.clone(), endpoint(port)))
}

fn plain(ids: &[InstanceId]) -> Arc<dyn Pick> {
    Arc::new(RoundRobin::new(targets(ids)))
}

#[expect(clippy::expect_used, reason = "the suites take breakers, not results")]
fn guarded(ids: &[InstanceId]) -> Arc<dyn Pick> {
    let pick = RoundRobin::new(targets(ids)).breakers(Config::default(), &(Arc::new(Silent) as _));
    Arc::new(pick.expect("the configuration is valid"))
}

orchestra_mesh::breaker_suite!(default_breaker, breakers(real_breaker));
orchestra_mesh::pick_suite!(round_robin, pick::Subject::new(plain));
orchestra_mesh::pick_suite!(round_robin_with_breakers, pick::Subject::new(guarded));

#[test]
fn each_broken_breaker_breaks_exactly_its_law() {
    for fault in BreakerFault::ALL.iter().copied() {
        let subject = breakers(move || Arc::new(BrokenBreaker::new(real_breaker(), fault)));
        let broken: Vec<_> = breaker::laws()
            .iter()
            .filter(|law| law.check(&subject).is_err())
            .map(Law::name)
            .collect();
        assert_eq!(broken, [fault.law()], "{fault:?}");
    }
    let mut laws: Vec<_> = BreakerFault::ALL.iter().map(|fault| fault.law()).collect();
    laws.dedup();
    assert_eq!(laws.len(), breaker::laws().len());
}

#[test]
fn each_broken_pick_breaks_exactly_its_law() {
    for inner in [plain, guarded] {
        for fault in PickFault::ALL.iter().copied() {
            let subject =
                pick::Subject::new(move |ids| Arc::new(BrokenPick::new(inner(ids), fault)));
            let broken: Vec<_> = pick::laws()
                .iter()
                .filter(|law| law.check(&subject).is_err())
                .map(Law::name)
                .collect();
            assert_eq!(broken, [fault.law()], "{fault:?}");
        }
    }
    let mut laws: Vec<_> = PickFault::ALL.iter().map(|fault| fault.law()).collect();
    laws.dedup();
    assert_eq!(laws.len(), pick::laws().len());
}
