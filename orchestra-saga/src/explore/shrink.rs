//! The shortest sequence that breaks the same law.

use super::bounds::Budget;
use super::choice::{Choice, Reply};
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
    heard_of(setup, service, (budget, law), &mut shortest);
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

/// A lost answer is easier to follow than a call that comes late.
fn heard_of(
    setup: &Setup,
    service: &mut Service<'_>,
    (budget, law): (Budget, Law),
    shortest: &mut Vec<Choice>,
) {
    for place in 0..shortest.len() {
        let mut other = shortest.clone();
        match other.get_mut(place) {
            Some(Choice::Answer(_, reply @ (Reply::LostBefore | Reply::Silence))) => {
                *reply = Reply::LostAfter;
            }
            _ => continue,
        }
        if let Some(path) = breaks(setup, service, budget, &other, law)
            && weight(&path) < weight(shortest)
        {
            *shortest = path;
        }
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
