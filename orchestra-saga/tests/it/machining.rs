//! The machine on random graphs, answers, crashes and cancellations, against what its participants saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, IdempotencyKey, Timestamp};
use orchestra_saga::machine::{Input, Phase};
use orchestra_saga::{
    Applied, Call, Definition, Epoch, Event, Failure, Handle, Kind, Machine, Operation, Operator,
    Recorded, Retry, SagaId, Start, StepName, StepOutcome, Unwind, Version,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// The shape of one step: its kind before the pivot, and which earlier steps it follows.
type Shape = (bool, Vec<Index>);

#[derive(Debug, Clone)]
struct Plan {
    steps: Vec<Shape>,
    pivot: bool,
    retriable: usize,
    sequential: bool,
    moves: Vec<Move>,
}

/// What the world does next.
#[derive(Debug, Clone)]
enum Move {
    /// A call in flight is answered.
    Answer(Index, Reply),
    /// Time passes until the saga wants to be woken.
    Wait,
    /// The process dies, and another takes over; calls in flight arrive without being heard.
    Crash,
    Cancel,
    Resume,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reply {
    Done,
    Rejected,
    Retryable,
    LostAfter,
    LostBefore,
}

fn plan() -> impl Strategy<Value = Plan> {
    let parents = prop::collection::vec(any::<Index>(), 0..3);
    let steps = prop::collection::vec((prop::bool::weighted(0.8), parents), 1..5);
    let reply = prop_oneof![
        5 => Just(Reply::Done),
        1 => Just(Reply::Rejected),
        2 => Just(Reply::Retryable),
        2 => Just(Reply::LostAfter),
        2 => Just(Reply::LostBefore),
    ];
    let step = prop_oneof![
        12 => (any::<Index>(), reply).prop_map(|(call, reply)| Move::Answer(call, reply)),
        4 => Just(Move::Wait),
        2 => Just(Move::Crash),
        1 => Just(Move::Cancel),
        1 => Just(Move::Resume),
    ];
    let moves = prop::collection::vec(step, 0..60);
    (steps, any::<bool>(), 0..3usize, any::<bool>(), moves).prop_map(
        |(steps, pivot, retriable, sequential, moves)| Plan {
            steps,
            pivot,
            retriable,
            sequential,
            moves,
        },
    )
}

async fn fine(_: Call, (): ()) -> Result<u32, Failure> {
    Ok(1)
}

async fn undo(_: Call, (): (), _: Option<u32>) -> Result<(), Failure> {
    Ok(())
}

fn definition(plan: &Plan) -> Definition {
    let mut d = Definition::builder("random", "1");
    let quick = Retry::new(2, Backoff::fixed(Duration::from_millis(10)));
    let mut steps: Vec<Handle<u32>> = Vec::new();
    for (number, (compensatable, parents)) in plan.steps.iter().enumerate() {
        let mut step = d.step(&format!("s{number}"), (), fine).retry(quick);
        for parent in parents.iter().filter(|_| number > 0) {
            step = step.after(steps[parent.index(number)]);
        }
        steps.push(if *compensatable {
            step.compensate(undo)
        } else {
            step.read_only()
        });
    }
    let after = |d: &mut orchestra_saga::definition::Builder, name: &str, steps: &[Handle<u32>]| {
        let step = d.step(name, (), fine).retry(quick);
        let step = steps.iter().fold(step, |step, parent| step.after(*parent));
        if name == "pivot" {
            step.pivot()
        } else {
            step.retriable()
        }
    };
    if plan.pivot {
        let pivot = after(&mut d, "pivot", &steps);
        steps.push(pivot);
    }
    let settled = steps.clone();
    for number in 0..plan.retriable {
        let _last = after(&mut d, &format!("r{number}"), &settled);
    }
    let order = if plan.sequential {
        Unwind::Sequential
    } else {
        Unwind::Parallel
    };
    d.unwind(order).build().expect("the rules hold")
}

/// Participants with a barrier, the log, and the machine.
struct World {
    definition: Arc<Definition>,
    machine: Machine,
    log: Vec<Recorded>,
    epoch: u64,
    now: Timestamp,
    in_flight: Vec<Call>,
    done: BTreeSet<IdempotencyKey>,
    refused: BTreeSet<IdempotencyKey>,
    tombs: BTreeSet<StepName>,
    effects: BTreeMap<StepName, i32>,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let definition = Arc::new(definition(plan));
        let now = Timestamp::from_unix_nanos(1_000_000_000);
        let mut world = Self {
            machine: Machine::new(Arc::clone(&definition), SagaId::from_parts(now, 1)),
            definition,
            log: Vec::new(),
            epoch: 1,
            now,
            in_flight: Vec::new(),
            done: BTreeSet::new(),
            refused: BTreeSet::new(),
            tombs: BTreeSet::new(),
            effects: BTreeMap::new(),
        };
        let events = world.machine.start(&Start::of("random"), now);
        world.append(events);
        world
    }

    fn tell(&mut self, input: &Input) {
        let events = self.machine.advance(input, self.now, 0);
        self.append(events);
    }

    fn append(&mut self, events: Vec<Event>) {
        for event in events {
            let version = Version(self.log.len() as u64 + 1);
            let recorded = Recorded::new(version, Epoch(self.epoch), self.now, event);
            if let Some(call) = self
                .machine
                .call(&recorded.event, Epoch(self.epoch), self.now)
            {
                self.check_call(&call);
                self.in_flight.push(call);
            }
            self.log.push(recorded);
        }
    }

    /// One attempt of a step at a time; never an action after its compensation; dependants first.
    fn check_call(&self, call: &Call) {
        let doubled = self.in_flight.iter().any(|other| other.step == call.step);
        assert!(!doubled, "two calls of {} at a time", call.step);
        assert!(call.deadline >= self.now, "an attempt after its deadline");
        let undone = self.tombs.contains(&call.step);
        if call.op == Operation::Action {
            assert!(!undone, "{} after its undoing", call.step);
        } else if call.applied == Applied::Known {
            let applied = self.effects.get(&call.step).copied().unwrap_or_default();
            assert!(applied == 1 || undone, "{} was never applied", call.step);
        }
    }

    /// What the participant does and says.
    fn serve(&mut self, call: &Call, reply: Reply) -> StepOutcome {
        if matches!(reply, Reply::LostBefore) {
            return StepOutcome::Unknown("lost".to_owned());
        }
        if reply == Reply::Retryable {
            return StepOutcome::Retryable {
                reason: "busy".to_owned(),
                after: None,
            };
        }
        let recorded = self.done.contains(&call.key);
        let action = call.op == Operation::Action;
        if action && !recorded {
            let late = self.tombs.contains(&call.step) || self.refused.contains(&call.key);
            if late || reply == Reply::Rejected {
                // Whoever serves a retriable step does not keep refusals, as its contract says.
                if !call.step.as_str().starts_with('r') {
                    self.refused.insert(call.key.clone());
                }
                return StepOutcome::Rejected("no".to_owned());
            }
        }
        if !action && reply == Reply::Rejected && !recorded {
            return StepOutcome::Rejected("cannot be undone now".to_owned());
        }
        if !recorded {
            self.done.insert(call.key.clone());
            let count = self.effects.entry(call.step.clone()).or_default();
            if action {
                *count += 1;
            } else {
                self.tombs.insert(call.step.clone());
                *count = (*count - 1).max(0);
            }
        }
        match reply {
            Reply::LostAfter => StepOutcome::Unknown("lost".to_owned()),
            _ => StepOutcome::Done(serde_json::json!(1).into()),
        }
    }

    fn answer(&mut self, index: usize, reply: Reply) {
        let call = self.in_flight.remove(index);
        let outcome = self.serve(&call, reply);
        self.tell(&Input::Report {
            step: call.step.clone(),
            op: call.op,
            attempt: call.attempt,
            outcome,
        });
    }

    fn wait(&mut self) {
        if let Some(wake) = self.machine.wake() {
            self.now = self.now.max(wake);
            self.tell(&Input::Wake);
        }
    }

    /// Calls in flight reach their participants, but nobody hears; another process reads the log.
    fn crash(&mut self) {
        for call in std::mem::take(&mut self.in_flight) {
            let _unheard = self.serve(&call, Reply::LostAfter);
        }
        self.epoch += 1;
        let mut machine = Machine::new(Arc::clone(&self.definition), self.machine.saga());
        for recorded in &self.log {
            machine.apply(recorded).expect("the log fits");
        }
        assert_eq!(
            machine.state(),
            self.machine.state(),
            "the fold of the log is the state"
        );
        self.machine = machine;
        self.tell(&Input::Recovered);
    }

    fn make(&mut self, step: &Move) {
        match step {
            Move::Answer(index, reply) if !self.in_flight.is_empty() => {
                let index = index.index(self.in_flight.len());
                self.answer(index, *reply);
            }
            Move::Answer(..) | Move::Wait => self.wait(),
            Move::Crash => self.crash(),
            Move::Cancel => self.tell(&Input::Cancel {
                reason: "enough".to_owned(),
            }),
            Move::Resume => self.tell(&Input::Retry {
                by: Operator::new("ada", "try"),
            }),
        }
        let alive = !self.machine.state().phase().is_terminal();
        let moves = !self.in_flight.is_empty() || self.machine.wake().is_some();
        assert!(!alive || moves, "the saga stands still: {:?}", self.names());
    }

    /// From here on everything is answered; the saga must end.
    fn finish(&mut self) {
        for _ in 0..200 {
            if self.machine.state().phase().is_terminal() {
                return;
            }
            if self.in_flight.is_empty() {
                self.wait();
            } else {
                self.answer(0, Reply::Done);
            }
        }
        panic!("the saga does not end: {:?}", self.names());
    }

    fn names(&self) -> Vec<String> {
        let name = |recorded: &Recorded| {
            let step = recorded.event.step().map(ToString::to_string);
            format!("{} {}", recorded.event.name(), step.unwrap_or_default())
        };
        self.log.iter().map(name).collect()
    }

    fn check_end(&self) {
        let kinds: BTreeMap<_, _> = self.definition.steps().collect();
        let completed = self.machine.state().phase() == Phase::Completed;
        for (step, kind) in &kinds {
            let count = self.effects.get(*step).copied().unwrap_or_default();
            let expected = match kind {
                Kind::ReadOnly => continue,
                _ => i32::from(completed),
            };
            assert_eq!(count, expected, "{step} ({kind:?}) in {:?}", self.names());
        }
    }

    /// Compensations are completed in an order that the graph allows.
    fn check_order(&self, plan: &Plan) {
        let mut undone = Vec::new();
        for recorded in &self.log {
            if let Event::CompensationCompleted { step, .. } = &recorded.event {
                undone.push(step.to_string());
            }
        }
        for (number, (_, parents)) in plan.steps.iter().enumerate().skip(1) {
            let place = |step: usize| undone.iter().position(|name| *name == format!("s{step}"));
            for parent in parents {
                if let (Some(own), Some(of)) = (place(number), place(parent.index(number))) {
                    assert!(
                        own < of,
                        "s{number} depends on what was undone first: {undone:?}"
                    );
                }
            }
        }
        if plan.sequential {
            let mut sorted = undone.clone();
            sorted.sort_by(|left, right| right.cmp(left));
            assert_eq!(undone, sorted);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_saga_ends_with_all_or_nothing_done_once(plan in plan()) {
        let mut world = World::new(&plan);
        for step in &plan.moves {
            world.make(step);
        }
        world.finish();
        world.check_end();
        world.check_order(&plan);
        let json = serde_json::to_string(&world.log).expect("written");
        let read: Vec<Recorded> = serde_json::from_str(&json).expect("read");
        prop_assert!(read == world.log, "a log is read as it was written");
    }

    #[test]
    fn a_log_with_a_gap_is_refused(
        plan in plan(),
        at in any::<Index>(),
    ) {
        let mut world = World::new(&plan);
        for step in &plan.moves {
            world.make(step);
        }
        world.finish();
        let mut log = world.log.clone();
        let at = at.index(log.len() - 1);
        log.remove(at);
        let mut machine = Machine::new(Arc::clone(&world.definition), world.machine.saga());
        let refused = log.iter().find_map(|recorded| machine.apply(recorded).err());
        prop_assert!(refused.is_some());
    }
}

#[test]
fn a_late_answer_is_not_news() {
    let plan = Plan {
        steps: vec![(true, Vec::new())],
        pivot: false,
        retriable: 0,
        sequential: false,
        moves: Vec::new(),
    };
    let mut world = World::new(&plan);
    let call = world.in_flight[0].clone();
    world.answer(0, Reply::LostBefore);
    let before = world.log.len();
    world.tell(&Input::Report {
        step: call.step.clone(),
        op: call.op,
        attempt: call.attempt,
        outcome: StepOutcome::Rejected("late".to_owned()),
    });
    assert_eq!(world.log.len(), before);
}

#[test]
fn a_saga_past_its_deadline_goes_back() {
    let plan = Plan {
        steps: vec![(true, Vec::new()), (true, Vec::new())],
        pivot: false,
        retriable: 0,
        sequential: false,
        moves: Vec::new(),
    };
    let mut world = World::new(&plan);
    world.now = world.now + Duration::from_secs(301);
    let index = world
        .in_flight
        .iter()
        .position(|call| call.step.as_str() == "s0");
    world.answer(index.expect("s0 is called"), Reply::Done);
    let started = world
        .log
        .iter()
        .find(|recorded| recorded.event.name() == "compensation_started");
    assert!(matches!(
        started.map(|recorded| &recorded.event),
        Some(Event::CompensationStarted {
            cause: orchestra_saga::Cause::TimedOut,
            ..
        })
    ));
    world.finish();
    world.check_end();
}

#[test]
fn nobody_cancels_past_the_point_of_no_return() {
    let plan = Plan {
        steps: vec![(true, Vec::new())],
        pivot: true,
        retriable: 1,
        sequential: false,
        moves: Vec::new(),
    };
    let mut world = World::new(&plan);
    world.answer(0, Reply::Done);
    world.answer(0, Reply::Done);
    let before = world.log.len();
    world.make(&Move::Cancel);
    assert_eq!(world.log.len(), before);
    world.finish();
    assert_eq!(world.machine.state().phase(), Phase::Completed);
}

#[test]
fn a_saga_that_only_asks_its_pivot_does_not_wake_for_a_timer() {
    let mut d = Definition::builder("beside", "1");
    d.sleep("nap", (), Duration::from_secs(10));
    d.step("pay", (), |_: Call, (): ()| async { Ok(1) }).pivot();
    let definition = Arc::new(d.build().expect("valid"));
    let mut machine = Machine::new(definition, SagaId::from_bytes([7; 16]));
    let now = Timestamp::UNIX_EPOCH;
    machine.start(&Start::of("beside"), now);
    assert_eq!(machine.wake(), Some(now + Duration::from_secs(10)));
    let reason = "customer left".to_owned();
    let heard = machine.advance(&Input::Cancel { reason }, now, 0);
    assert_eq!(heard.len(), 1);
    assert_eq!(machine.wake(), None, "the pivot is in flight");
}
