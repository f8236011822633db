use std::time::Duration;

use orchestra_core::Monotonic;
use orchestra_mesh::Ratio;
use orchestra_mesh::budget::{Budget, Config};
use proptest::prelude::*;

use crate::upstream::Checked;

/// Keeps every event and counts them anew each time.
struct Model {
    config: (u32, u32, u64, u64),
    requests: Vec<u64>,
    retries: Vec<u64>,
}

impl Model {
    fn allows(&mut self, slot: u64) -> bool {
        let (part, whole, floor, seconds) = self.config;
        let recent = |events: &[u64]| events.iter().filter(|at| **at + 10 > slot).count() as u64;
        let (requests, retries) = (recent(&self.requests), recent(&self.retries));
        let allowed = (retries + 1) * u64::from(whole)
            <= requests * u64::from(part) + floor * seconds * u64::from(whole);
        if allowed {
            self.retries.push(slot);
        }
        allowed
    }
}

proptest! {
    #[test]
    fn the_budget_is_exact(
        whole in 1_u32..1000,
        part in 0_u32..1000,
        floor in 0_u32..4,
        seconds in 1_u64..30,
        steps in prop::collection::vec((0_u8..3, 0_u64..3_000), 1..400),
    ) {
        let part = part.min(whole);
        let config = Config::default()
            .ratio(Ratio::of(part, whole)?)
            .floor_per_second(floor)
            .window(Duration::from_secs(seconds));
        let budget = Budget::new(config)?;
        let slot = seconds * 100_000_000;
        let mut model = Model {
            config: (part, whole, u64::from(floor), seconds),
            requests: Vec::new(),
            retries: Vec::new(),
        };
        let mut millis = 0;
        for (action, pause) in steps {
            if action == 2 {
                millis += pause;
            }
            let nanos = millis * 1_000_000;
            let now = Monotonic::from_nanos(nanos);
            if action == 0 {
                budget.deposit(now);
                model.requests.push(nanos / slot);
            } else {
                prop_assert_eq!(budget.try_withdraw(now), model.allows(nanos / slot));
            }
        }
    }
}

#[test]
fn every_percentage_is_met_without_rounding() -> Checked {
    for percent in 0..=100 {
        let config = Config::default()
            .ratio(Ratio::percent(percent))
            .floor_per_second(0);
        let budget = Budget::new(config)?;
        let mut granted = 0;
        for _ in 0..1000 {
            budget.deposit(Monotonic::ZERO);
            while budget.try_withdraw(Monotonic::ZERO) {
                granted += 1;
            }
        }
        assert_eq!(granted, u32::from(percent) * 10);
    }
    Ok(())
}

#[test]
fn a_long_pause_costs_no_more_than_a_short_one() -> Checked {
    let budget = Budget::new(Config::default().floor_per_second(0))?;
    (0..5).for_each(|_| budget.deposit(Monotonic::ZERO));
    assert!(budget.try_withdraw(Monotonic::ZERO));
    // Slot by slot, a pause to the end of time would never end.
    assert!(!budget.try_withdraw(Monotonic::MAX));
    (0..5).for_each(|_| budget.deposit(Monotonic::MAX));
    assert!(budget.try_withdraw(Monotonic::MAX));
    Ok(())
}

#[test]
fn a_window_out_of_range_is_refused() {
    for seconds in [0, 3601] {
        let config = Config::default().window(Duration::from_secs(seconds));
        let error = Budget::new(config).expect_err("out of range");
        assert_eq!(
            error.to_string(),
            "the window of a retry budget is 1 s to 1 h"
        );
    }
}
