//! Points on a circle of hashes, in order, each with the id of a node.
//!
//! The circle is cut at the highest bits of the hash into arcs of about a thousand points, each an array of its own.
//! Points are uniform, so the place of a hash within its arc is guessed by interpolation and found by a gallop of a
//! few steps from there; an attacker who crowds an arc makes the gallop logarithmic, not linear. What is searched
//! is a digest of the points: the next bits of the hash and the id of the node in one word, sixteen to a cache line.
//! Only where those bits are equal to the sought ones do the points themselves decide. A change copies the arcs that
//! it touches and shares the others with the circle before.

use std::fmt;
use std::sync::Arc;

/// About how many points an arc has when the circle is cut; it is cut anew when they are half or twice as many.
///
/// Larger ones make a smaller directory, which stays in the cache, and dearer changes; those of tests are small, so that
/// there are many.
const ARC: usize = if cfg!(test) { 32 } else { 1024 };

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

/// The points whose highest bits are the same, and their digests.
#[derive(Clone)]
struct Stretch<P> {
    digests: Arc<[u32]>,
    points: Arc<[Point<P>]>,
}

/// How points are cut into arcs and digested.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// How far the wide place is shifted to give the arc; less than 64.
    shift: u32,
    /// How many bits of a digest are the id; less than 32.
    id_bits: u32,
}

#[derive(Clone)]
pub(super) struct Circle<P> {
    arcs: Vec<Stretch<P>>,
    cut: Cut,
    length: usize,
}

impl Cut {
    /// For so many points, whose greatest id is this.
    fn new(points: usize, greatest: u32) -> Self {
        // One bit at least, so that the shift is never as wide as the word.
        let bits = (points / ARC).checked_ilog2().unwrap_or(0).max(1);
        Self {
            shift: u64::BITS - bits,
            id_bits: (u32::BITS - greatest.leading_zeros()).min(u32::BITS - 1),
        }
    }

    /// Whether digests have room for this id.
    fn holds(self, id: u32) -> bool {
        id >> self.id_bits == 0
    }

    fn arc<P: Place>(self, at: P) -> u64 {
        at.wide() >> self.shift
    }

    /// Where in its arc a place is, as a fraction of 2^64.
    fn fraction<P: Place>(self, at: P) -> u64 {
        at.wide() << (u64::BITS - self.shift)
    }

    /// The part of a digest that a place gives: as many bits of the fraction as there is room for.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is left of the word after the shift"
    )]
    fn mark<P: Place>(self, at: P) -> u32 {
        (self.fraction(at) >> (u32::BITS + self.id_bits)) as u32
    }

    fn digest<P: Place>(self, point: Point<P>) -> u32 {
        (self.mark(point.at) << self.id_bits) | point.id
    }

    fn stretch<P: Place>(self, points: Arc<[Point<P>]>) -> Stretch<P> {
        Stretch {
            digests: points.iter().map(|&point| self.digest(point)).collect(),
            points,
        }
    }
}

/// Where a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    arc: usize,
    index: usize,
}

impl<P: Place> Circle<P> {
    /// A circle of these points, which are in order.
    ///
    /// # Panics
    ///
    /// If an id is 2^31 or more.
    pub(super) fn new(points: &[Point<P>]) -> Self {
        let greatest = points.iter().map(|point| point.id).max().unwrap_or(0);
        let cut = Cut::new(points.len(), greatest);
        assert!(cut.holds(greatest), "fewer nodes than 2^31");
        let mut rest = points;
        let arcs = (0..1_u64 << (u64::BITS - cut.shift)).map(|arc| {
            let here = rest.partition_point(|point| cut.arc(point.at) <= arc);
            let (arc, after) = rest.split_at(here);
            rest = after;
            cut.stretch(Arc::from(arc))
        });
        Self {
            arcs: arcs.collect(),
            cut,
            length: points.len(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn points(&self) -> impl Iterator<Item = Point<P>> {
        let points = self.arcs.iter().map(|arc| &arc.points);
        points.flat_map(|points| points.iter().copied())
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
        let is_held = new.iter().all(|point| self.cut.holds(point.id));
        let (mut gone, mut new) = (gone, new);
        let mut arcs = Vec::with_capacity(self.arcs.len());
        let mut length = 0;
        for (number, arc) in self.arcs.iter().enumerate() {
            let off = take_arc(&mut gone, number as u64, self.cut);
            let on = take_arc(&mut new, number as u64, self.cut);
            let arc = if off.is_empty() && on.is_empty() {
                arc.clone()
            } else {
                self.cut.stretch(merged(&arc.points, off, on, &goes_first))
            };
            length += arc.points.len();
            arcs.push(arc);
        }
        let cut = self.cut;
        let circle = Self { arcs, cut, length };
        if is_held && circle.is_well_cut() {
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
    #[inline]
    pub(super) fn first_from(&self, at: P) -> Option<Cursor> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an arc is an index of an array"
        )]
        let arc = self.cut.arc(at) as usize;
        let stretch = &self.arcs[arc];
        let (mark, fraction) = (self.cut.mark(at), self.cut.fraction(at));
        let mut index = lower_bound(&stretch.digests, mark << self.cut.id_bits, fraction);
        if let Some(digest) = stretch.digests.get(index)
            && digest >> self.cut.id_bits == mark
        {
            index += self.exactly(stretch, index, at);
        }
        self.settle(Cursor { arc, index })
    }

    /// How many points from this one on, whose digests do not tell, are before a place.
    #[cold]
    fn exactly(&self, stretch: &Stretch<P>, index: usize, at: P) -> usize {
        let mark = self.cut.mark(at);
        let alike = |digest: &u32| digest >> self.cut.id_bits == mark;
        let alike = stretch.digests[index..].partition_point(alike);
        stretch.points[index..index + alike].partition_point(|point| point.at < at)
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
            let here = self.arcs[cursor.arc].points.len() - cursor.index;
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
        self.arcs[cursor.arc].points[cursor.index]
    }

    /// The id of the point, which is nearer at hand than the point.
    #[inline]
    pub(super) fn id(&self, cursor: Cursor) -> u32 {
        self.arcs[cursor.arc].digests[cursor.index] % (1 << self.cut.id_bits)
    }

    /// The cursor itself, or the next point if it is behind the last of its arc.
    #[inline]
    fn settle(&self, cursor: Cursor) -> Option<Cursor> {
        if cursor.index < self.arcs[cursor.arc].digests.len() {
            return Some(cursor);
        }
        self.first_after(cursor)
    }

    fn first_after(&self, cursor: Cursor) -> Option<Cursor> {
        let arcs = self.arcs.len();
        let following = (1..=arcs).map(|step| (cursor.arc + step) % arcs);
        let arc = following
            .into_iter()
            .find(|&arc| !self.arcs[arc].points.is_empty())?;
        Some(Cursor { arc, index: 0 })
    }
}

/// Splits off those points that belong into this arc.
fn take_arc<'a, P: Place>(points: &mut &'a [Point<P>], arc: u64, cut: Cut) -> &'a [Point<P>] {
    // Most arcs have none: the search is for the others.
    if points.first().is_none_or(|point| cut.arc(point.at) != arc) {
        return &[];
    }
    let (here, after) = points.split_at(points.partition_point(|point| cut.arc(point.at) == arc));
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

/// How many digests are less than this one, whose place among them is about `fraction / 2^64`.
fn lower_bound(digests: &[u32], least: u32, fraction: u64) -> usize {
    let length = digests.len();
    #[expect(clippy::cast_possible_truncation, reason = "less than the length")]
    let guess = ((u128::from(fraction) * length as u128) >> 64) as usize;
    let before = |index: usize| digests[index] < least;
    // The guess is off by half the square root of the length or so.
    let mut step = 16;
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
    low + digests[low..high].partition_point(|&digest| digest < least)
}

impl<P> fmt::Debug for Circle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circle")
            .field("points", &self.length)
            .field("arcs", &self.arcs.len())
            .finish_non_exhaustive()
    }
}
