//! What the plain values promise.

use std::error::Error as _;
use std::time::Duration;

use orchestra_core::{ErrorClass, InstanceId, Monotonic, NodeId};
use orchestra_scheduler::event::FenceReason;
use orchestra_scheduler::reconcile::{Phase, State, Tuning, plan};
use orchestra_scheduler::runtime::memory::MemoryRuntime;
use orchestra_scheduler::workload::Environment;
use orchestra_scheduler::{Cluster, Error, ErrorKind, Event, Handle, Reconciler, Scheduler};

use crate::support::{instance, service, workload};

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Scheduler>();
    check::<Cluster>();
    check::<State>();
    check::<Reconciler>();
    check::<Handle>();
    check::<MemoryRuntime>();
    check::<Event>();
    check::<Error>();
    #[cfg(all(feature = "process", target_os = "linux"))]
    check::<orchestra_scheduler::runtime::process::ProcessRuntime>();
}

#[test]
fn values_of_the_environment_are_not_shown() {
    let mut env = Environment::default();
    env.set("TOKEN", "s3cret");
    assert_eq!(format!("{env:?}"), r#"{"TOKEN"}"#);
    let shown = format!("{:?}", workload("svc", 1).template.env("TOKEN", "s3cret"));
    assert!(
        shown.contains("TOKEN") && !shown.contains("s3cret"),
        "{shown}"
    );
}

#[test]
fn an_error_keeps_its_source_and_does_not_print_it() {
    let error = Error::new(ErrorKind::Io, "container a cannot be started")
        .with_source(std::io::Error::other("disk on fire"));
    assert_eq!(error.to_string(), "container a cannot be started");
    assert_eq!(
        error.source().map(ToString::to_string).as_deref(),
        Some("disk on fire")
    );
    assert_eq!(error.class(), ErrorClass::Transient);
}

/// Fills seat 0 at `now`, and returns the instance.
fn seat(state: &mut State, id: &str, now: Monotonic) -> InstanceId {
    let id = instance(id);
    assert!(state.placed(
        &service("svc"),
        0,
        id.clone(),
        NodeId::new("n").unwrap(),
        now
    ));
    state.started(&id, None, now);
    state.ready(&id, now);
    id
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

#[test]
fn failures_are_forgotten_once_an_instance_was_stable() {
    let mut state = State::new(Tuning::default());
    state.set_workload(workload("svc", 0));
    for (number, now) in [(1, at(1)), (2, at(2)), (3, at(3))] {
        let id = seat(&mut state, &format!("i{number}"), now);
        state.exited(&id, None, now, u64::MAX);
    }
    let waits = |state: &State, now| plan(state, now).1.map(|wake| wake.since(now));
    assert!(
        waits(&state, at(3)).is_some(),
        "the third failure in a row makes the seat wait"
    );

    let id = seat(&mut state, "i4", at(10));
    state.exited(&id, None, at(30), u64::MAX);
    assert_eq!(
        plan(&state, at(30)).0.len(),
        1,
        "twenty good seconds make up for them"
    );
}

#[test]
fn an_instance_that_was_stable_until_it_was_fenced_counts_as_stable() {
    let mut state = State::new(Tuning::default());
    state.set_workload(workload("svc", 0));
    let now = at(1);
    for id in ["i1", "i2"] {
        let id = seat(&mut state, id, now);
        state.exited(&id, None, now, u64::MAX);
    }
    let id = seat(&mut state, "i3", at(10));
    state.fence(&id, FenceReason::LeaseLapsed, at(30));
    assert_eq!(state.replica(&id).map(|r| r.phase), Some(Phase::Fenced));
    state.exited(&id, None, at(31), u64::MAX);
    assert_eq!(plan(&state, at(31)).0.len(), 1);
}

#[cfg(feature = "serde")]
mod json {
    use super::*;
    use orchestra_scheduler::{Bytes, Limits, Node, Resources, Workload};

    #[test]
    fn a_workload_is_read_with_defaults_and_written_back() {
        let text = r#"{"name":"payments","replicas":2,"template":{"command":{"program":"payments"},
            "resources":{"cpu":250,"memory":1024},"limits":{"memory":2048},"node_selector":"disk=ssd"}}"#;
        let read: Workload = serde_json::from_str(text).unwrap();
        assert_eq!(
            read.template.resources,
            Resources::new().cpu(250).memory(Bytes(1_024))
        );
        assert_eq!(read.template.limits, Limits::new().memory(Bytes(2_048)));
        assert_eq!(read.template.stop_grace, Duration::from_secs(10));
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Workload>(&written).unwrap(), read);
    }

    #[test]
    fn what_is_misspelled_is_refused() {
        let text = r#"{"id":"node-1","capacity":{"cpus":4000}}"#;
        let error = serde_json::from_str::<Node>(text).unwrap_err();
        assert!(error.to_string().contains("cpus"), "{error}");
    }
}
