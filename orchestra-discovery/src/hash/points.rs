//! The points of all nodes on a circle, and what becomes of them when nodes change.

use std::ops::Range;

use super::circle::{Circle, Cursor, Place, Point};
use super::roster::{Ids, Matching, Roster};

/// Appends the points of a key with these numbers, under this id.
pub(super) type Push<P> = fn(&mut Vec<Point<P>>, &str, u32, Range<u32>);

/// Nodes, how many points each has, and the points.
///
/// Of several points at one place, that of the earlier node is first.
#[derive(Debug, Clone)]
pub(super) struct Points<P> {
    pub(super) roster: Roster,
    pub(super) circle: Circle<P>,
    ids: Ids,
    counts: Vec<u32>,
}

impl<P: Place> Points<P> {
    pub(super) fn new(roster: Roster, counts: Vec<u32>, push: Push<P>) -> Self {
        let mut points = Vec::with_capacity(counts.iter().map(|&count| count as usize).sum());
        let ids = Ids::new(roster.len());
        for (position, &count) in counts.iter().enumerate() {
            push(
                &mut points,
                roster.key(position),
                ids.of(position),
                0..count,
            );
        }
        points.sort_unstable_by_key(|point| (point.at, point.id));
        let circle = Circle::new(&points);
        Self {
            roster,
            circle,
            ids,
            counts,
        }
    }

    /// The same for the next list of nodes: only points that come or go are computed.
    pub(super) fn after(
        &self,
        roster: Roster,
        matching: &Matching,
        counts: Vec<u32>,
        push: Push<P>,
    ) -> Self {
        // Points at one place would have to change theirs if nodes did.
        let ids = matching
            .in_order
            .then(|| self.ids.after(matching))
            .flatten();
        let Some(ids) = ids else {
            return Self::new(roster, counts, push);
        };
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for (was, &now) in matching.new.iter().enumerate() {
            let keeps = counts.get(now as usize).copied().unwrap_or(0);
            let (key, id) = (self.roster.key(was), self.ids.of(was));
            push(&mut gone, key, id, keeps..self.counts[was]);
        }
        for (position, (&was, &count)) in matching.old.iter().zip(&counts).enumerate() {
            let had = self.counts.get(was as usize).copied().unwrap_or(0);
            push(
                &mut come,
                roster.key(position),
                ids.of(position),
                had..count,
            );
        }
        gone.sort_unstable_by_key(|point| point.at);
        come.sort_unstable_by_key(|point| (point.at, ids.position(point.id)));
        let first = |a, b| ids.position(a) < ids.position(b);
        let circle = self.circle.changed(&gone, &come, first);
        Self {
            roster,
            circle,
            ids,
            counts,
        }
    }

    pub(super) fn node(&self, point: Point<P>) -> usize {
        self.ids.position(point.id) as usize
    }

    pub(super) fn node_at(&self, cursor: Cursor) -> usize {
        self.ids.position(self.circle.id(cursor)) as usize
    }

    pub(super) fn lookup(&self, at: P) -> Option<usize> {
        Some(self.node_at(self.circle.first_from(at)?))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (P, usize)> {
        self.circle
            .points()
            .map(|point| (point.at, self.node(point)))
    }
}
