//! The shortest sequence that breaks the same law.

use super::bounds::Budget;
use super::choice::Choice;
use super::law::Law;
use super::report::Finding;
use super::search::{Broken, play};
use super::service::Service;
use super::setup::Setup;
use super::tale::Tale;

/// Leaves out as much as possible (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input",
/// 2002): what is left out is what would have happened if nothing had gone wrong.
pub(super) fn shrink(
    setup: &Setup,
    service: &mut Service<'_>,
    budget: Budget,
    broken: Broken,
) -> Finding {
    let law = broken.violation.law;
    let mut shortest = broken.path;
    let mut size = shortest.len().max(1);
    while size > 0 {
        let mut from = 0;
        let mut better = false;
        while from < shortest.len() {
            let to = (from + size).min(shortest.len());
            let without: Vec<_> = [shortest.get(..from), shortest.get(to..)]
                .into_iter()
                .flatten()
                .flatten()
                .copied()
                .collect();
            match breaks(setup, service, budget, &without, law) {
                Some(path) if weight(&path) < weight(&shortest) => {
                    shortest = path;
                    better = true;
                }
                _ => from = to,
            }
        }
        if !better || size > 1 {
            size /= 2;
        }
    }
    let mut tale = Tale::told();
    let played = play(setup, service, budget, &shortest, &mut tale);
    let violation = played.broken.unwrap_or(broken.violation);
    Finding {
        law: violation.law,
        seen: violation.seen,
        beats: tale.into_beats(),
        faults: faults(&played.path),
    }
}

fn breaks(
    setup: &Setup,
    service: &mut Service<'_>,
    budget: Budget,
    choices: &[Choice],
    law: Law,
) -> Option<Vec<Choice>> {
    let played = play(setup, service, budget, choices, &mut Tale::untold());
    let same = played.broken.is_some_and(|violation| violation.law == law);
    same.then_some(played.path)
}

fn faults(path: &[Choice]) -> usize {
    path.iter().filter(|choice| choice.is_fault()).count()
}

fn weight(path: &[Choice]) -> (usize, usize) {
    (faults(path), path.len())
}
