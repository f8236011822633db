//! The memory of tower's balancer.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../../orchestra/testkit/src/alloc.rs"]
mod alloc;
#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;

use alloc::{CountingAllocator, allocations, retained};
use measure::Session;
use rival_tower::{balance, become_ready, call};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let session = Session::of("tower-balance");
    let services = 10_000;
    let ((mut balance, changes), bytes) = retained(|| {
        let (mut balance, changes) = balance(services);
        become_ready(&mut balance);
        (balance, changes)
    });
    let bytes = bytes - changes.bytes().cast_signed();
    let figure = format!("discovery_bytes_per_endpoint_{services}");
    session.value(&figure, bytes as f64 / f64::from(services), "B");

    let calls = 100_000;
    call(&mut balance);
    let count = allocations(|| (0..calls).for_each(|_| call(&mut balance)));
    let per_call = count as f64 / f64::from(calls);
    session.value("discovery_pick_allocations", per_call, "per_call");
}
