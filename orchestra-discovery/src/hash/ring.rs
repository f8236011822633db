//! The ring hash of Envoy and gRPC.
//!
//! A node has points at `XXH64(key + "_" + i)` for `i = 0, 1, …`; a request goes to the first point at its hash or
//! after it, going around. With the least normalised weight `m`, `scale = min(ceil(m * min_size) / m, max_size)`, and
//! going through the nodes in order, a node gets points while there are fewer than `scale` times the weight so far,
//! all in double precision as Envoy does it (`ring_hash_lb.cc`, gRFC A42): the same nodes in the same order give the
//! same ring.
//!
//! Envoy and gRPC build a ring from nothing for every change. Here the points that stay are kept, and only those that
//! go or come are hashed. Unlike theirs, a sum of the weights beyond 32 bits is no error.

use std::ops::Range;

use super::circle::Point;
use super::points::Points;
use super::roster::Roster;
use super::{Node, Walk, of};
use crate::error::{Error, ErrorKind, Result};

/// The greatest size that can be configured, as in Envoy.
const LIMIT: u64 = 8 << 20;

/// In which order nodes get their points; it matters only if weights differ or the ring is too small for all.
///
/// ```
/// use orchestra_discovery::hash::ring::{Config, Order};
///
/// let like_grpc_go = Config::grpc().order(Order::ByKey);
/// assert_ne!(like_grpc_go, Config::grpc());
/// assert_eq!(Order::default(), Order::Given);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// As they are given, like Envoy and the C core of gRPC.
    #[default]
    Given,
    /// By key, like gRPC for Go.
    ByKey,
}

/// How large the ring gets.
///
/// ```
/// use orchestra_discovery::hash::ring::{Config, Order};
///
/// let like_envoy = Config::default();
/// let like_grpc_go = Config::grpc().order(Order::ByKey);
/// assert_ne!(like_envoy, like_grpc_go);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    min_size: u64,
    max_size: u64,
    order: Order,
}

impl Default for Config {
    /// Envoy's: at least 1,024 and at most 8,388,608 points.
    fn default() -> Self {
        Self {
            min_size: 1024,
            max_size: LIMIT,
            order: Order::Given,
        }
    }
}

impl Config {
    /// gRPC's: at least 1,024 and at most 4,096 points.
    pub fn grpc() -> Self {
        Self::default().capped(4096)
    }

    /// About how many points there are at least; one per node of the least weight in any case.
    #[must_use]
    pub fn min_size(mut self, points: u64) -> Self {
        self.min_size = points;
        self
    }

    /// How many points there are at most; nodes of small weight have none if it is too low.
    #[must_use]
    pub fn max_size(mut self, points: u64) -> Self {
        self.max_size = points;
        self
    }

    /// Lowers both sizes to this cap, as gRPC does with those of a control plane.
    #[must_use]
    pub fn capped(mut self, points: u64) -> Self {
        self.min_size = self.min_size.min(points);
        self.max_size = self.max_size.min(points);
        self
    }

    /// In which order nodes get their points.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    fn check(&self) -> Result<()> {
        let (min, max) = (self.min_size, self.max_size);
        let fault = if min > max {
            format!("ring hash: the minimum size {min} is greater than the maximum size {max}")
        } else if min == 0 || max > LIMIT {
            format!("ring hash: the sizes {min} to {max} are not within 1 and {LIMIT}")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, fault))
    }
}

/// Envoy's and gRPC's ring.
///
/// A lookup is one short search, about as long for a thousand points as for a million. Memory is 20 bytes a point.
///
/// ```
/// use orchestra_discovery::hash::{Node, Ring, ring};
///
/// let nodes = [Node::new("10.0.0.1:80", 1), Node::new("10.0.0.2:80", 2)];
/// let ring = Ring::build(ring::Config::default(), &nodes)?;
/// let next = ring.update(&nodes[1..])?;
/// assert_eq!(next.lookup(4711), Some(0));
/// assert!(Ring::build(ring::Config::default().max_size(10), &nodes).is_err());
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ring {
    config: Config,
    /// All positions by key, if that is the order.
    by_key: Vec<u32>,
    points: Points<u64>,
}

impl Ring {
    /// The ring of these nodes; an error if the sizes make no sense.
    pub fn build(config: Config, nodes: &[Node<'_>]) -> Result<Self> {
        config.check()?;
        let roster = Roster::new(nodes)?;
        let by_key = match config.order {
            Order::Given => Vec::new(),
            Order::ByKey => roster.by_key(),
        };
        let counts = counts(&config, &roster, &by_key);
        let points = Points::new(roster, counts, push_points);
        Ok(Self {
            config,
            by_key,
            points,
        })
    }

    /// The ring of these nodes with the same configuration.
    ///
    /// It costs a pass over the keys, the hashes of the points that come and go, and a copy of the arcs around them.
    pub fn update(&self, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let matching = self.points.roster.matching(&roster);
        let by_key = match self.config.order {
            Order::Given => Vec::new(),
            Order::ByKey => roster.by_key_after(&self.by_key, &matching),
        };
        let counts = counts(&self.config, &roster, &by_key);
        let points = self.points.after(roster, &matching, counts, push_points);
        Ok(Self {
            config: self.config,
            by_key,
            points,
        })
    }

    /// The node whose point is the first at this hash or after it.
    pub fn lookup(&self, hash: u64) -> Option<usize> {
        self.points.lookup(hash)
    }

    /// The node for the `attempt`-th retry as Envoy chooses it: that many points further, maybe the same again.
    pub fn lookup_attempt(&self, hash: u64, attempt: u32) -> Option<usize> {
        let first = self.points.circle.first_from(hash)?;
        let cursor = self.points.circle.skip(first, u64::from(attempt))?;
        Some(self.points.node_at(cursor))
    }

    /// The nodes in the order of their points from this hash on, each once.
    pub fn walk(&self, hash: u64) -> Walk<'_> {
        Walk::ring(&self.points, hash)
    }

    /// How many points there are.
    pub fn size(&self) -> usize {
        self.points.circle.len()
    }

    /// The points in order, each with its node.
    pub fn points(&self) -> impl Iterator<Item = (u64, usize)> {
        self.points.iter()
    }
}

/// How many points each node has, in Envoy's arithmetic.
fn counts(config: &Config, roster: &Roster, by_key: &[u32]) -> Vec<u32> {
    let mut counts = vec![0; roster.len()];
    let total = roster.total() as f64;
    let share = |weight: u32| f64::from(weight) / total;
    let weighty = roster.weights().iter().filter(|weight| **weight > 0);
    let Some(&least) = weighty.min() else {
        return counts;
    };
    let (least, max_size) = (share(least), config.max_size as f64);
    let scale = ((least * config.min_size as f64).ceil() / least).min(max_size);
    let (mut current, mut target) = (0.0_f64, 0.0_f64);
    let mut give = |position: usize| {
        target += scale * share(roster.weight(position));
        // The end of the loop "while current < target, one more".
        let reached = target.ceil().max(current);
        counts[position] = whole(reached - current);
        current = reached;
    };
    match config.order {
        Order::Given => (0..roster.len()).for_each(&mut give),
        Order::ByKey => by_key.iter().for_each(|&position| give(position as usize)),
    }
    counts
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number of points, which are no more than the limit"
)]
const fn whole(points: f64) -> u32 {
    points as u32
}

/// Appends the points of this key with these numbers.
fn push_points(points: &mut Vec<Point<u64>>, key: &str, id: u32, numbers: Range<u32>) {
    if numbers.is_empty() {
        return;
    }
    let mut text = Vec::with_capacity(key.len() + 11);
    text.extend_from_slice(key.as_bytes());
    text.push(b'_');
    for number in numbers {
        text.truncate(key.len() + 1);
        push_decimal(&mut text, number);
        points.push(Point { at: of(&text), id });
    }
}

fn push_decimal(text: &mut Vec<u8>, number: u32) {
    if number >= 10 {
        push_decimal(text, number / 10);
    }
    text.push(b"0123456789"[(number % 10) as usize]);
}
