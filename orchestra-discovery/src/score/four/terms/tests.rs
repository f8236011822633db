use proptest::prelude::*;

use super::*;

/// A factor that has no weight or any other.
fn weight() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(1e-300),
        Just(1e300),
        Just(f64::MAX),
        0.1..100.0
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let weights = [weight(), weight(), weight(), weight()];
    let median = prop_oneof![
        Just(None),
        Just(Some(1e-9)),
        Just(Some(1.8e19)),
        (1e-4..10.0_f32).prop_map(Some)
    ];
    (weights, median).prop_filter_map("all weights are zero", |(weights, median)| {
        let [health, performance, proximity, load] = weights;
        let weights = Weights {
            health,
            performance,
            proximity,
            load,
        };
        let any = health + performance + proximity + load > 0.0;
        any.then(|| Terms::new(Parts::new(weights), median))
    })
}

/// What a candidate can be judged by at the worst: latencies from none to that of the longest duration, as many
/// calls in flight as are counted, the least of weights beside the greatest, no headroom left.
fn state() -> impl Strategy<Value = (State, usize)> {
    let latency = prop_oneof![
        Just(0.0),
        Just(f32::MIN_POSITIVE),
        Just(1.9e19_f32),
        0.0..10.0_f32
    ];
    let success = prop_oneof![Just(0.0), Just(1e-30), Just(1.0), 0.0..=1.0_f32];
    let load = prop_oneof![
        Just(1.0),
        Just(1.0 + u32::MAX as f32 * u32::MAX as f32 * 1024.0),
        1.0..100.0_f32
    ];
    (latency, success, load, 0..5_usize).prop_map(|(latency, success, load, steps)| {
        let state = State {
            latency,
            success,
            load,
            ..State::UNKNOWN
        };
        (state, steps)
    })
}

impl Terms {
    fn of(&self, (state, steps): (State, usize)) -> f32 {
        let near = self.near(steps);
        self.score(State { near, ..state })
    }
}

/// Scores that differ by less are equal but for rounding.
const ROUNDING: f32 = 4e-6;

proptest! {
    #[test]
    fn always_finite_and_in_its_range(terms in terms(), state in state()) {
        let score = terms.of(state);
        prop_assert!((0.0..=1.0).contains(&score), "{score}");
    }

    #[test]
    fn never_falls_as_a_factor_rises(terms in terms(), state in state(), other in state()) {
        let score = terms.of(state);
        let ((state, steps), (other, other_steps)) = (state, other);
        let better = [
            (State { latency: state.latency.min(other.latency), ..state }, steps),
            (State { success: state.success.max(other.success), ..state }, steps),
            (State { load: state.load.min(other.load), ..state }, steps),
            // Unknown is neither near nor far.
            (state, if steps == 0 { 0 } else { steps.max(other_steps) }),
        ];
        for better in better {
            prop_assert!(terms.of(better) >= score * (1.0 - ROUNDING), "{better:?}");
        }
    }

    #[test]
    fn is_the_weighted_geometric_mean(
        weights in [0.0..100.0_f64, 0.0..100.0, 0.0..100.0, 0.1..100.0],
        (success, ratio, load, steps) in (0.01..=1.0_f32, 0.01..100.0_f32, 1.0..100.0_f32, 1..5_usize),
    ) {
        let [health, performance, proximity, busy] = weights;
        let parts = Parts::new(Weights { health, performance, proximity, load: busy });
        let terms = Terms::new(parts, Some(0.25));
        let state = State { success, latency: ratio * 0.25, load, ..State::UNKNOWN };
        let nearness = [0.25_f64, 0.5, 0.75, 1.0][steps - 1];
        let factors = [f64::from(success), 1.0 / (1.0 + f64::from(ratio)), nearness, 1.0 / f64::from(load)];
        let total: f64 = weights.iter().sum();
        let logs = factors.iter().zip(weights).map(|(factor, weight)| weight / total * factor.ln());
        let expected = logs.sum::<f64>().exp();
        let found = f64::from(terms.of((state, steps)));
        prop_assert!((found / expected - 1.0).abs() < 2e-5, "{} {}", found, expected);
    }
}

#[test]
fn what_is_unknown_is_left_out() {
    let parts = Parts::new(Weights::default());
    let state = State {
        success: 0.5,
        latency: 9.0,
        ..State::UNKNOWN
    };
    // Health and load are left, 40 and 10, of which the load is perfect.
    let score = Terms::new(parts, None).of((state, 0));
    assert!((score - 0.5_f32.powf(0.8)).abs() < 1e-6, "{score}");
    let performance_alone = Weights::default().health(0.0).load(0.0).proximity(0.0);
    let terms = Terms::new(Parts::new(performance_alone), None);
    assert!(terms.near(0).inverse <= 0.0);
}

#[test]
fn whoever_fails_all_is_below_everybody_else() {
    let terms = Terms::new(Parts::new(Weights::default()), Some(0.01));
    let fails = State {
        success: 0.0009,
        ..State::UNKNOWN
    };
    let worst = State {
        success: 0.001,
        latency: 1.9e19,
        load: 1e12,
        ..State::UNKNOWN
    };
    assert!(terms.of((fails, 4)).abs() <= 0.0);
    assert!(terms.of((worst, 1)) > 0.0);
}
