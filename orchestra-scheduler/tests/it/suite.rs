//! The laws, over every runtime we have, and the proof that the suite notices a breach.

use std::sync::Arc;

use orchestra_scheduler::ContainerRuntime;
use orchestra_scheduler::conformance::{LAWS, Subject};
use orchestra_scheduler::saboteur::{Fault, Saboteur};

orchestra_scheduler::runtime_suite!(memory, async {
    Subject::of_memory(|runtime| Arc::new(runtime))
});

#[cfg(all(feature = "process", target_os = "linux"))]
orchestra_scheduler::runtime_suite!(process, async {
    use orchestra_scheduler::runtime::process::ProcessRuntime;
    let directory = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(directory.path()).await.unwrap();
    Subject::of_shells(Arc::new(runtime)).keep(directory)
});

async fn broken_laws(
    wrap: impl Fn(Arc<dyn ContainerRuntime>) -> Arc<dyn ContainerRuntime>,
) -> Vec<&'static str> {
    let mut broken = Vec::new();
    for law in LAWS {
        let subject = Subject::of_memory(|runtime| wrap(Arc::new(runtime)));
        if law.check(&subject).await.is_err() {
            broken.push(law.name);
        }
    }
    broken
}

#[tokio::test(start_paused = true)]
async fn each_saboteur_breaks_its_law_and_no_other() {
    for &fault in Fault::ALL {
        let broken = broken_laws(|inner| Arc::new(Saboteur::new(inner, fault))).await;
        assert_eq!(broken, [fault.law()], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_law_has_a_saboteur_and_the_sound_runtime_breaks_none() {
    let sabotaged: Vec<_> = Fault::ALL.iter().map(|fault| fault.law()).collect();
    let laws: Vec<_> = LAWS.iter().map(|law| law.name).collect();
    assert_eq!(sabotaged, laws);
    assert_eq!(broken_laws(|inner| inner).await, [""; 0]);
}
