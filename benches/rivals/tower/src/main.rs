//! tower's balancer over services that answer at once: alone, and shared behind a buffer.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;
#[path = "../../../src/tasks.rs"]
mod tasks;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tasks::{shared_by, two_workers};
use measure::{Session, alone};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover};
use tower::{Service, ServiceExt};

#[derive(Clone)]
struct Answer(u16);

impl Service<()> for Answer {
    type Response = u16;
    type Error = Infallible;
    type Future = Ready<Result<u16, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

type Discover = PeakEwmaDiscover<ServiceList<Vec<Answer>>>;

fn balance(services: u16) -> Balance<Discover, ()> {
    let services = ServiceList::new::<()>((0..services).map(Answer).collect::<Vec<_>>());
    let completion = CompleteOnResponse::default();
    let (rtt, decay) = (Duration::from_millis(1), Duration::from_secs(10));
    Balance::new(PeakEwmaDiscover::new::<()>(
        services, rtt, decay, completion,
    ))
}

fn call(balance: &mut Balance<Discover, ()>) {
    let context = &mut Context::from_waker(Waker::noop());
    let ready = balance.poll_ready(context);
    assert!(matches!(ready, Poll::Ready(Ok(()))), "all are ready");
    let answer = pin!(balance.call(())).poll(context);
    assert!(
        matches!(black_box(answer), Poll::Ready(Ok(_))),
        "it answers at once"
    );
}

fn main() {
    let runtime = two_workers();
    let session = Session::of("tower-balance");
    for services in [10, 1_000] {
        let mut balance = balance(services);
        let figure = format!("discovery_pick_settle_{services}");
        session.time(&figure, alone(|| call(&mut balance)));
    }
    let session = Session::of("tower-buffer");
    let buffer = runtime.block_on(async { Buffer::new(balance(1_000), 1_024) });
    for tasks in [1, 16] {
        let work = |count| {
            let mut buffer = buffer.clone();
            async move {
                for _ in 0..count {
                    let ready = buffer.ready().await.expect("the balancer lives");
                    black_box(ready.call(()).await.expect("it answers"));
                }
            }
        };
        let figure = format!("discovery_pick_settle_1000_shared_by_{tasks}");
        session.time(&figure, shared_by(tasks, &runtime, work));
    }
}
