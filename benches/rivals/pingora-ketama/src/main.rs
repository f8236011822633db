//! pingora's consistent hash, which is nginx's: put beside each of our kinds of tables.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;

use std::hint::black_box;

use measure::{Session, alone};
use pingora_ketama::{Bucket, Continuum};

const NODES: u32 = 10_000;

fn buckets(nodes: u32) -> Vec<Bucket> {
    let bucket = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        Bucket::new(([10, a, b, c], 8080).into(), 1)
    };
    (0..nodes).map(bucket).collect()
}

fn main() {
    let session = Session::of("pingora-ketama");
    let (fewer, more) = (buckets(NODES), buckets(NODES + 1));
    let mut table = Continuum::new(&fewer);
    let mut rng = fastrand::Rng::with_seed(11);
    for kind in ["ketama", "ring", "maglev", "rendezvous"] {
        let figure = format!("discovery_hash_{kind}_lookup_{NODES}");
        session.time(
            &figure,
            alone(|| {
                let key = rng.u64(..).to_le_bytes();
                black_box(table.node(&key));
            }),
        );
    }
    // It has no other way to take a change than to build anew: measured once, said of each kind.
    let mut grow = false;
    let kinds = ["ketama", "ring", "maglev", "rendezvous"];
    let figures = kinds.map(|kind| format!("discovery_hash_{kind}_change_{NODES}"));
    session.time_of_all(
        &figures,
        alone(|| {
            grow = !grow;
            table = Continuum::new(if grow { &more } else { &fewer });
        }),
    );
}
