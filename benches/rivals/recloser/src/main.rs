//! recloser around a call that succeeds.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;

use std::convert::Infallible;

use measure::{Session, alone};
use recloser::Recloser;

fn call(breaker: &Recloser) {
    let result = breaker.call(|| Ok::<(), Infallible>(()));
    assert!(result.is_ok(), "closed");
}

fn main() {
    let session = Session::of("recloser");
    let breaker = Recloser::custom().error_rate(0.5).closed_len(100).build();
    session.time("mesh_breaker_call", alone(|| call(&breaker)));
    session.time_of_two("mesh_breaker_call_2_threads", || || call(&breaker));
}
