//! When two worlds are the same.
//!
//! Moments count from now, epochs by their order, and what only people read is left out. Steps that can stand
//! for each other ([`Setup::symmetries`]) may change places: of all numberings the smallest is written.
//! Every field of the state is named here, so that a new one is not forgotten.

use std::time::Duration;

use orchestra_core::Timestamp;

use super::participant::Row;
use super::setup::Setup;
use super::world::{Flight, World};
use crate::machine::{Machine, Phase, Progress, Rest, Stage, State, StepState};
use crate::payload::Payload;
use crate::step::Operation;

/// A world as 128 bits of BLAKE3.
pub(super) type Print = u128;

pub(super) fn print(setup: &Setup, world: &World, history: Option<[u8; 32]>) -> Print {
    let mut text = Vec::with_capacity(512);
    saga(&mut text, world.machine.state(), world.now);
    steps(&mut text, setup, world);
    rare(&mut text, world);
    text.extend(history.into_iter().flatten());
    let hash = blake3::hash(&text);
    let first = hash.as_bytes().first_chunk().copied();
    Print::from_le_bytes(first.unwrap_or_default())
}

fn number(text: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(byte) if byte < u8::MAX => text.push(byte),
        _ => {
            text.push(u8::MAX);
            text.extend(number.to_le_bytes());
        }
    }
}

fn length(text: &mut Vec<u8>, length: Duration) {
    text.extend(length.as_nanos().to_le_bytes());
}

/// The time until then; all that is past is the same.
fn until(text: &mut Vec<u8>, moment: Timestamp, now: Timestamp) {
    let left = Some(moment.since(now)).filter(|left| !left.is_zero());
    perhaps(text, left, length);
}

fn perhaps<T>(text: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    text.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write(text, value);
    }
}

fn bytes(text: &mut Vec<u8>, bytes: &[u8]) {
    number(text, bytes.len() as u64);
    text.extend(bytes);
}

fn payload(text: &mut Vec<u8>, payload: &Payload) {
    bytes(text, payload.as_str().as_bytes());
}

fn saga(text: &mut Vec<u8>, state: &State, now: Timestamp) {
    let State {
        phase,
        deadline,
        cancel,
        back_to,
        is_paused,
        signals,
        // They follow from the steps, never change, or are for people.
        version: _,
        input: _,
        started: _,
        updated: _,
        trace: _,
        cause: _,
        steps: _,
        front: _,
    } = state;
    text.push(match phase {
        Phase::Unborn => 0,
        Phase::Running => 1,
        Phase::Compensating => 2,
        Phase::Completed => 3,
        Phase::Compensated => 4,
    });
    text.push(u8::from(cancel.is_some()) | u8::from(*is_paused) << 1);
    // Nobody looks at it on the way to the start.
    let deadline = deadline.filter(|_| is_forward(state));
    perhaps(text, deadline, |text, deadline| until(text, deadline, now));
    perhaps(text, back_to.map(u64::from), number);
    number(text, signals.len() as u64);
    for signal in signals {
        bytes(text, signal.name.as_bytes());
        perhaps(text, signal.id.as_ref(), |text, id| {
            bytes(text, id.as_str().as_bytes());
        });
        perhaps(text, signal.payload.as_ref(), payload);
    }
}

/// Whether actions may still begin.
fn is_forward(state: &State) -> bool {
    state.phase == Phase::Running || state.back_to.is_some()
}

fn step(text: &mut Vec<u8>, step: &StepState, (forward, now): (bool, Timestamp)) {
    let StepState {
        action,
        tainted,
        input,
        output,
        deadline,
        iteration,
        restarts,
        is_copied,
        ..
    } = step;
    let Rest {
        undo,
        probe,
        details,
        reason: _,
    } = step.rest();
    text.push(u8::from(*tainted) | u8::from(*is_copied) << 1);
    if forward || action.stage == Stage::Running {
        progress(text, action, now);
        let settled = matches!(action.stage, Stage::Done | Stage::Rejected | Stage::Unknown);
        let deadline = deadline.filter(|_| !settled);
        perhaps(text, deadline, |text, deadline| until(text, deadline, now));
    } else {
        // Going back, it matters whether it took effect, and whether that is known.
        text.push(match action.stage {
            Stage::Done => 6,
            Stage::Unknown => 8,
            _ => 7,
        });
    }
    progress(text, undo, now);
    perhaps(text, probe.as_ref(), |text, probe| {
        progress(text, probe, now);
    });
    for part in [input, output, details] {
        perhaps(text, part.as_ref(), payload);
    }
    number(text, u64::from(*iteration));
    number(text, u64::from(*restarts));
}

fn progress(text: &mut Vec<u8>, progress: &Progress, now: Timestamp) {
    let Progress {
        stage,
        attempt,
        tries,
        delay,
        parked,
    } = progress;
    match stage {
        Stage::Pending => text.push(0),
        Stage::Listening => text.push(1),
        Stage::Running => text.push(2),
        Stage::Interrupted => text.push(3),
        Stage::Waiting(moment) => {
            text.push(4);
            until(text, *moment, now);
        }
        Stage::Parked(moment) => {
            text.push(5);
            until(text, *moment, now);
        }
        // No further attempt follows.
        Stage::Done => return text.push(6),
        Stage::Rejected => return text.push(7),
        Stage::Unknown => return text.push(8),
    }
    for part in [attempt, tries, parked] {
        number(text, u64::from(*part));
    }
    let delay = Some(Duration::from_nanos(*delay)).filter(|delay| !delay.is_zero());
    perhaps(text, delay, length);
}

/// The steps in their smallest numbering.
fn steps(text: &mut Vec<u8>, setup: &Setup, world: &World) {
    let state = world.machine.state();
    let forward = is_forward(state);
    let numbered = (0..).zip(&state.steps);
    let blobs: Vec<Vec<u8>> = numbered
        .map(|(number, state)| {
            let mut blob = Vec::with_capacity(96);
            step(&mut blob, state, (forward, world.now));
            around(&mut blob, setup, world, number);
            blob
        })
        .collect();
    if setup.symmetries.len() == 1 {
        for blob in &blobs {
            bytes(text, blob);
        }
        return;
    }
    let mut sorted: Vec<&Vec<u8>> = blobs.iter().collect();
    sorted.sort_unstable();
    let ranks: Vec<usize> = blobs
        .iter()
        .map(|blob| sorted.partition_point(|other| *other < blob))
        .collect();
    let ranked = |order: &[usize]| -> Vec<usize> {
        order
            .iter()
            .filter_map(|&place| ranks.get(place).copied())
            .collect()
    };
    let orders = setup.symmetries.iter();
    let smallest = orders.min_by_key(|order| ranked(order));
    for &place in smallest.into_iter().flatten() {
        if let Some(blob) = blobs.get(place) {
            bytes(text, blob);
        }
    }
}

/// What is outside of the saga about one of its steps.
fn around(text: &mut Vec<u8>, setup: &Setup, world: &World, step: u32) {
    let flying = world.flying.iter().filter(|flight| flight.step == step);
    let late = world.late.iter().filter(|flight| flight.step == step);
    let is_late = late.clone().next().is_some();
    for (mark, flight) in flying
        .map(|flight| (1, flight))
        .chain(late.map(|flight| (2, flight)))
    {
        text.push(mark);
        call(text, setup, world, flight, mark == 2);
    }
    text.push(0);
    for row in world.participants.rows(step) {
        text.push(3);
        participant(text, setup, world, row, is_late);
    }
}

fn op(op: Operation) -> u8 {
    match op {
        Operation::Action => 0,
        Operation::Compensation => 1,
        Operation::Probe => 2,
    }
}

fn call(text: &mut Vec<u8>, setup: &Setup, world: &World, flight: &Flight, is_late: bool) {
    let call = &flight.call;
    text.push(op(call.op));
    number(text, u64::from(call.attempt));
    number(text, u64::from(call.iteration));
    if is_late {
        number(text, world.epoch.0 - call.epoch.0);
    } else if setup.bounds.timeouts {
        until(text, call.deadline, world.now);
    }
    if setup.mutant.is_some() {
        bytes(text, call.step.as_str().as_bytes());
        bytes(text, call.key.as_str().as_bytes());
    }
}

fn participant(text: &mut Vec<u8>, setup: &Setup, world: &World, row: &Row, is_late: bool) {
    let Row {
        records,
        seen,
        is_tombed,
        applied,
        undone,
    } = row;
    text.push(u8::from(*is_tombed));
    number(text, u64::from(*applied));
    number(text, u64::from(*undone));
    // Only a late call can be of an older epoch.
    if is_late {
        number(text, world.epoch.0 - seen.0);
    }
    number(text, records.len() as u64);
    for record in records {
        text.push(op(record.op));
        perhaps(text, record.answer.as_ref(), payload);
        if setup.mutant.is_some() {
            bytes(text, record.key.as_str().as_bytes());
        }
    }
}

/// What there is only where stores fail or let too much pass.
fn rare(text: &mut Vec<u8>, world: &World) {
    let machine = |text: &mut Vec<u8>, machine: &Machine| {
        let state = machine.state();
        number(text, machine.version().0);
        saga(text, state, world.now);
        for state in &state.steps {
            step(text, state, (true, world.now));
        }
    };
    perhaps(text, world.ahead.as_deref(), machine);
    perhaps(text, world.limbo.as_ref(), |text, limbo| {
        text.extend(limbo.expected.0.to_le_bytes());
        text.extend(world.machine.version().0.to_le_bytes());
        number(text, world.epoch.0 - limbo.epoch.0);
        bytes(
            text,
            format!("{:?} {:?}", limbo.events, world.now).as_bytes(),
        );
    });
    perhaps(text, world.before.as_deref(), machine);
}
