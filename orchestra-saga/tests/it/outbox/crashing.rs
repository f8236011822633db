//! The process dies between any two steps of a relay.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_saga::Result;
use orchestra_saga::outbox::memory::Outbox;
use orchestra_saga::outbox::{
    Backlog, Batch, Lane, Message, MessageId, Parked, Publisher, Relay, Settled,
};
use proptest::prelude::*;

use super::world::{Broker, Mood, filled, until, whole};
use orchestra_saga::ErrorKind;

/// Counts steps down; at none the process is dead, and nothing it does comes to an end.
#[derive(Debug, Clone)]
struct Life(Arc<AtomicU32>);

impl Life {
    fn of(steps: u32) -> Self {
        Self(Arc::new(AtomicU32::new(steps)))
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    async fn step(&self) {
        let left = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(1))
            });
        if left.is_ok_and(|left| left <= 1) {
            std::future::pending::<()>().await;
        }
    }
}

/// Steps before and after each call.
#[derive(Debug)]
struct Mortal<T>(T, Life);

#[async_trait]
impl<T: Publisher> Publisher for Mortal<T> {
    async fn publish(&self, message: &Message) -> Result<()> {
        self.1.step().await;
        let answer = self.0.publish(message).await;
        self.1.step().await;
        answer
    }

    fn deduplicates(&self) -> bool {
        self.0.deduplicates()
    }
}

#[async_trait]
impl<T: Backlog> Backlog for Mortal<T> {
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
        self.1.step().await;
        let answer = self.0.claim(batch).await;
        self.1.step().await;
        answer
    }

    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
        self.1.step().await;
        let answer = self.0.settle(settled).await;
        self.1.step().await;
        answer
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        self.0.parked(limit).await
    }

    async fn retry(&self, id: &MessageId) -> Result<bool> {
        self.0.retry(id).await
    }

    async fn discard(&self, id: &MessageId) -> Result<bool> {
        self.0.discard(id).await
    }
}

fn batch() -> Batch {
    let mut batch = Batch::new("relay");
    (batch.lanes, batch.messages) = (2, 2);
    // How long the keys of the dead are waited for.
    batch.term = Duration::from_secs(1);
    batch
}

/// A relay that lives for so many steps. Returns whether it died before all was sent.
async fn live(outbox: &Outbox, broker: &Broker, steps: u32) -> bool {
    let life = Life::of(steps);
    let relay = Relay::builder(
        Mortal(outbox.clone(), life.clone()),
        Mortal(broker.clone(), life.clone()),
    );
    let relay = relay
        .batch(batch())
        .timeout(Duration::from_secs(10_000))
        .start();
    until("dead or done", || life.is_over() || outbox.is_empty()).await;
    drop(relay);
    life.is_over()
}

async fn check(keys: u32, each: u32, lives: &[u32], broker: Broker) -> bool {
    let outbox = filled(keys, each);
    let mut died = false;
    for steps in lives {
        died = live(&outbox, &broker, *steps).await;
    }
    live(&outbox, &broker, u32::MAX).await;
    assert_eq!(broker.first(), whole(keys, each), "after {lives:?} steps");
    // Whoever drops repetitions has each message once.
    let once: HashSet<_> = broker.taken().into_iter().collect();
    assert_eq!(once.len(), usize::try_from(keys * each).expect("few"));
    died
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_any_two_steps_loses_and_reorders_nothing() {
    let mut steps = 1;
    while check(3, 3, &[steps], Broker::kind()).await {
        steps += 1;
    }
    assert!(steps > 25, "only {steps} steps were seen");
}

#[tokio::test(start_paused = true)]
async fn two_crashes_between_any_steps_lose_and_reorder_nothing() {
    for first in 1..24 {
        for second in 1..16 {
            check(2, 3, &[first, second], Broker::kind()).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_crashes_and_failures_lose_and_reorder_nothing(
        lives in prop::collection::vec(1..40_u32, 0..6),
        keys in 1..5_u32,
        each in 1..6_u32,
        failing in prop::collection::hash_set((0..5_u32, 0..6_u32, 0..2_u32), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let failing: HashSet<_> = failing
                .into_iter()
                .map(|(key, number, how)| (format!("k{key}-{number}"), how))
                .collect();
            let broker = Broker::new(move |message, attempt| {
                let fails = |how: u32| failing.contains(&(message.id().to_string(), how));
                match attempt {
                    1 if fails(0) => Mood::Fails(ErrorKind::Undelivered),
                    1..=3 if fails(1) => Mood::Fails(ErrorKind::Unavailable),
                    _ => Mood::Takes,
                }
            });
            check(keys, each, &lives, broker).await;
        });
    }
}
