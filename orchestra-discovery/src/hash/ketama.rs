//! The consistent hash of nginx (`hash … consistent`), after ketama and `Cache::Memcached::Fast`.
//!
//! A server of weight `w` has `160 w` points: the CRC-32 of its host, a zero byte, its port, and the point before it
//! as four bytes, the lowest first, beginning with zero. A request goes to the first point at the CRC-32 of its key
//! or after it, going around. Of several points at one place, which 32 bits make common, that of the server named
//! first counts (`ngx_http_upstream_hash_module.c`).
//!
//! Weights that would need more than 8,388,608 points, where nginx takes as much memory as they ask for, are scaled
//! down in proportion; each server keeps one point at least.

use std::ops::Range;

use super::circle::Point;
use super::points::Points;
use super::roster::Roster;
use super::{Node, Walk};
use crate::error::Result;

/// The points of a server of weight one.
const POINTS: u64 = 160;
/// How many points there may be, besides one per server.
const LIMIT: u64 = 8 << 20;

/// The hash of a request, as nginx takes it: CRC-32.
///
/// ```
/// use orchestra_discovery::hash::ketama::of;
///
/// assert_eq!(of(b"123456789"), 0xcbf4_3926);
/// ```
pub fn of(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

/// nginx's consistent hash.
///
/// The keys of the nodes are the servers as the configuration of nginx names them, such as `10.0.0.1:8080`. A lookup
/// is one short search. Memory is 12 bytes a point.
///
/// ```
/// use orchestra_discovery::hash::{Ketama, Node, ketama};
///
/// let nodes = [Node::new("10.0.0.1:80", 1), Node::new("10.0.0.2:80", 1)];
/// let table = Ketama::build(&nodes)?;
/// let chosen = table.lookup(ketama::of(b"/index.html"));
/// assert_eq!(chosen, Some(0));
/// assert_eq!(table.update(&nodes[..1])?.lookup(ketama::of(b"/index.html")), chosen);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ketama {
    points: Points<u32>,
}

impl Ketama {
    /// The table of these nodes.
    pub fn build(nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let counts = counts(&roster);
        let points = Points::new(roster, counts, push_points);
        Ok(Self { points })
    }

    /// The table of these nodes, at the cost of the points that come and go and a copy of the arcs around them.
    pub fn update(&self, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let matching = self.points.roster.matching(&roster);
        let counts = counts(&roster);
        let points = self.points.after(roster, &matching, counts, push_points);
        Ok(Self { points })
    }

    /// The node whose point is the first at this hash, which is that of [`of`], or after it.
    pub fn lookup(&self, hash: u32) -> Option<usize> {
        self.points.lookup(hash)
    }

    /// The nodes in the order of their points from this hash on, each once, as nginx tries them.
    ///
    /// A point at the place of another key's cannot be met; of several nodes with one key, each follows the other.
    pub fn walk(&self, hash: u32) -> Walk<'_> {
        Walk::ketama(&self.points, hash)
    }

    /// How many points there are, those behind another one included.
    pub fn size(&self) -> usize {
        self.points.circle.len()
    }

    /// The points in order, each with its node, those behind another one included.
    pub fn points(&self) -> impl Iterator<Item = (u32, usize)> {
        self.points.iter()
    }
}

fn counts(roster: &Roster) -> Vec<u32> {
    let wanted = u128::from(roster.total()) * u128::from(POINTS);
    let points = |weight: u32| {
        let points = u128::from(weight) * u128::from(POINTS);
        let scaled = if wanted > u128::from(LIMIT) {
            (points * u128::from(LIMIT) / wanted).max(u128::from(weight.min(1)))
        } else {
            points
        };
        // No more than the limit, as no weight is more than all of them.
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    roster.weights().iter().copied().map(points).collect()
}

/// The host and the port of a server, split as nginx splits them.
fn host_and_port(server: &str) -> (&str, &str) {
    let prefix = server
        .get(..5)
        .filter(|prefix| prefix.eq_ignore_ascii_case("unix:"));
    if let Some(prefix) = prefix {
        return (&server[prefix.len()..], "");
    }
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (server, ""),
    }
}

/// Appends the points of this server with these numbers; each is the seed of the next.
fn push_points(points: &mut Vec<Point<u32>>, server: &str, id: u32, numbers: Range<u32>) {
    if numbers.is_empty() {
        return;
    }
    let (host, port) = host_and_port(server);
    let mut base = crc32fast::Hasher::new();
    base.update(host.as_bytes());
    base.update(&[0]);
    base.update(port.as_bytes());
    let mut previous = 0_u32;
    for number in 0..numbers.end {
        let mut point = base.clone();
        point.update(&previous.to_le_bytes());
        previous = point.finalize();
        if number >= numbers.start {
            points.push(Point { at: previous, id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(weights: &[u32]) -> Vec<u32> {
        let nodes = weights.iter().map(|&weight| Node::new("a:1", weight));
        counts(&Roster::new(&nodes.collect::<Vec<_>>()).unwrap())
    }

    #[test]
    fn huge_weights_are_scaled_down() {
        assert_eq!(counts_of(&[1, 0, 52_427]), [160, 0, 8_388_320]);
        assert_eq!(counts_of(&[u32::MAX, 1, 0]), [8_388_607, 1, 0]);
        assert_eq!(counts_of(&[u32::MAX; 4]), [2_097_152; 4]);
    }
}
