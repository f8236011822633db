//! Our own samplers and exporters keep the laws, and each saboteur breaks exactly its own.

use std::num::NonZeroUsize;

use orchestra_observe::conformance::exporter::{self, Subject};
use orchestra_observe::conformance::sampler;
use orchestra_observe::saboteur::{
    Boasts, DropsLast, KeepsLeast, Renumbers, Reopens, Reverses, ShutsOnce, Understates, Wavers,
};
use orchestra_observe::{
    AlwaysOff, AlwaysOn, MemoryExporter, ParentBased, Ratio, Sampler, exporter_suite, sampler_suite,
};

fn half() -> Ratio {
    Ratio::new(0.5).unwrap()
}

fn memory() -> MemoryExporter {
    MemoryExporter::new(NonZeroUsize::new(100).unwrap())
}

sampler_suite!(always_on, AlwaysOn);
sampler_suite!(always_off, AlwaysOff);
sampler_suite!(half_of_all, half());
sampler_suite!(a_tiny_share, Ratio::new(1e-12).unwrap());
sampler_suite!(parent_based, ParentBased::new(half()));
sampler_suite!(boxed, Box::new(half()) as Box<dyn Sampler>);
exporter_suite!(memory_exporter, || async { memory() });

fn broken_by_sampler(sampler: &dyn Sampler) -> Vec<&'static str> {
    let broken = sampler::LAWS
        .iter()
        .filter(|(_, law)| law(sampler).is_err());
    broken.map(|(name, _)| *name).collect()
}

#[test]
fn each_saboteur_of_a_sampler_breaks_its_law_alone() {
    let cases: [(&dyn Sampler, &str); 4] = [
        (&Wavers::new(half()), "equal_candidates_get_equal_answers"),
        (&KeepsLeast, "more_randomness_is_never_worse"),
        (&Boasts(half()), "a_recorded_root_reaches_its_threshold"),
        (
            &Understates(half()),
            "all_roots_above_the_threshold_are_recorded",
        ),
    ];
    for (saboteur, law) in cases {
        assert_eq!(broken_by_sampler(saboteur), [law], "{saboteur:?}");
    }
}

async fn broken_by_exporter<S: Subject>(make: impl Fn() -> S) -> Vec<&'static str> {
    let mut broken = Vec::new();
    for (name, law) in exporter::LAWS {
        if law(&make()).await.is_err() {
            broken.push(name);
        }
    }
    broken
}

#[tokio::test]
async fn each_saboteur_of_an_exporter_breaks_its_law_alone() {
    assert_eq!(
        broken_by_exporter(|| DropsLast::new(memory())).await,
        ["ok_means_every_span_was_taken"],
    );
    assert_eq!(
        broken_by_exporter(|| Reverses::new(memory())).await,
        ["order_is_kept"],
    );
    assert_eq!(
        broken_by_exporter(|| Renumbers::new(memory())).await,
        ["a_batch_sent_again_is_taken_once"],
    );
    assert_eq!(
        broken_by_exporter(|| Reopens::new(memory())).await,
        ["nothing_is_taken_after_shutdown"],
    );
    assert_eq!(
        broken_by_exporter(|| ShutsOnce::new(memory())).await,
        ["shutdown_may_be_called_again"],
    );
    assert!(broken_by_exporter(memory).await.is_empty());
}
