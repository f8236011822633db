//! tower's balancer over services that answer at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover};

#[derive(Clone)]
pub struct Answer(u32);

impl Service<()> for Answer {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

/// What the balancer is told of its members, from outside.
#[derive(Clone, Default)]
pub struct Changes(Arc<Mutex<VecDeque<Change<u32, Answer>>>>);

impl Changes {
    pub fn insert(&self, number: u32) {
        self.push(Change::Insert(number, Answer(number)));
    }

    pub fn remove(&self, number: u32) {
        self.push(Change::Remove(number));
    }

    /// What the queue itself holds, which is no part of the balancer.
    pub fn bytes(&self) -> usize {
        let capacity = self.0.lock().expect("no panic").capacity();
        capacity * size_of::<Change<u32, Answer>>()
    }

    fn push(&self, change: Change<u32, Answer>) {
        self.0.lock().expect("no panic").push_back(change);
    }
}

impl futures_core::Stream for Changes {
    type Item = Result<Change<u32, Answer>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.lock().expect("no panic").pop_front() {
            Some(change) => Poll::Ready(Some(Ok(change))),
            None => Poll::Pending,
        }
    }
}

pub type Balancer = Balance<PeakEwmaDiscover<Changes>, ()>;

/// A balancer over so many services, and how to change them.
pub fn balance(services: u32) -> (Balancer, Changes) {
    let changes = Changes::default();
    (0..services).for_each(|number| changes.insert(number));
    let completion = CompleteOnResponse::default();
    let (rtt, decay) = (Duration::from_millis(1), Duration::from_secs(10));
    let discover = PeakEwmaDiscover::new::<()>(changes.clone(), rtt, decay, completion);
    (Balance::new(discover), changes)
}

#[inline]
pub fn call(balance: &mut Balancer) {
    become_ready(balance);
    let context = &mut Context::from_waker(Waker::noop());
    let answer = pin!(balance.call(())).poll(context);
    assert!(
        matches!(black_box(answer), Poll::Ready(Ok(_))),
        "it answers at once"
    );
}

#[inline]
pub fn become_ready(balance: &mut Balancer) {
    let context = &mut Context::from_waker(Waker::noop());
    let ready = balance.poll_ready(context);
    assert!(matches!(ready, Poll::Ready(Ok(()))), "all are ready");
}
