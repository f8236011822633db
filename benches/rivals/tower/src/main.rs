//! tower's balancer: alone, shared behind a buffer, and while its members change.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;
#[path = "../../../src/tasks.rs"]
mod tasks;

use std::hint::black_box;
use std::time::Instant;

use measure::{Session, alone, timed};
use rival_tower::{balance, become_ready, call};
use tasks::{shared_by, two_workers};
use tower::buffer::Buffer;
use tower::{Service, ServiceExt};

fn main() {
    let session = Session::of("tower-balance");
    for services in [10, 1_000, 10_000, 100_000] {
        let (mut balance, _changes) = balance(services);
        (0..3 * services).for_each(|_| call(&mut balance));
        let figure = format!("discovery_pick_settle_{services}");
        session.time(&figure, alone(|| call(&mut balance)));
    }
    shared(Session::of("tower-buffer"));
    changing(session);
}

fn shared(session: Session) {
    let runtime = two_workers();
    for services in [1_000, 10_000] {
        let buffer = runtime.block_on(async { Buffer::new(balance(services).0, 1_024) });
        for tasks in [1, 2, 16] {
            let work = |count| {
                let mut buffer = buffer.clone();
                async move {
                    for _ in 0..count {
                        let ready = buffer.ready().await.expect("the balancer lives");
                        black_box(ready.call(()).await.expect("it answers"));
                    }
                }
            };
            let figure = format!("discovery_pick_settle_{services}_shared_by_{tasks}");
            session.time(&figure, shared_by(tasks, &runtime, work));
        }
    }
}

/// One of 10,000 comes and goes; it has neither weights nor health.
fn changing(session: Session) {
    let (mut balance, changes) = balance(10_000);
    become_ready(&mut balance);
    let mut is_there = true;
    session.time(
        "discovery_change_p2c_join_leave_10000",
        alone(|| {
            if is_there {
                changes.remove(5_000);
            } else {
                changes.insert(5_000);
            }
            is_there = !is_there;
            become_ready(&mut balance);
        }),
    );
    session.time(
        "discovery_ready_10000",
        timed(|| {
            let (mut balance, _changes) = rival_tower::balance(10_000);
            let begun = Instant::now();
            become_ready(&mut balance);
            begun.elapsed()
        }),
    );
}
