//! Consistent hashing: looking up a key, and replacing a table for one endpoint that comes or goes.

use std::hint::black_box;

use orchestra_discovery::hash::{Ketama, Maglev, Node, Rendezvous, Ring, of};
use orchestra_discovery::hash::{ketama, maglev, rendezvous, ring};

use super::address;
use crate::measure::{Session, alone};

const NODES: u32 = 10_000;
/// As many points as the rival has.
const POINTS: u64 = 160 * NODES as u64;

/// Each kind of table.
pub fn figures(session: &Session) {
    let keys: Vec<String> = (0..=NODES).map(address).collect();
    let nodes: Vec<Node<'_>> = keys.iter().map(|key| Node::new(key, 1)).collect();
    let (fewer, more) = (&nodes[..NODES as usize], &nodes[..]);

    let table = Ketama::build(fewer).expect("nodes");
    let lookup = |table: &Ketama, key: &[u8]| table.lookup(ketama::of(key));
    kind(session, "ketama", table, lookup, |table, grow| {
        table
            .update(if grow { more } else { fewer })
            .expect("nodes")
    });

    let sizes = ring::Config::default().min_size(POINTS);
    let table = Ring::build(sizes, fewer).expect("nodes");
    let lookup = |table: &Ring, key: &[u8]| table.lookup(of(key));
    kind(session, "ring", table, lookup, |table, grow| {
        table
            .update(if grow { more } else { fewer })
            .expect("nodes")
    });

    let table = Maglev::build(maglev::Config::default(), fewer).expect("nodes");
    let lookup = |table: &Maglev, key: &[u8]| table.lookup(of(key));
    kind(session, "maglev", table, lookup, |table, grow| {
        table
            .update(if grow { more } else { fewer })
            .expect("nodes")
    });

    let table = Rendezvous::build(rendezvous::Config::default(), fewer).expect("nodes");
    let lookup = |table: &Rendezvous, key: &[u8]| table.lookup(of(key));
    kind(session, "rendezvous", table, lookup, |table, grow| {
        table
            .update(if grow { more } else { fewer })
            .expect("nodes")
    });
}

/// The keys are random, as those of a busy service are to its caches; hashing them is part of a lookup.
fn kind<T>(
    session: &Session,
    name: &str,
    mut table: T,
    lookup: impl Fn(&T, &[u8]) -> Option<usize>,
    update: impl Fn(&T, bool) -> T,
) {
    let mut rng = fastrand::Rng::with_seed(11);
    let figure = format!("discovery_hash_{name}_lookup_{NODES}");
    session.time(
        &figure,
        alone(|| {
            let key = rng.u64(..).to_le_bytes();
            black_box(lookup(&table, &key));
        }),
    );
    let mut grow = false;
    let figure = format!("discovery_hash_{name}_change_{NODES}");
    session.time(
        &figure,
        alone(|| {
            grow = !grow;
            table = update(&table, grow);
        }),
    );
}
