//! Which node takes a slot when.
//!
//! Envoy goes through all nodes in every round and skips one while `round * weight < target`, where a turn raises the
//! target by the greatest weight. With one heavy node among ten thousand light ones that is a round over all of them
//! for nearly every slot. The turns of a node depend on its weight alone, so they are computed once for each weight
//! and then sorted by round, which costs as much as there are slots and nodes.

use crate::hash::roster::Roster;

/// The ranks of the nodes in the order of their turns.
pub(super) enum Turns {
    /// All of them in every round.
    Equal(usize),
    Weighted(Vec<u32>),
}

impl Turns {
    /// The turns of these members, at least as many as there are slots.
    pub(super) fn new(members: &[u32], roster: &Roster, slots: usize) -> Self {
        let weights = members.iter().map(|&at| roster.weight(at as usize));
        let (least, greatest) = (weights.clone().min(), weights.clone().max());
        if least == greatest {
            return Self::Equal(members.len());
        }
        let total = roster.total() as f64;
        let greatest = f64::from(greatest.unwrap_or(0)) / total;
        let mut distinct: Vec<u32> = weights.clone().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let class = |weight| distinct.partition_point(|&lighter| lighter < weight);
        let classes: Vec<usize> = weights.map(class).collect();

        // A node of share `s` has at least `rounds * s / greatest` turns, and the shares are one together.
        let rounds = (slots as f64 * greatest).ceil() + 2.0;
        let turns = |&weight: &u32| {
            let turns = Rounds::new(f64::from(weight) / total, greatest);
            turns
                .take_while(|round| *round <= rounds)
                .map(whole)
                .collect()
        };
        let turns: Vec<Vec<u32>> = distinct.iter().map(turns).collect();
        Self::Weighted(by_round(&classes, &turns, whole(rounds)))
    }

    /// The turn after this one; the first is zero.
    pub(super) const fn after(&self, turn: usize) -> usize {
        match self {
            Self::Equal(members) if turn + 1 == *members => 0,
            Self::Equal(_) | Self::Weighted(_) => turn + 1,
        }
    }

    /// The rank of the node whose turn it is.
    pub(super) fn rank(&self, turn: usize) -> Option<usize> {
        match self {
            Self::Equal(_) => Some(turn),
            Self::Weighted(ranks) => ranks.get(turn).map(|&rank| rank as usize),
        }
    }
}

/// The ranks by round, and in order within a round, if the node of a rank has the turns of its class.
fn by_round(classes: &[usize], turns: &[Vec<u32>], rounds: u32) -> Vec<u32> {
    let mut members = vec![0_usize; turns.len()];
    for &class in classes {
        members[class] += 1;
    }
    let mut starts = vec![0_usize; rounds as usize + 2];
    for (turns, members) in turns.iter().zip(members) {
        for &round in turns {
            starts[round as usize + 1] += members;
        }
    }
    for round in 1..starts.len() {
        starts[round] += starts[round - 1];
    }
    let mut ranks = vec![0; starts.last().copied().unwrap_or(0)];
    for (rank, &class) in (0..).zip(classes) {
        for &round in &turns[class] {
            let place = &mut starts[round as usize];
            ranks[*place] = rank;
            *place += 1;
        }
    }
    ranks
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number of rounds, of which there are few more than slots"
)]
const fn whole(rounds: f64) -> u32 {
    rounds as u32
}

/// The rounds in which a node has a turn.
struct Rounds {
    share: f64,
    per_share: f64,
    greatest: f64,
    target: f64,
    last: f64,
}

impl Rounds {
    fn new(share: f64, greatest: f64) -> Self {
        Self {
            share,
            per_share: 1.0 / share,
            greatest,
            target: 0.0,
            last: 0.0,
        }
    }
}

impl Iterator for Rounds {
    type Item = f64;

    /// The first round after the last with `round * share >= target`, to the bit.
    fn next(&mut self) -> Option<f64> {
        let earliest = self.last + 1.0;
        // A guess, as a division is slow and would be no more exact.
        let guess = (self.target * self.per_share).min(f64::from(u32::MAX));
        let mut round = f64::from(whole(guess)).max(earliest);
        while round > earliest && (round - 1.0) * self.share >= self.target {
            round -= 1.0;
        }
        while round * self.share < self.target {
            round += 1.0;
        }
        self.target += self.greatest;
        self.last = round;
        Some(round)
    }
}
