//! The nodes of a table in the order in which a hash meets them.

use super::circle::{Cursor, Place, Point};
use super::points::Points;
use super::roster::NONE;

/// Every node of a table once, starting with the answer to the lookup: where a call goes when the first is closed.
///
/// The first node costs a lookup and no memory; the second allocates a bit per node.
///
/// ```
/// use orchestra_discovery::hash::{Node, Ring, of, ring};
///
/// let nodes = [Node::new("a", 1), Node::new("b", 1), Node::new("c", 0)];
/// let ring = Ring::build(ring::Config::default(), &nodes)?;
/// let order: Vec<usize> = ring.walk(of(b"key")).collect();
/// assert_eq!(ring.lookup(of(b"key")), Some(order[0]));
/// assert_eq!(order.len(), 2);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug)]
pub struct Walk<'a> {
    steps: Steps<'a>,
    first: Option<usize>,
    seen: Vec<u64>,
    nodes: usize,
}

#[derive(Debug)]
enum Steps<'a> {
    Ring(Around<'a, u64>),
    Ketama(Around<'a, u32>),
    Slots(Slots<'a>),
}

impl<'a> Walk<'a> {
    fn new(steps: Steps<'a>, nodes: usize) -> Self {
        Self {
            steps,
            first: None,
            seen: Vec::new(),
            nodes,
        }
    }

    pub(super) fn ring(points: &'a Points<u64>, from: u64) -> Self {
        let around = Around::new(points, from, false);
        Self::new(Steps::Ring(around), points.roster.len())
    }

    /// Of the points at one place, only those of the first key can be met.
    pub(super) fn ketama(points: &'a Points<u32>, from: u32) -> Self {
        let around = Around::new(points, from, true);
        Self::new(Steps::Ketama(around), points.roster.len())
    }

    pub(super) fn slots(slots: &'a [u32], from: usize, nodes: usize) -> Self {
        let (before, after) = slots.split_at(from.min(slots.len()));
        Self::new(Steps::Slots(Slots { after, before }), nodes)
    }

    /// The first node that is `open`, looked for without memory of those met before; it gives up after so many steps.
    pub(crate) fn find_open(mut self, steps: usize, open: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..steps {
            let node = self.step()?;
            if open(node) {
                return Some(node);
            }
        }
        None
    }

    fn step(&mut self) -> Option<usize> {
        match &mut self.steps {
            Steps::Ring(around) => around.next(),
            Steps::Ketama(around) => around.next(),
            Steps::Slots(slots) => slots.next(),
        }
    }

    /// Whether this node was not given yet.
    fn is_new(&mut self, node: usize) -> bool {
        if self.seen.is_empty() {
            let Some(first) = self.first else {
                self.first = Some(node);
                return true;
            };
            self.seen = vec![0; self.nodes.div_ceil(64)];
            self.mark(first);
        }
        self.mark(node)
    }

    fn mark(&mut self, node: usize) -> bool {
        let bit = 1 << (node % 64);
        let Some(word) = self.seen.get_mut(node / 64) else {
            return false;
        };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            let node = self.step()?;
            if self.is_new(node) {
                return Some(node);
            }
        }
    }
}

/// Once around a circle.
#[derive(Debug)]
struct Around<'a, P> {
    points: &'a Points<P>,
    next: Option<Cursor>,
    left: usize,
    /// Whether a point hides those of other keys at its place.
    hides: bool,
    hiding: Option<Point<P>>,
}

impl<'a, P: Place> Around<'a, P> {
    fn new(points: &'a Points<P>, from: P, hides: bool) -> Self {
        let next = points.circle.first_from(from);
        let left = points.circle.len();
        Self {
            points,
            next,
            left,
            hides,
            hiding: None,
        }
    }

    fn is_hidden(&mut self, point: Point<P>) -> bool {
        let key = |point| self.points.roster.key(self.points.node(point));
        if let Some(hiding) = self.hiding.filter(|hiding| hiding.at == point.at) {
            return self.hides && key(hiding) != key(point);
        }
        self.hiding = Some(point);
        false
    }
}

impl<P: Place> Iterator for Around<'_, P> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            self.left = self.left.checked_sub(1)?;
            let cursor = self.next?;
            let point = self.points.circle.point(cursor);
            self.next = self.points.circle.after(cursor);
            if !self.is_hidden(point) {
                return Some(self.points.node(point));
            }
        }
    }
}

/// Once around a table of slots.
#[derive(Debug)]
struct Slots<'a> {
    after: &'a [u32],
    before: &'a [u32],
}

impl Iterator for Slots<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            let slots = if self.after.is_empty() {
                &mut self.before
            } else {
                &mut self.after
            };
            let (&node, rest) = slots.split_first()?;
            *slots = rest;
            if node != NONE {
                return Some(node as usize);
            }
        }
    }
}
