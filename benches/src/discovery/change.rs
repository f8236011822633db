//! One endpoint of 10,000 changes: how long until the next pick goes by it.

use std::hint::black_box;
use std::sync::Arc;

use orchestra_core::Monotonic;
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Change, Health, Instance, PickContext, Removal, RemovalReason, Resolver, Revision, Weighted,
};

use super::{equal, instance, resolver_of, service, weighted, weights};
use crate::measure::{Session, alone, timed};

const MEMBERS: u32 = 10_000;
/// The one that changes, in the middle of the order.
const CHANGING: u32 = MEMBERS / 2;

/// For equal weights, for unequal ones, and all at once.
pub fn figures(session: &Session) {
    let members = equal(MEMBERS);
    let p2c = resolver_of(Config::default(), &members);
    kinds(session, "p2c", &p2c, 1);
    let config = Config::default().balancer(Arc::new(Weighted::default()));
    kinds(
        session,
        "weighted",
        &resolver_of(config, &weighted(&weights(MEMBERS))),
        7,
    );

    // All at once, into a resolver that has none.
    let figure = format!("discovery_ready_{MEMBERS}");
    session.time(
        &figure,
        timed(|| {
            let begun = std::time::Instant::now();
            let resolver = resolver_of(Config::default(), &members);
            black_box(resolver.choose(&PickContext::new(Monotonic::ZERO, 1))).expect("one");
            begun.elapsed()
        }),
    );
}

/// It comes and goes, changes its weight, fails and passes its checks; a pick follows each change.
fn kinds(session: &Session, balancer: &str, resolver: &Resolver, weight: u32) {
    let changing = instance(CHANGING, weight);
    let mut revision = 1;
    let mut advance = |change: Change| {
        revision += 1;
        resolver.advance(Revision::new(revision), &[change]);
        black_box(resolver.choose(&PickContext::new(Monotonic::ZERO, revision))).expect("one");
    };
    let present = || resolver.in_flight(&changing.id).is_some();

    let mut is_there = true;
    let join_leave = || {
        advance(if is_there {
            gone(&changing)
        } else {
            Change::Upserted(Arc::clone(&changing))
        });
        is_there = !is_there;
        assert_eq!(present(), is_there);
    };
    let figure = format!("discovery_change_{balancer}_join_leave_{MEMBERS}");
    session.time(&figure, alone(join_leave));
    advance(Change::Upserted(Arc::clone(&changing)));

    let weights = [instance(CHANGING, weight + 1), Arc::clone(&changing)];
    let mut which = 0;
    let reweigh = || {
        advance(Change::Upserted(Arc::clone(&weights[which % 2])));
        which += 1;
    };
    let figure = format!("discovery_change_{balancer}_weight_{MEMBERS}");
    session.time(&figure, alone(reweigh));

    let mut health = Health::Healthy;
    let flip = || {
        health = match health {
            Health::Healthy => Health::Unhealthy,
            _ => Health::Healthy,
        };
        assert!(resolver.set_health(&changing.id, changing.incarnation, health));
        black_box(resolver.choose(&PickContext::new(Monotonic::ZERO, 5))).expect("one");
    };
    let figure = format!("discovery_change_{balancer}_health_{MEMBERS}");
    session.time(&figure, alone(flip));
}

fn gone(instance: &Instance) -> Change {
    Change::Removed(Removal {
        service: service(),
        id: instance.id.clone(),
        incarnation: instance.incarnation,
        reason: RemovalReason::Deregistered,
    })
}
