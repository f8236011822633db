//! What is known of each host, by its number.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use super::recovery::{Out, Penalty};
use crate::outlier::{Counts, Host, Interval};

/// A host that was never ejected takes no more than this.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) current: Counts,
    pub(super) previous: Counts,
    latency: Option<NonZeroU64>,
    history: Option<Box<History>>,
    /// Restored since the last sweep: what was counted may be from before.
    is_fresh: bool,
    /// Found to be an outlier in this sweep.
    pub(super) is_found: bool,
    /// Found to be slow in the last sweep.
    pub(super) was_slow: bool,
}

/// The ejections of a host.
#[derive(Debug, Default)]
struct History {
    penalty: Penalty,
    out: Option<Out>,
}

impl State {
    pub(super) fn take(&mut self, interval: Interval) {
        self.is_found = false;
        self.previous = self.current;
        self.current = interval.external.sane();
        let nanos = |mean: Duration| u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.latency = interval.latency.map(nanos).and_then(NonZeroU64::new);
        if self.is_out() || self.is_fresh {
            self.forget();
        }
        self.is_fresh = false;
    }

    /// The mean latency of the interval.
    pub(super) fn latency(&self) -> Option<Duration> {
        let nanos = self.latency?;
        Some(Duration::from_nanos(nanos.get()))
    }

    fn forget(&mut self) {
        self.current = Counts::default();
        self.previous = Counts::default();
        self.latency = None;
        self.was_slow = false;
    }

    pub(super) fn is_out(&self) -> bool {
        self.out().is_some()
    }

    pub(super) fn out(&self) -> Option<&Out> {
        self.history.as_ref()?.out.as_ref()
    }

    pub(super) fn out_mut(&mut self) -> Option<&mut Out> {
        self.history.as_mut()?.out.as_mut()
    }

    pub(super) fn penalty(&mut self) -> &mut Penalty {
        &mut self.history.get_or_insert_default().penalty
    }

    pub(super) fn eject(&mut self, out: Out) {
        self.history.get_or_insert_default().out = Some(out);
    }

    pub(super) fn restore(&mut self) {
        if let Some(history) = &mut self.history {
            history.out = None;
        }
        self.is_fresh = true;
        self.forget();
    }
}

/// Hosts whose numbers are neighbours stand together.
const CHUNK: u32 = 64;

#[derive(Debug)]
struct Chunk {
    states: [Option<State>; CHUNK as usize],
    length: u32,
}

/// The hosts in the order of their numbers, which may be any.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    chunks: BTreeMap<u32, Box<Chunk>>,
    length: usize,
}

impl Hosts {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn get(&self, host: Host) -> Option<&State> {
        let (chunk, place) = place(host);
        self.chunks.get(&chunk)?.states.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, host: Host) -> Option<&mut State> {
        let (chunk, place) = place(host);
        self.chunks.get_mut(&chunk)?.states.get_mut(place)?.as_mut()
    }

    /// Takes a host in; one that is there stays as it is.
    pub(super) fn insert(&mut self, host: Host) {
        let (chunk, place) = place(host);
        let chunk = self.chunks.entry(chunk).or_insert_with(|| {
            Box::new(Chunk {
                states: [const { None }; CHUNK as usize],
                length: 0,
            })
        });
        if let Some(state @ None) = chunk.states.get_mut(place) {
            *state = Some(State::default());
            chunk.length += 1;
            self.length += 1;
        }
    }

    pub(super) fn remove(&mut self, host: Host) -> Option<State> {
        let (number, place) = place(host);
        let chunk = self.chunks.get_mut(&number)?;
        let state = chunk.states.get_mut(place)?.take()?;
        chunk.length -= 1;
        self.length -= 1;
        if chunk.length == 0 {
            self.chunks.remove(&number);
        }
        Some(state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Host, &State)> {
        self.chunks.iter().flat_map(|(&number, chunk)| {
            let states = (0..CHUNK).zip(&chunk.states);
            states.filter_map(move |(place, state)| {
                Some((Host::new(number * CHUNK + place), state.as_ref()?))
            })
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Host, &mut State)> {
        self.chunks.iter_mut().flat_map(|(&number, chunk)| {
            let states = (0..CHUNK).zip(&mut chunk.states);
            states.filter_map(move |(place, state)| {
                Some((Host::new(number * CHUNK + place), state.as_mut()?))
            })
        })
    }
}

fn place(host: Host) -> (u32, usize) {
    (host.number() / CHUNK, (host.number() % CHUNK) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn holds_what_a_set_holds_in_its_order() {
        let (mut hosts, mut set) = (Hosts::default(), BTreeSet::new());
        let mut rng = fastrand::Rng::with_seed(6);
        let edges = [0, CHUNK - 1, CHUNK, u32::MAX - 1, u32::MAX];
        for _ in 0..5_000 {
            let number = match rng.usize(..10) {
                0 => edges[rng.usize(..edges.len())],
                _ => rng.u32(..300),
            };
            let host = Host::new(number);
            if rng.bool() {
                hosts.insert(host);
                set.insert(host);
            } else {
                assert_eq!(hosts.remove(host).is_some(), set.remove(&host));
            }
            assert_eq!(hosts.len(), set.len());
            assert_eq!(hosts.get(host).is_some(), set.contains(&host));
        }
        assert!(hosts.iter().map(|(host, _)| host).eq(set.iter().copied()));
        assert!(
            hosts
                .iter_mut()
                .map(|(host, _)| host)
                .eq(set.iter().copied())
        );
        for host in set {
            hosts.remove(host);
        }
        assert!(hosts.chunks.is_empty());
    }

    #[test]
    fn host_in_order_takes_no_more_than_a_few_words() {
        assert_eq!(size_of::<Option<State>>(), 40);
    }
}
