//! Earliest deadline first: who is due, in logarithmic time.
//!
//! A member of weight `w` is due `1 / w` after its last turn; the one that is due first is taken, of several the one
//! that has waited longest, and time moves on to its deadline (Envoy's `EdfScheduler`). The weight is asked for when
//! the member is put back, so it may change with every turn.
//!
//! Envoy starts over when the members change. Here those that stay keep their deadlines, scaled to their new weights.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use parking_lot::Mutex;

use super::{PoolMembers, kept};

/// Past this time the clock is set back: late times have no room for the short steps of great weights.
const LATE: f64 = 65_536.0;
/// No turn is further away, however heavy the load.
const FURTHEST: f64 = 4_294_967_296.0;

/// The turns of a pool's members.
#[derive(Debug)]
pub(super) struct Schedule {
    members: Box<[u64]>,
    weights: Box<[u32]>,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    turns: BinaryHeap<Turn>,
    /// Those that were due and closed; empty between picks.
    passed: Vec<Turn>,
    now: f64,
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    deadline: f64,
    /// How many turns were put before it.
    number: u64,
    index: usize,
}

impl Schedule {
    /// The turns of these members, after those of the members before; `start` turns are skipped if there were none.
    pub(super) fn new(members: &PoolMembers<'_>, before: Option<&Self>, start: usize) -> Self {
        let identities = members.identities();
        let weights: Box<[u32]> = (0..members.len())
            .map(|index| members.weight(index))
            .collect();
        let left = match before {
            Some(before) => before.left(&identities, &weights),
            None => weights.iter().map(|&weight| after(weight.into())).collect(),
        };
        let turn = |(index, deadline): (usize, f64)| Turn {
            deadline,
            number: index as u64,
            index,
        };
        let mut queue = Queue {
            turns: left.into_iter().enumerate().map(turn).collect(),
            passed: Vec::with_capacity(members.len()),
            now: 0.0,
            number: members.len() as u64,
        };
        let skipped = start.checked_rem(members.len()).unwrap_or(0);
        for _ in 0..skipped * usize::from(before.is_none()) {
            queue.next(
                |_| true,
                |index| weights.get(index).map_or(1.0, |&weight| weight.into()),
            );
        }
        Self {
            members: identities,
            weights,
            queue: Mutex::new(queue),
        }
    }

    /// Who is due first of those that are open; `weight` says what it weighs until its next turn.
    pub(super) fn next(
        &self,
        open: impl Fn(usize) -> bool,
        weight: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        self.queue.lock().next(open, weight)
    }

    /// How long it is until the turn of each of these.
    fn left(&self, members: &[u64], weights: &[u32]) -> Vec<f64> {
        let queue = self.queue.lock();
        let mut left = vec![0.0; self.members.len()];
        for turn in &queue.turns {
            if let Some(left) = left.get_mut(turn.index) {
                *left = (turn.deadline - queue.now).max(0.0);
            }
        }
        let indices = kept::indices(&self.members, members);
        let scaled = |(index, &weight): (Option<usize>, &u32)| {
            let index = index?;
            let before = f64::from(*self.weights.get(index)?);
            Some(left.get(index)? * before / f64::from(weight))
        };
        let turns = indices.into_iter().zip(weights);
        turns
            .map(|turn| scaled(turn).unwrap_or_else(|| after((*turn.1).into())))
            .collect()
    }
}

/// The time between two turns.
fn after(weight: f64) -> f64 {
    (1.0 / weight).clamp(0.0, FURTHEST)
}

impl Queue {
    fn next(
        &mut self,
        open: impl Fn(usize) -> bool,
        weight: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let mut found = None;
        while let Some(mut turn) = self.turns.peek_mut() {
            if open(turn.index) {
                self.now = self.now.max(turn.deadline);
                turn.deadline = self.now + after(weight(turn.index));
                turn.number = self.number;
                self.number += 1;
                found = Some(turn.index);
                break;
            }
            // Closed for this call alone: it keeps its turn.
            self.passed.push(PeekMut::pop(turn));
        }
        self.turns.extend(self.passed.drain(..));
        if self.now > LATE {
            self.set_back();
        }
        found
    }

    fn set_back(&mut self) {
        let mut turns = std::mem::take(&mut self.turns).into_vec();
        for turn in &mut turns {
            turn.deadline = (turn.deadline - self.now).max(0.0);
        }
        self.turns = turns.into();
        self.now = 0.0;
    }
}

/// The greatest turn is the one that is due first.
impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let deadline = other.deadline.total_cmp(&self.deadline);
        deadline.then_with(|| other.number.cmp(&self.number))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Turn {}
