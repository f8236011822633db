//! Faults that were put in are found.

use std::time::Duration;

use orchestra_core::Backoff;
use orchestra_saga::explore::{Exploration, Finding, Law, Mutant, explore};
use orchestra_saga::{Call, Definition, Failure, Retry};

async fn fine(_: Call, (): ()) -> Result<(), Failure> {
    Ok(())
}

async fn undo(_: Call, (): (), _: Option<()>) -> Result<(), Failure> {
    Ok(())
}

/// Three steps in a row, the first a save-point.
fn definition() -> Definition {
    let retry = Retry::new(1, Backoff::fixed(Duration::from_millis(10)));
    let mut d = Definition::builder("row", "1");
    let first = d
        .step("first", (), fine)
        .retry(retry)
        .save_point(1)
        .compensate(undo);
    let second = d
        .step("second", (), fine)
        .retry(retry)
        .after(first)
        .compensate(undo);
    d.step("third", (), fine)
        .retry(retry)
        .after(second)
        .compensate(undo);
    d.build().expect("valid")
}

fn bounded(definition: &Definition) -> Exploration<'static> {
    let explore = explore(definition).attempts(2).store_failures(1);
    explore.timeouts(false).faults(3).states(300_000)
}

fn found(mutant: Mutant) -> Finding {
    let report = bounded(&definition()).mutant(mutant).run();
    report
        .finding
        .unwrap_or_else(|| panic!("{mutant:?} is not found"))
}

#[test]
fn without_a_mutant_there_is_nothing_to_find() {
    bounded(&definition())
        .run()
        .assert_clean()
        .assert_exhaustive();
}

#[test]
fn every_mutant_is_found_with_the_law_that_it_breaks() {
    for mutant in Mutant::ALL {
        let laws: &[Law] = match mutant {
            Mutant::IgnoresTheVersion => &[Law::FoldIsState],
            Mutant::LosesTheLastBatch => &[Law::NothingLost],
            Mutant::IgnoresTheEpoch => &[Law::OneOwner],
            Mutant::LosesTombstones => &[Law::NoActionAfterCompensation],
            Mutant::ForgetsKeys | Mutant::NewKeyForEachAttempt => &[Law::Once],
            Mutant::SharesTheKey | Mutant::ForgetsTheIteration => &[Law::OwnKeys],
            Mutant::UndoesForward => &[Law::ReverseOrder],
            Mutant::UnknownIsRejected => &[Law::AllOrNothing],
            Mutant::CallsBeforeTheAppend => &[Law::AllOrNothing, Law::ReverseOrder],
            Mutant::ForgetsWhatWasInFlight => &[Law::NeverStandsStill],
            _ => &[],
        };
        let finding = found(mutant);
        assert!(laws.contains(&finding.law()), "{mutant:?}: {finding}");
        assert!(finding.faults() <= 3, "{mutant:?}: {finding}");
        assert!(finding.sequence().len() > 1, "{mutant:?}: {finding}");
        assert!(
            finding.mermaid().starts_with("sequenceDiagram"),
            "{mutant:?}"
        );
    }
}
