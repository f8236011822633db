//! The laws of [`Sampler`].

use orchestra_core::{SpanId, TraceContext, TraceId};

use super::Violation;
use crate::sample::{Candidate, Decision, Sampler};
use crate::trace::SpanKind;

/// A law: `Ok` when the sampler keeps it.
pub type Law = fn(&dyn Sampler) -> Result<(), Violation>;

/// The laws by their names.
pub const LAWS: [(&str, Law); 4] = [
    (
        "equal_candidates_get_equal_answers",
        equal_candidates_get_equal_answers,
    ),
    (
        "more_randomness_is_never_worse",
        more_randomness_is_never_worse,
    ),
    (
        "a_recorded_root_reaches_its_threshold",
        a_recorded_root_reaches_its_threshold,
    ),
    (
        "all_roots_above_the_threshold_are_recorded",
        all_roots_above_the_threshold_are_recorded,
    ),
];

const NAMES: [&str; 2] = ["GET /orders", "charge"];

/// 256 values of 56 bits, rising: the ends, the middle, and an even spread.
fn randomness() -> impl Iterator<Item = u64> {
    const LAST: u64 = (1 << 56) - 1;
    let spread = (1..253).map(|step| step * (LAST / 253));
    [0, 1].into_iter().chain(spread).chain([LAST - 1, LAST])
}

fn trace(randomness: u64) -> TraceId {
    TraceId::from_draw((0xfeed << 64) | u128::from(randomness))
}

fn parent(randomness: u64, sampled: bool) -> TraceContext {
    TraceContext::root(trace(randomness), SpanId::from_draw(7), sampled)
}

fn root(randomness: u64, name: &str) -> Candidate<'_> {
    Candidate::root(trace(randomness), name, SpanKind::Server)
}

/// Law 1.
pub fn equal_candidates_get_equal_answers(sampler: &dyn Sampler) -> Result<(), Violation> {
    for randomness in randomness() {
        for sampled in [None, Some(false), Some(true)] {
            let parent = sampled.map(|sampled| parent(randomness, sampled));
            let candidate = match &parent {
                Some(parent) => Candidate::child(parent, "charge", SpanKind::Internal),
                None => root(randomness, "charge"),
            };
            let (first, second) = (sampler.sample(&candidate), sampler.sample(&candidate));
            Violation::unless(first == second, || {
                format!("first {first:?}, then {second:?} for {candidate:?}")
            })?;
        }
    }
    Ok(())
}

/// Law 2.
pub fn more_randomness_is_never_worse(sampler: &dyn Sampler) -> Result<(), Violation> {
    for name in NAMES {
        for sampled in [None, Some(false), Some(true)] {
            let mut recorded = None;
            for randomness in randomness() {
                let parent = sampled.map(|sampled| parent(randomness, sampled));
                let candidate = match &parent {
                    Some(parent) => Candidate::child(parent, name, SpanKind::Server),
                    None => root(randomness, name),
                };
                let now = sampler.sample(&candidate).is_recorded();
                if let (Some(less), false) = (recorded, now) {
                    let what =
                        format!("{less:x} is recorded, {randomness:x} is not: {candidate:?}");
                    return Err(Violation::new(what));
                }
                if now {
                    recorded.get_or_insert(randomness);
                }
            }
        }
    }
    Ok(())
}

/// Law 3.
pub fn a_recorded_root_reaches_its_threshold(sampler: &dyn Sampler) -> Result<(), Violation> {
    for (randomness, name) in roots() {
        if let Decision::Record {
            threshold: Some(threshold),
        } = sampler.sample(&root(randomness, name))
        {
            Violation::unless(randomness >= threshold.least(), || {
                format!("{name} is recorded at {randomness:x}, below its threshold {threshold}")
            })?;
        }
    }
    Ok(())
}

/// Law 4.
pub fn all_roots_above_the_threshold_are_recorded(sampler: &dyn Sampler) -> Result<(), Violation> {
    for name in NAMES {
        let decide = |randomness| (randomness, sampler.sample(&root(randomness, name)));
        let decisions: Vec<_> = randomness().map(decide).collect();
        let thresholds = decisions.iter().filter_map(|(_, decision)| match decision {
            Decision::Record { threshold } => *threshold,
            Decision::Drop => None,
        });
        let Some(least) = thresholds.min() else {
            continue;
        };
        let missed = decisions
            .iter()
            .find(|(randomness, decision)| *randomness >= least.least() && !decision.is_recorded());
        if let Some((randomness, _)) = missed {
            let what = format!("{name} is dropped at {randomness:x}, above the threshold {least}");
            return Err(Violation::new(what));
        }
    }
    Ok(())
}

fn roots() -> impl Iterator<Item = (u64, &'static str)> {
    let each = |randomness| NAMES.into_iter().map(move |name| (randomness, name));
    randomness().flat_map(each)
}

/// Stamps one test per law of [`Sampler`] into a module of this name.
///
/// ```
/// orchestra_observe::sampler_suite!(always_on, orchestra_observe::AlwaysOn);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! sampler_suite {
    ($name:ident, $sampler:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need what is around it")]
            use super::*;

            $crate::sampler_suite!(@ $sampler,
                equal_candidates_get_equal_answers
                more_randomness_is_never_worse
                a_recorded_root_reaches_its_threshold
                all_roots_above_the_threshold_are_recorded
            );
        }
    };
    (@ $sampler:expr, $($law:ident)+) => {$(
        #[test]
        fn $law() -> ::core::result::Result<(), $crate::conformance::Violation> {
            $crate::conformance::sampler::$law(&$sampler)
        }
    )+};
}
