use orchestra_core::{Monotonic, Outcome};
use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config};
use orchestra_mesh::budget::Budget;
use orchestra_mesh::pick::{Pick, PickRequest, RoundRobin, Target};
use orchestra_testkit::{CountingAllocator, allocations};

use crate::upstream::Checked;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn picks_permits_and_budgets_allocate_nothing() -> Checked {
    let listener = std::sync::Arc::new(orchestra_core::Silent) as _;
    let target = |id: &str| -> Result<_, crate::upstream::Failure> {
        Ok(Target::new(id.parse()?, "127.0.0.1:1".parse()?))
    };
    let pick =
        RoundRobin::new([target("a")?, target("b")?]).breakers(Config::default(), &listener)?;
    let breaker = Breaker::new(Config::default())?;
    let budget = Budget::new(orchestra_mesh::budget::Config::default())?;
    assert!(allocations(|| drop(Box::new(1))) > 0, "the count works");
    let count = allocations(|| {
        for number in 0..1000 {
            let now = Monotonic::from_nanos(number * 1_000_000);
            if let Ok(picked) = pick.pick(&PickRequest::new(now, number)) {
                pick.complete(picked.token, Outcome::Success.into(), now);
            }
            if let Ok(permit) = breaker.try_acquire(now) {
                breaker.release(permit, Outcome::Failure, now);
            }
            budget.deposit(now);
            budget.try_withdraw(now);
        }
    });
    assert_eq!(count, 0);
    Ok(())
}
