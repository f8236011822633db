//! Rise and fall against a brute-force model.

use std::num::NonZeroU32;

use orchestra_discovery::health::{Tally, Thresholds};
use orchestra_discovery::{Health, Verdict};
use proptest::prelude::*;

fn verdict(passes: bool) -> Verdict {
    if passes {
        Verdict::Pass
    } else {
        Verdict::Fail("503".to_owned())
    }
}

/// Recomputed from the whole history: the verdict that last came often enough in a row decides.
fn model(history: &[bool], rise: usize, fall: usize) -> Health {
    let mut healthy = match history.first() {
        None => return Health::Unchecked,
        Some(&first) => first,
    };
    for end in 1..=history.len() {
        let needed = if healthy { fall } else { rise };
        let run = history[..end]
            .iter()
            .rev()
            .take_while(|&&passes| passes != healthy);
        if run.count() >= needed {
            healthy = !healthy;
        }
    }
    if healthy {
        Health::Healthy
    } else {
        Health::Unhealthy
    }
}

proptest! {
    #[test]
    fn tally_agrees_with_the_model(
        history in proptest::collection::vec(any::<bool>(), 0..40),
        rise in 1..5_u32,
        fall in 1..5_u32,
    ) {
        let thresholds = Thresholds::new(
            NonZeroU32::new(rise).unwrap(),
            NonZeroU32::new(fall).unwrap(),
        );
        let mut tally = Tally::default();
        for (index, &passes) in history.iter().enumerate() {
            let before = tally.health();
            let changed = tally.observe(thresholds, &verdict(passes));
            let expected = model(&history[..=index], rise as usize, fall as usize);
            prop_assert_eq!(tally.health(), expected);
            prop_assert_eq!(changed, (before != expected).then_some(expected));
        }
    }
}
