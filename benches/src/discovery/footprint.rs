//! Memory: of picks, and of members.

use std::time::Duration;

use orchestra_discovery::resolver::Config;
use orchestra_testkit::{allocations, retained};

use super::{Caller, equal, resolver_of};
use crate::measure::Session;

const MEMBERS: u32 = 10_000;

/// What needs an allocator that counts.
pub fn figures(session: &Session) {
    let (members, held_by_source) = retained(|| equal(MEMBERS));
    // After calls to all of them, and a look for outliers among them.
    let (resolver, held) = retained(|| {
        let resolver = resolver_of(Config::default(), &members);
        let mut caller = Caller::new(&resolver);
        caller.calls(30 * MEMBERS);
        resolver.tick(caller.now + Duration::from_secs(60));
        resolver
    });
    let per_member = |bytes: isize| bytes as f64 / f64::from(MEMBERS);
    let figure = format!("discovery_bytes_per_endpoint_{MEMBERS}");
    session.value(&figure, per_member(held), "B");
    let figure = format!("discovery_bytes_per_endpoint_{MEMBERS}_with_instances");
    session.value(&figure, per_member(held + held_by_source), "B");

    let mut caller = Caller::new(&resolver);
    let calls = 100_000;
    // The first call of a thread may make what it keeps.
    caller.call();
    let count = allocations(|| (0..calls).for_each(|_| caller.call()));
    let per_call = count as f64 / f64::from(calls);
    session.value("discovery_pick_allocations", per_call, "per_call");
}
