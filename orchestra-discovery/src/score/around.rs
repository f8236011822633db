//! Where candidates are, seen from where a caller is.
//!
//! The distinct localities of a pool are numbered in their order, by region, zone and subzone. So those near to any
//! place are ranges of numbers: all of its region, all of its zone within, all of its subzone within that. A caller
//! looks three ranges up, and a candidate is compared by one number.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use orchestra_core::{Locality, Proximity};

/// The localities of a pool's members.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Without repetitions, in their order.
    places: Arc<[Locality]>,
    /// The number of each member's.
    of: Box<[u32]>,
}

/// More places than this beside two for each member are not kept: most of them have nobody any more.
const UNUSED: usize = 8;

impl Places {
    /// Of these, one for each member; linear in their number.
    pub(super) fn new<'a>(localities: impl Iterator<Item = &'a Locality> + Clone) -> Self {
        let mut numbers: HashMap<&Locality, u32> = HashMap::new();
        for locality in localities.clone() {
            numbers.entry(locality).or_default();
        }
        let mut places: Vec<_> = numbers.keys().copied().collect();
        places.sort();
        for (number, place) in (0..).zip(&places) {
            numbers.insert(place, number);
        }
        let number = |locality| numbers.get(locality).copied().unwrap_or_default();
        Self {
            of: localities.map(number).collect(),
            places: places.into_iter().cloned().collect(),
        }
    }

    /// The same places for members each of whom is where the one at an index before is, or is looked up; `None` if
    /// one is in none of the places, or most of them have nobody any more.
    pub(super) fn kept<'a>(
        &self,
        members: impl ExactSizeIterator<Item = Result<usize, &'a Locality>>,
    ) -> Option<Self> {
        if self.places.len() > 2 * members.len() + UNUSED {
            return None;
        }
        // Collected into an option it would grow piece by piece.
        let mut of = Vec::with_capacity(members.len());
        for member in members {
            let number = match member {
                Ok(before) => self.of.get(before).copied()?,
                Err(locality) => u32::try_from(self.places.binary_search(locality).ok()?).ok()?,
            };
            of.push(number);
        }
        Some(Self {
            places: Arc::clone(&self.places),
            of: of.into(),
        })
    }

    /// The number of the locality of the member at `index`; of no member it is that of no place.
    #[inline]
    pub(super) fn number(&self, index: usize) -> u32 {
        self.of.get(index).copied().unwrap_or(u32::MAX)
    }

    /// How near a member is to this place; `None` where one of the two is unknown.
    #[inline]
    pub(super) fn proximity(&self, caller: &Locality, index: usize) -> Option<Proximity> {
        proximity(caller, self.places.get(self.number(index) as usize)?)
    }

    /// The places around this one; `None` if it has no region.
    pub(super) fn around(&self, caller: &Locality) -> Option<Around> {
        let [region, zone, subzone] = caller.parts();
        region?;
        let all = 0..self.places.len();
        let known = self
            .places
            .partition_point(|place| place.parts()[0].is_none());
        let region = self.same(all, 0, region);
        let zone = self.same(region.clone(), 1, zone);
        let subzone = self.same(zone.clone(), 2, subzone);
        let numbers = |range: Range<usize>| {
            let number = |index| u32::try_from(index).unwrap_or(u32::MAX);
            number(range.start)..number(range.end)
        };
        Some(Around {
            known: numbers(known..self.places.len()),
            region: numbers(region),
            zone: numbers(zone),
            subzone: numbers(subzone),
        })
    }

    /// The places of a range whose part at this depth is this one; an unknown one is like no other.
    fn same(&self, range: Range<usize>, depth: usize, part: Option<&str>) -> Range<usize> {
        let within = self.places.get(range.clone()).unwrap_or_default();
        if part.is_none() {
            return range.start..range.start;
        }
        let order = |place: &Locality| place.parts().get(depth).copied().flatten().cmp(&part);
        let begin = within.partition_point(|place| order(place).is_lt());
        let end = within.partition_point(|place| order(place).is_le());
        range.start + begin..range.start + end
    }
}

/// How near two places are; `None` where the region of one of them is unknown.
#[inline]
pub(super) fn proximity(caller: &Locality, place: &Locality) -> Option<Proximity> {
    let known = |locality: &Locality| locality.parts()[0].is_some();
    (known(caller) && known(place)).then(|| caller.proximity(place))
}

/// The numbers of the places around a caller, each range within the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Around {
    known: Range<u32>,
    region: Range<u32>,
    zone: Range<u32>,
    subzone: Range<u32>,
}

impl Around {
    /// In how many of the ranges the place of this number is: none for an unknown one, four for the same subzone.
    #[inline]
    pub(super) fn steps(&self, number: u32) -> usize {
        let is_in = |range: &Range<u32>| {
            usize::from(number.wrapping_sub(range.start) < range.end - range.start)
        };
        is_in(&self.known) + is_in(&self.region) + is_in(&self.zone) + is_in(&self.subzone)
    }
}

/// The same count for a proximity.
#[inline]
pub(super) fn steps(proximity: Option<Proximity>) -> usize {
    match proximity {
        None => 0,
        Some(Proximity::Region) => 2,
        Some(Proximity::Zone) => 3,
        Some(Proximity::Subzone) => 4,
        Some(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locality() -> impl Strategy<Value = Locality> {
        let part = || prop_oneof![Just(""), Just("a"), Just("b"), Just("ab")];
        (part(), part(), part())
            .prop_map(|(region, zone, subzone)| Locality::new(region).zone(zone).subzone(subzone))
    }

    #[test]
    fn places_are_kept_as_long_as_they_are_known_and_few() {
        let zones: Vec<_> = (0..30)
            .map(|n| Locality::new("e").zone(&format!("{n:02}")))
            .collect();
        let places = Places::new(zones.iter());
        let kept = |count| places.kept(zones.iter().take(count).map(Err));
        assert_eq!(kept(11).unwrap().of.len(), 11);
        assert!(kept(10).is_none());
        let elsewhere = Locality::new("w");
        assert!(places.kept([Ok(0), Err(&elsewhere)].into_iter()).is_none());
        assert!(places.kept([Ok(30)].into_iter()).is_none());
    }

    proptest! {
        #[test]
        fn ranges_say_what_comparing_says(
            members in proptest::collection::vec(locality(), 0..40),
            caller in locality(),
        ) {
            let places = Places::new(members.iter());
            let around = places.around(&caller);
            for (index, member) in members.iter().enumerate() {
                let expected = proximity(&caller, member);
                prop_assert_eq!(places.proximity(&caller, index), expected);
                let found = around.as_ref().map_or(0, |around| around.steps(places.number(index)));
                prop_assert_eq!(found, steps(expected), "{} from {}", member, caller);
            }
            prop_assert_eq!(places.proximity(&caller, members.len()), None);
            let same = members.iter().enumerate().map(|(index, member)| {
                if index % 2 == 0 { Ok(index) } else { Err(member) }
            });
            let kept = places.kept(same).unwrap();
            prop_assert_eq!((kept.places, kept.of), (Arc::clone(&places.places), places.of.clone()));
            let outside = around.map_or(0, |around| around.steps(places.number(members.len())));
            prop_assert_eq!(outside, 0);
        }
    }
}
