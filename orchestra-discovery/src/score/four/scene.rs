//! Reading the state of candidates for their scores.

use orchestra_core::{Locality, Monotonic, Proximity};

use super::FourFactors;
use super::terms::{Near, State, Terms};
use crate::balance::Candidates;
use crate::resolver::PickContext;
use crate::score::around::{Around, proximity, steps};
use crate::score::peers::{self, Peers};
use crate::slab::Reading;

/// The least headroom that a reported utilization leaves.
const LEAST_HEADROOM: f32 = 1.0 / 1024.0;

/// Where candidates are.
#[derive(Debug)]
enum Whereabouts<'a> {
    /// It does not count, or the caller does not say where it is.
    Nowhere,
    /// By the numbers of their places.
    Numbered(Around, &'a Peers),
    /// By comparing with this place.
    Compared(&'a Locality, Option<&'a Peers>),
}

/// The candidates of a call, and how it looks at them.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    candidates: &'a Candidates<'a>,
    now: Monotonic,
    pub(super) terms: Terms,
    per_call: f32,
    whereabouts: Whereabouts<'a>,
}

impl<'a> Scene<'a> {
    #[inline]
    fn new(
        four: &FourFactors,
        candidates: &'a Candidates<'a>,
        context: &PickContext<'_>,
        whereabouts: impl FnOnce(&'a Locality, Option<&'a Peers>) -> Whereabouts<'a>,
    ) -> Self {
        let peers = candidates.prepared::<Peers>();
        let median = match peers {
            _ if four.parts.performance <= 0.0 => None,
            Some(peers) => peers.median(candidates, context),
            None => peers::sampled(candidates, context),
        };
        let caller = candidates.caller().filter(|_| four.parts.proximity > 0.0);
        Self {
            candidates,
            now: context.now,
            terms: Terms::new(four.parts, median),
            per_call: four.per_call,
            whereabouts: caller.map_or(Whereabouts::Nowhere, |caller| whereabouts(caller, peers)),
        }
    }

    /// To score one or a few.
    #[inline]
    pub(super) fn of_few(
        four: &FourFactors,
        candidates: &'a Candidates<'a>,
        context: &PickContext<'_>,
    ) -> Self {
        Self::new(four, candidates, context, Whereabouts::Compared)
    }

    /// To score all.
    pub(super) fn of_all(
        four: &FourFactors,
        candidates: &'a Candidates<'a>,
        context: &PickContext<'_>,
    ) -> Self {
        Self::new(four, candidates, context, |caller, peers| {
            let Some(peers) = peers else {
                return Whereabouts::Compared(caller, None);
            };
            let around = peers.places.around(caller);
            around.map_or(Whereabouts::Nowhere, |around| {
                Whereabouts::Numbered(around, peers)
            })
        })
    }

    /// How near a candidate is, in steps from unknown.
    #[inline]
    pub(super) fn steps(&self, index: usize) -> usize {
        match &self.whereabouts {
            Whereabouts::Nowhere => 0,
            Whereabouts::Numbered(around, peers) => around.steps(peers.places.number(index)),
            Whereabouts::Compared(caller, peers) => steps(self.proximity(caller, *peers, index)),
        }
    }

    fn proximity(
        &self,
        caller: &Locality,
        peers: Option<&Peers>,
        index: usize,
    ) -> Option<Proximity> {
        match peers {
            Some(peers) => peers.places.proximity(caller, index),
            None => proximity(caller, &self.candidates.instance(index)?.locality),
        }
    }

    /// What its calls say of a candidate.
    #[inline]
    pub(super) fn reading(&self, index: usize) -> Option<Reading> {
        let hot = self.candidates.hot(index)?;
        self.candidates.reading_of(hot, self.now)
    }

    /// What a candidate is judged by.
    #[inline]
    pub(super) fn state(&self, index: usize) -> State {
        let Some(hot) = self.candidates.hot(index) else {
            return State::UNKNOWN;
        };
        let reading = self.candidates.reading_of(hot, self.now);
        let Reading { latency, success } = reading.unwrap_or(Reading {
            latency: State::UNKNOWN.latency,
            success: State::UNKNOWN.success,
        });
        let calls = hot.in_flight() as f32 * self.candidates.lightness(index);
        let mut load = 1.0 + calls * self.per_call;
        if let Some(used) = hot.utilization(self.now) {
            load /= (1.0 - used).max(LEAST_HEADROOM);
        }
        let near = self.terms.near(self.steps(index));
        let has_sample = reading.is_some() || self.terms.needs_no_sample();
        State {
            latency,
            success,
            load,
            near,
            is_known: has_sample && near.inverse > 0.0,
        }
    }
}

/// So many candidates are scored at a time: their states stay in the first cache.
pub(super) const BLOCK: usize = 64;

/// The states of some candidates, each part by itself, so that a loop over them becomes vector code.
#[derive(Debug)]
pub(super) struct Block {
    latency: [f32; BLOCK],
    success: [f32; BLOCK],
    load: [f32; BLOCK],
    term: [f32; BLOCK],
    inverse: [f32; BLOCK],
    pub(super) is_known: [bool; BLOCK],
}

impl Block {
    pub(super) const UNKNOWN: Self = Self {
        latency: [State::UNKNOWN.latency; BLOCK],
        success: [State::UNKNOWN.success; BLOCK],
        load: [State::UNKNOWN.load; BLOCK],
        term: [State::UNKNOWN.near.term; BLOCK],
        inverse: [State::UNKNOWN.near.inverse; BLOCK],
        is_known: [State::UNKNOWN.is_known; BLOCK],
    };

    /// Reads those from `begin` on.
    #[inline]
    pub(super) fn read(&mut self, scene: &Scene<'_>, begin: usize, count: usize) {
        for place in 0..BLOCK.min(count) {
            let state = scene.state(begin + place);
            self.latency[place] = state.latency;
            self.success[place] = state.success;
            self.load[place] = state.load;
            self.term[place] = state.near.term;
            self.inverse[place] = state.near.inverse;
            self.is_known[place] = state.is_known;
        }
    }

    /// The scores of those that are known; of the others some number.
    #[inline]
    pub(super) fn scores(&self, terms: &Terms) -> [f32; BLOCK] {
        let mut scores = [0.0; BLOCK];
        for (place, score) in scores.iter_mut().enumerate() {
            *score = terms.score(State {
                latency: self.latency[place],
                success: self.success[place],
                load: self.load[place],
                near: Near {
                    term: self.term[place],
                    inverse: self.inverse[place],
                },
                is_known: true,
            });
        }
        scores
    }
}
