//! The pure decisions under random inputs, against a model of what really runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, NodeId};
use orchestra_scheduler::event::FenceReason;
use orchestra_scheduler::reconcile::{Action, Phase, State, Tuning, plan};
use orchestra_scheduler::runtime::Exit;
use orchestra_scheduler::workload::Readiness;
use proptest::prelude::*;

use crate::support::{service, workload};

#[derive(Debug, Clone)]
enum Input {
    /// Want this many replicas, of this version of the template.
    Want(u32, u8),
    Forget,
    /// Obey the plan.
    Obey,
    Ready(usize),
    Lapse(usize),
    /// The call of `start` returns.
    StartReturns(usize, bool),
    /// A process ends: because it was told to, or because it crashed.
    End(usize),
    StopFails(usize),
    Pass(u16),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        1 => (0_u32..4, 0_u8..3).prop_map(|(n, version)| Input::Want(n, version)),
        1 => Just(Input::Forget),
        8 => Just(Input::Obey),
        4 => any::<usize>().prop_map(Input::Ready),
        2 => any::<usize>().prop_map(Input::Lapse),
        5 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, ok)| Input::StartReturns(at, ok)),
        4 => any::<usize>().prop_map(Input::End),
        1 => any::<usize>().prop_map(Input::StopFails),
        4 => any::<u16>().prop_map(Input::Pass),
    ];
    prop::collection::vec(input, 0..120)
}

/// What really runs, kept apart from the state under test.
#[derive(Default)]
struct Truth {
    launching: BTreeMap<InstanceId, u32>,
    running: BTreeMap<InstanceId, u32>,
    told: BTreeSet<InstanceId>,
}

impl Truth {
    fn seats(&self) -> Vec<u32> {
        let mut seats: Vec<_> = self
            .launching
            .values()
            .chain(self.running.values())
            .copied()
            .collect();
        seats.sort_unstable();
        seats
    }

    fn all(&self) -> Vec<InstanceId> {
        self.launching
            .keys()
            .chain(self.running.keys())
            .cloned()
            .collect()
    }
}

fn nth<T: Clone>(of: &[T], at: usize) -> Option<T> {
    (!of.is_empty()).then(|| of[at % of.len()].clone())
}

fn obey(
    state: &mut State,
    truth: &mut Truth,
    now: Monotonic,
    count: &mut u32,
) -> Result<(), TestCaseError> {
    let (actions, _) = plan(state, now);
    let outdated = actions.iter().filter(|action| match action {
        Action::Stop { id, .. } => {
            let replica = state.replica(id);
            let wanted = state.workload(&service("svc")).map_or(0, |w| w.replicas);
            replica.is_some_and(|r| r.phase == Phase::Ready && r.ordinal < wanted)
        }
        _ => false,
    });
    prop_assert!(outdated.count() <= 1, "two good replicas stopped at once");
    for action in actions {
        match action {
            Action::Start { service, ordinal } => {
                *count += 1;
                let id = InstanceId::new(format!("i{count}")).unwrap();
                let node = NodeId::new("n").unwrap();
                prop_assert!(state.placed(&service, ordinal, id.clone(), node, now));
                truth.launching.insert(id, ordinal);
            }
            Action::Stop { id, .. } | Action::Kill { id } => {
                prop_assert!(
                    truth.running.contains_key(&id),
                    "told to end what is not running"
                );
                state.ending(&id, now);
                truth.told.insert(id);
            }
            other => prop_assert!(false, "unknown action {other:?}"),
        }
    }
    Ok(())
}

fn apply(
    input: &Input,
    state: &mut State,
    truth: &mut Truth,
    now: &mut Monotonic,
    count: &mut u32,
) -> Result<(), TestCaseError> {
    match *input {
        Input::Want(replicas, version) => {
            let mut wanted = workload("svc", 0).replicas(replicas);
            wanted.template = wanted.template.env("VERSION", version.to_string());
            if version == 2 {
                wanted.template.readiness = Readiness::Started;
            }
            state.set_workload(wanted);
        }
        Input::Forget => {
            state.remove_workload(&service("svc"));
        }
        Input::Obey => {
            state.tick(*now);
            obey(state, truth, *now, count)?;
        }
        Input::Ready(at) => {
            if let Some(id) = nth(&truth.all(), at) {
                state.ready(&id, *now);
            }
        }
        Input::Lapse(at) => {
            if let Some(id) = nth(&truth.all(), at) {
                state.fence(&id, FenceReason::LeaseLapsed, *now);
            }
        }
        Input::StartReturns(at, is_ok) => {
            let launching: Vec<_> = truth.launching.keys().cloned().collect();
            if let Some(id) = nth(&launching, at) {
                let seat = truth.launching.remove(&id).unwrap();
                if is_ok {
                    truth.running.insert(id.clone(), seat);
                    state.started(&id, None, *now);
                } else {
                    state.start_failed(&id, "no".to_owned(), *now, 0);
                }
            }
        }
        Input::End(at) => {
            let running: Vec<_> = truth.running.keys().cloned().collect();
            if let Some(id) = nth(&running, at) {
                truth.running.remove(&id);
                prop_assert!(state.exited(&id, Some(Exit::code(1)), *now, 0).is_some());
                prop_assert!(state.exited(&id, None, *now, 0).is_none());
            }
        }
        Input::StopFails(at) => {
            let told: Vec<_> = truth
                .told
                .iter()
                .filter(|id| truth.running.contains_key(*id))
                .cloned()
                .collect();
            if let Some(id) = nth(&told, at) {
                let phase = state.replica(&id).unwrap().phase;
                state.ending_failed(&id, phase, "no".to_owned(), *now);
            }
        }
        Input::Pass(millis) => *now = *now + Duration::from_millis(u64::from(millis)),
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_seat_is_ever_held_twice_and_all_is_well_once_the_trouble_ends(inputs in inputs()) {
        let (mut state, mut truth) = (State::new(Tuning::default()), Truth::default());
        let (mut now, mut count) = (Monotonic::ZERO, 0);
        for input in inputs {
            apply(&input, &mut state, &mut truth, &mut now, &mut count)?;
            let seats = truth.seats();
            let distinct: BTreeSet<_> = seats.iter().collect();
            prop_assert_eq!(distinct.len(), seats.len(), "two instances in one seat");
            prop_assert_eq!(state.replicas().len(), seats.len());
        }
        // No more trouble: everything is obeyed and answered at once.
        apply(&Input::Want(3, 1), &mut state, &mut truth, &mut now, &mut count)?;
        for _ in 0..100 {
            apply(&Input::Obey, &mut state, &mut truth, &mut now, &mut count)?;
            while !truth.launching.is_empty() {
                apply(&Input::StartReturns(0, true), &mut state, &mut truth, &mut now, &mut count)?;
            }
            for id in truth.all() {
                state.ready(&id, now);
            }
            for id in std::mem::take(&mut truth.told) {
                if truth.running.remove(&id).is_some() {
                    state.exited(&id, Some(Exit::code(0)), now, 0);
                }
            }
            now = now + Duration::from_secs(1);
        }
        prop_assert_eq!(truth.seats(), [0, 1, 2]);
        prop_assert!(state.replicas().all(|(_, r)| r.phase == Phase::Ready));
    }
}
