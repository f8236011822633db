//! What a pool's candidates have in common: where they are, and how long its calls typically take.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestra_core::{Locality, Monotonic};

use super::around::Places;
use crate::balance::{Candidates, PoolMembers, Prepared, mix};
use crate::resolver::PickContext;
use crate::resolver::view::Members;

/// So many candidates tell the median: it then is within the middle quarter of all with 95 %.
const SAMPLE: usize = 63;
/// The moment of the median is kept in units of 2^20 ns, about a millisecond, …
const UNIT_SHIFT: u32 = 20;
/// … and so many of them later it is taken anew.
const REFRESH: u32 = 19;
/// It has never been taken.
const NEVER: u64 = u64::MAX;
/// The least latency that is told apart from none, in seconds.
const LEAST: f32 = 1e-9;

/// The peers of a pool; the median outlives changes of its members.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) places: Places,
    /// The moment, and the bits of the median in seconds, 0 for none.
    median: AtomicU64,
    /// The pool's members, by which those that stay as they are are found after a change.
    slots: Box<[u32]>,
    members: Members,
}

/// So far ahead a member is looked for after others left.
const AHEAD: usize = 32;

impl Peers {
    pub(super) fn new(members: &PoolMembers<'_>, before: Option<Prepared>) -> Self {
        let before = before.and_then(|before| before.downcast::<Self>().ok());
        let nowhere = Locality::default();
        let located = |slot: &u32| {
            let member = members.all().member(*slot);
            member.map_or(&nowhere, |member| &member.instance.locality)
        };
        let localities = members.slots().iter().map(located);
        let kept = before
            .as_ref()
            .and_then(|before| before.places_of(members, located));
        let median = before.map_or(NEVER, |before| before.median.load(Ordering::Relaxed));
        Self {
            places: kept.unwrap_or_else(|| Places::new(localities)),
            median: AtomicU64::new(median),
            slots: members.slots().into(),
            members: members.all().clone(),
        }
    }

    /// Where these are, if nobody is at a new place. Of members that stayed nothing but their address is read: they
    /// are not moved, and since they are held here too, their addresses are not given to others.
    fn places_of<'a>(
        &self,
        members: &PoolMembers<'_>,
        located: impl Fn(&u32) -> &'a Locality,
    ) -> Option<Places> {
        let mut next = 0;
        let known = |slot: &u32| {
            let Some(before) = self.find(*slot, next) else {
                return Err(located(slot));
            };
            next = before + 1;
            match (members.all().member(*slot), self.members.member(*slot)) {
                (Some(member), Some(same)) if ptr::eq(member, same) => Ok(before),
                _ => Err(located(slot)),
            }
        };
        self.places.kept(members.slots().iter().map(known))
    }

    /// The index before of a member, which is at this one unless others left.
    #[inline]
    fn find(&self, slot: u32, from: usize) -> Option<usize> {
        let rest = self.slots.get(from..)?;
        if rest.first() == Some(&slot) {
            return Some(from);
        }
        let ahead = rest.iter().take(AHEAD).position(|&before| before == slot);
        ahead.map(|ahead| from + ahead)
    }

    pub(super) fn prepared(self) -> Prepared {
        Arc::new(self)
    }

    /// The typical latency in seconds; `None` as long as those who were asked know none. It is at most
    /// 20 ms old. Of callers that find it older one takes it anew, and nobody waits.
    #[inline]
    pub(super) fn median(
        &self,
        candidates: &Candidates<'_>,
        context: &PickContext<'_>,
    ) -> Option<f32> {
        let word = self.median.load(Ordering::Relaxed);
        if word != NEVER && age(word, context.now) < REFRESH {
            return value(word);
        }
        self.take(word, candidates, context)
    }

    #[cold]
    fn take(
        &self,
        word: u64,
        candidates: &Candidates<'_>,
        context: &PickContext<'_>,
    ) -> Option<f32> {
        let now = context.now;
        if word != NEVER {
            let claimed = pack(now, value(word));
            let claim =
                self.median
                    .compare_exchange(word, claimed, Ordering::Relaxed, Ordering::Relaxed);
            if claim.is_err() {
                return value(word);
            }
        }
        let median = sampled(candidates, context);
        self.median.store(pack(now, median), Ordering::Relaxed);
        median
    }
}

/// The median latency of some candidates that are drawn, or of all if they are few; the lower one of two.
pub(super) fn sampled(candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<f32> {
    let mut latencies = [0.0_f32; SAMPLE];
    let mut known = 0;
    let mut draw = context.draw;
    for number in 0..SAMPLE.min(candidates.len()) {
        let index = if candidates.len() <= SAMPLE {
            number
        } else {
            draw = mix(draw);
            uniform(draw, candidates.len())
        };
        let hot = candidates.hot(index);
        let reading = hot.and_then(|hot| candidates.reading_of(hot, context.now));
        if let Some(reading) = reading
            && let Some(place) = latencies.get_mut(known)
        {
            *place = reading.latency.max(LEAST);
            known += 1;
        }
    }
    let known = latencies.get_mut(..known)?;
    let middle = known.len().checked_sub(1)? / 2;
    let (_, median, _) = known.select_nth_unstable_by(middle, f32::total_cmp);
    Some(*median)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the product's upper half is below the length"
)]
fn uniform(draw: u64, length: usize) -> usize {
    ((u128::from(draw) * length as u128) >> 64) as usize
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the moment is meant to wrap"
)]
fn units(now: Monotonic) -> u32 {
    (now.as_nanos() >> UNIT_SHIFT) as u32
}

fn age(word: u64, now: Monotonic) -> u32 {
    let age = u64::from(units(now)).wrapping_sub(word >> 32) & u64::from(u32::MAX);
    // Another thread may have read the clock a little later and be here before.
    if age > u64::from(u32::MAX / 2) {
        return 0;
    }
    u32::try_from(age).unwrap_or(u32::MAX)
}

fn pack(now: Monotonic, median: Option<f32>) -> u64 {
    u64::from(units(now)) << 32 | u64::from(median.unwrap_or(0.0).to_bits())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each half of the word is taken apart"
)]
fn value(word: u64) -> Option<f32> {
    let median = f32::from_bits(word as u32);
    (median > 0.0).then_some(median)
}
