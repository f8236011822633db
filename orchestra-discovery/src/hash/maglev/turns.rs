//! Which node takes a slot when.
//!
//! Envoy goes through all nodes in every round and skips one while `round * weight < target`, where a turn raises the
//! target by the greatest weight. With one heavy node among ten thousand light ones that is a round over all of them
//! for nearly every slot. The turns of a node do not depend on the slots, so they are computed for each node by
//! itself and then sorted by round, which costs as much as there are slots and nodes.

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
        let shares: Vec<f64> = weights.map(|weight| f64::from(weight) / total).collect();
        Self::Weighted(by_round(&shares, slots))
    }

    /// The ranks; as many as are needed.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match self {
            Self::Equal(members) => Box::new((0..*members).cycle()),
            Self::Weighted(ranks) => Box::new(ranks.iter().map(|&rank| rank as usize)),
        }
    }
}

fn by_round(shares: &[f64], slots: usize) -> Vec<u32> {
    let greatest = shares.iter().copied().fold(0.0, f64::max);
    // A node of share `s` has at least `rounds * s / greatest` turns, and the shares are one together.
    let rounds = (slots as f64 * greatest).ceil() + 2.0;
    let mut turns: Vec<(u32, u32)> = Vec::with_capacity(slots + 2 * shares.len());
    for (rank, &share) in (0..).zip(shares) {
        let rounds_of = Rounds {
            share,
            greatest,
            target: 0.0,
            last: 0.0,
        };
        let rounds_of = rounds_of.take_while(|round| *round <= rounds);
        turns.extend(rounds_of.map(|round| (whole(round), rank)));
    }
    in_order(&turns, whole(rounds))
}

/// The ranks by round; those of one round stay in the order in which they are given.
fn in_order(turns: &[(u32, u32)], rounds: u32) -> Vec<u32> {
    let mut starts = vec![0_usize; rounds as usize + 2];
    for (round, _) in turns {
        starts[*round as usize + 1] += 1;
    }
    for round in 1..starts.len() {
        starts[round] += starts[round - 1];
    }
    let mut ranks = vec![0; turns.len()];
    for (round, rank) in turns {
        let place = &mut starts[*round as usize];
        ranks[*place] = *rank;
        *place += 1;
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
    greatest: f64,
    target: f64,
    last: f64,
}

impl Iterator for Rounds {
    type Item = f64;

    /// The first round after the last with `round * share >= target`, to the bit.
    fn next(&mut self) -> Option<f64> {
        let earliest = self.last + 1.0;
        let mut round = (self.target / self.share).ceil().max(earliest);
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
