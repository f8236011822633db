//! Points on a circle of hashes, in order, each with the id of a node.
//!
//! The circle is cut at the highest bits of the hash into arcs of about a hundred points, each an array of its own.
//! Points are uniform, so the place of a hash within its arc is guessed by interpolation and found by a gallop of a
//! few steps from there, within one or two cache lines; an attacker who crowds an arc makes the gallop logarithmic,
//! not linear. A change copies the arcs that it touches and shares the others with the circle before.

use std::fmt;
use std::sync::Arc;

/// About how many points an arc has when the circle is cut; it is cut anew when they are half or twice as many.
const ARC: usize = 128;

/// A hash that is a place on the circle.
pub(super) trait Place: Copy + Ord + fmt::Debug {
    /// The place in 64 bits, with its own highest bit on top.
    fn wide(self) -> u64;
}

impl Place for u64 {
    fn wide(self) -> u64 {
        self
    }
}

impl Place for u32 {
    fn wide(self) -> u64 {
        u64::from(self) << 32
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point<P> {
    pub(super) at: P,
    pub(super) id: u32,
}

#[derive(Clone)]
pub(super) struct Circle<P> {
    arcs: Vec<Arc<[Point<P>]>>,
    /// How far the wide place is shifted to give the arc; less than 64.
    shift: u32,
    length: usize,
}

/// Where a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    arc: usize,
    index: usize,
}

impl<P: Place> Circle<P> {
    /// A circle of these points, which are in order.
    pub(super) fn new(points: &[Point<P>]) -> Self {
        // One bit at least, so that the shift is never as wide as the word.
        let bits = (points.len() / ARC).checked_ilog2().unwrap_or(0).max(1);
        let shift = u64::BITS - bits;
        let mut rest = points;
        let arcs = (0..1_u64 << bits).map(|arc| {
            let here = rest.partition_point(|point| point.at.wide() >> shift <= arc);
            let (arc, after) = rest.split_at(here);
            rest = after;
            Arc::from(arc)
        });
        Self {
            arcs: arcs.collect(),
            shift,
            length: points.len(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn points(&self) -> impl Iterator<Item = Point<P>> {
        self.arcs.iter().flat_map(|arc| arc.iter().copied())
    }

    /// The circle without the points `gone` and with the points `new`, both in order.
    ///
    /// At one place, `goes_first(a, b)` tells whether the point of `a` is before that of `b`.
    pub(super) fn changed(
        &self,
        gone: &[Point<P>],
        new: &[Point<P>],
        goes_first: impl Fn(u32, u32) -> bool,
    ) -> Self {
        let (mut gone, mut new) = (gone, new);
        let mut arcs = Vec::with_capacity(self.arcs.len());
        let mut length = 0;
        for (number, arc) in self.arcs.iter().enumerate() {
            let off = take_arc(&mut gone, number as u64, self.shift);
            let on = take_arc(&mut new, number as u64, self.shift);
            let arc = if off.is_empty() && on.is_empty() {
                Arc::clone(arc)
            } else {
                merged(arc, off, on, &goes_first)
            };
            length += arc.len();
            arcs.push(arc);
        }
        let circle = Self {
            arcs,
            shift: self.shift,
            length,
        };
        if circle.is_well_cut() {
            return circle;
        }
        Self::new(&circle.points().collect::<Vec<_>>())
    }

    fn is_well_cut(&self) -> bool {
        let arcs = self.arcs.len();
        let few = arcs > 2 && self.length / arcs < ARC / 2;
        !few && self.length / arcs < ARC * 4
    }

    /// The first point at this place or after it, going around; `None` if there are no points.
    pub(super) fn first_from(&self, at: P) -> Option<Cursor> {
        let wide = at.wide();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an arc is an index of an array"
        )]
        let arc = (wide >> self.shift) as usize;
        let index = lower_bound(&self.arcs[arc], at, wide << (u64::BITS - self.shift));
        self.settle(Cursor { arc, index })
    }

    /// The point after this one, going around.
    pub(super) fn after(&self, cursor: Cursor) -> Option<Cursor> {
        let index = cursor.index + 1;
        self.settle(Cursor {
            arc: cursor.arc,
            index,
        })
    }

    /// The point that many after this one, going around.
    pub(super) fn skip(&self, mut cursor: Cursor, steps: u64) -> Option<Cursor> {
        let left = steps.checked_rem(self.length as u64)?;
        let mut left = usize::try_from(left).ok()?;
        loop {
            let here = self.arcs[cursor.arc].len() - cursor.index;
            if left < here {
                return Some(Cursor {
                    arc: cursor.arc,
                    index: cursor.index + left,
                });
            }
            left -= here;
            cursor = Cursor {
                arc: (cursor.arc + 1) % self.arcs.len(),
                index: 0,
            };
        }
    }

    pub(super) fn point(&self, cursor: Cursor) -> Point<P> {
        self.arcs[cursor.arc][cursor.index]
    }

    /// The cursor itself, or the next point if it is behind the last of its arc.
    fn settle(&self, cursor: Cursor) -> Option<Cursor> {
        if cursor.index < self.arcs[cursor.arc].len() {
            return Some(cursor);
        }
        let arcs = self.arcs.len();
        let following = (1..=arcs).map(|step| (cursor.arc + step) % arcs);
        let arc = following
            .into_iter()
            .find(|&arc| !self.arcs[arc].is_empty())?;
        Some(Cursor { arc, index: 0 })
    }
}

/// Splits off those points that belong into this arc.
fn take_arc<'a, P: Place>(points: &mut &'a [Point<P>], arc: u64, shift: u32) -> &'a [Point<P>] {
    // Most arcs have none: the search is for the others.
    if points
        .first()
        .is_none_or(|point| point.at.wide() >> shift != arc)
    {
        return &[];
    }
    let (here, after) = points.split_at(points.partition_point(|p| p.at.wide() >> shift == arc));
    *points = after;
    here
}

fn merged<P: Place>(
    arc: &[Point<P>],
    gone: &[Point<P>],
    new: &[Point<P>],
    goes_first: impl Fn(u32, u32) -> bool,
) -> Arc<[Point<P>]> {
    let mut points = Vec::with_capacity(arc.len() + new.len());
    let (mut gone, mut new) = (gone, new);
    for &point in arc {
        while let [first, rest @ ..] = gone
            && first.at < point.at
        {
            gone = rest;
        }
        let here = gone.iter().take_while(|off| off.at == point.at);
        if here.into_iter().any(|off| off.id == point.id) {
            continue;
        }
        while let [first, rest @ ..] = new
            && (first.at < point.at || first.at == point.at && goes_first(first.id, point.id))
        {
            points.push(*first);
            new = rest;
        }
        points.push(point);
    }
    points.extend_from_slice(new);
    points.into()
}

/// How many points of the arc are before `at`, whose place within the arc is `fraction / 2^64`.
fn lower_bound<P: Place>(arc: &[Point<P>], at: P, fraction: u64) -> usize {
    let length = arc.len();
    #[expect(clippy::cast_possible_truncation, reason = "less than the length")]
    let guess = ((u128::from(fraction) * length as u128) >> 64) as usize;
    let before = |index: usize| arc[index].at < at;
    let mut step = 4;
    let (low, high) = if guess < length && before(guess) {
        let mut low = guess + 1;
        let mut high = low + step;
        while high < length && before(high) {
            low = high + 1;
            step *= 2;
            high = low + step;
        }
        (low, high.min(length))
    } else {
        let mut high = guess;
        let mut low = high.saturating_sub(step);
        while low > 0 && !before(low) {
            high = low;
            step *= 2;
            low = high.saturating_sub(step);
        }
        (low, high)
    };
    low + arc[low..high].partition_point(|point| point.at < at)
}

impl<P> fmt::Debug for Circle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circle")
            .field("points", &self.length)
            .field("arcs", &self.arcs.len())
            .finish_non_exhaustive()
    }
}
