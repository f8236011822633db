//! What a relay does about messages, brokers and backlogs that fail. Time is virtual.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Backoff;
use orchestra_saga::outbox::memory::Outbox;
use orchestra_saga::outbox::relay::Notice;
use orchestra_saga::outbox::{
    Backlog, Batch, Lane, MessageId, Parked, Poison, Relay, Settled, relay,
};
use orchestra_saga::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::world::{Broker, Mood, filled, message, until, whole};

type Told = Arc<Mutex<Vec<String>>>;

/// Notes failures and what is parked or lost.
fn listening(builder: relay::Builder) -> (relay::Builder, Told) {
    let told = Told::default();
    let noted = Arc::clone(&told);
    let builder = builder.listener(move |notice: &Notice<'_>| {
        let line = match notice {
            Notice::Failed {
                message, failures, ..
            } => format!("failed {} {failures}", message.id()),
            Notice::Parked { message, .. } => format!("parked {}", message.id()),
            Notice::LeaseLost { key } => format!("lost {key}"),
            Notice::BacklogFailed { .. } => "backlog".to_owned(),
            _ => return,
        };
        noted.lock().push(line);
    });
    (builder, told)
}

fn tries(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("some")
}

fn without(key: &str, keys: u32, each: u32) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut whole = whole(keys, each);
    whole.remove(key);
    whole
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_does_not_hold_up_the_others() {
    let outbox = filled(6, 20);
    let broker = Broker::new(|message, _| match message.key() {
        "k0" => Mood::Fails(ErrorKind::Undelivered),
        _ => Mood::Takes,
    });
    let relay = Relay::builder(outbox, broker.clone())
        .tries(tries(1_000))
        .backoff(Backoff::fixed(Duration::from_secs(600)));
    let (begun, relay) = (Instant::now(), relay.start());
    until("all others", || broker.first() == without("k0", 6, 20)).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    relay.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_hangs_does_not_hold_up_the_others_and_is_parked() {
    let outbox = filled(6, 20);
    let broker = Broker::new(|message, _| match message.id().as_str() {
        "k0-3" => Mood::Hangs,
        _ => Mood::Slow(Duration::from_millis(200)),
    });
    let relay = Relay::builder(outbox.clone(), broker.clone()).tries(tries(1));
    let (begun, relay) = (Instant::now(), relay.start());
    until("all others", || {
        broker.first().values().flatten().count() >= 103
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    // Others passed while it was silent, which is evidence against it.
    until("parked", || outbox.len() == 1).await;
    let parked = outbox.parked(10).await.expect("listed");
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].message, message("k0", 3));
    assert!(
        parked[0].error.contains("not answered"),
        "{}",
        parked[0].error
    );
    relay.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_message_is_parked_after_its_tries_and_its_key_goes_on() {
    let outbox = filled(1, 4);
    let broker = Broker::new(|message, _| match message.id().as_str() {
        "k0-1" => Mood::Fails(ErrorKind::Undelivered),
        "k0-2" => Mood::Fails(ErrorKind::InvalidMessage),
        _ => Mood::Takes,
    });
    let builder = Relay::builder(outbox.clone(), broker.clone()).tries(tries(3));
    let (builder, told) = listening(builder);
    let relay = builder.start();
    until("parked", || outbox.len() == 2).await;
    assert_eq!(broker.taken(), ["k0-0", "k0-3"]);
    let lines = [
        "failed k0-1 1",
        "failed k0-1 2",
        "parked k0-1",
        "parked k0-2",
    ];
    assert_eq!(*told.lock(), lines);
    relay.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_held_waits_for_somebody() {
    let outbox = filled(2, 3);
    let broker = Broker::new(|message, attempt| match (message.id().as_str(), attempt) {
        ("k0-1", 1) => Mood::Fails(ErrorKind::InvalidMessage),
        _ => Mood::Takes,
    });
    let relay = Relay::builder(outbox.clone(), broker.clone())
        .poison(Poison::Hold)
        .start();
    until("the other key", || outbox.len() == 2).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(broker.first()["k0"], ["k0-0"]);
    let id = MessageId::new("k0-1").expect("valid");
    assert!(outbox.retry(&id).await.expect("decided"));
    until("the rest", || outbox.is_empty()).await;
    assert_eq!(broker.first(), whole(2, 3));
    relay.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_any_length_parks_nothing_and_is_not_hammered() {
    let outbox = filled(20, 5);
    let back = Instant::now() + Duration::from_secs(4 * 3_600);
    let broker = Broker::new(move |_, _| {
        if Instant::now() < back {
            Mood::Fails(ErrorKind::Unavailable)
        } else {
            Mood::Takes
        }
    });
    let builder = Relay::builder(outbox.clone(), broker.clone()).tries(tries(1));
    let (builder, told) = listening(builder);
    let relay = builder.start();
    tokio::time::sleep(Duration::from_secs(4 * 3_600)).await;
    // Full jitter below a minute: about two tries a minute.
    let attempts = broker.attempts();
    assert!((300..2_000).contains(&attempts), "{attempts} in four hours");
    until("all", || outbox.is_empty()).await;
    assert!(
        back.elapsed() < Duration::from_secs(130),
        "{:?} late",
        back.elapsed()
    );
    assert_eq!(broker.first(), whole(20, 5));
    assert!(!told.lock().iter().any(|line| line.starts_with("parked")));
    relay.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_woken_looks_at_once() {
    let outbox = Outbox::default();
    let broker = Broker::kind();
    let relay = Relay::builder(outbox.clone(), broker.clone()).poll(Duration::from_secs(3_600));
    let relay = relay.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    outbox.add(&[message("k", 1)]).expect("room");
    let begun = Instant::now();
    relay.wake();
    until("sent", || outbox.is_empty()).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    relay.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_what_is_on_the_way_and_settles_it() {
    let outbox = filled(4, 5);
    let broker = Broker::new(|_, _| Mood::Slow(Duration::from_secs(1)));
    let relay = Relay::builder(outbox.clone(), broker.clone()).start();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let begun = Instant::now();
    relay.shutdown().await;
    assert!(
        begun.elapsed() <= Duration::from_millis(501),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(broker.taken().len(), 8, "two of each key were begun");
    assert_eq!(outbox.len(), 12);
    // Nobody has the keys any more, so another relay goes on at once and repeats nothing.
    let relay = Relay::builder(outbox.clone(), broker.clone()).start();
    until("all", || outbox.is_empty()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(broker.taken().len(), 20);
    assert_eq!(broker.first(), whole(4, 5));
    relay.shutdown().await;
}

/// A backlog that is away now and then.
#[derive(Debug)]
struct Flaky {
    outbox: Outbox,
    calls: AtomicU32,
    most: AtomicU32,
    lent: AtomicU32,
}

impl Flaky {
    fn new(outbox: Outbox) -> Self {
        Self {
            outbox,
            calls: AtomicU32::new(0),
            most: AtomicU32::new(0),
            lent: AtomicU32::new(0),
        }
    }

    /// Three of four calls fail.
    fn fails(&self) -> Result<()> {
        match self.calls.fetch_add(1, Ordering::Relaxed) % 4 {
            3 => Ok(()),
            _ => Err(Error::new(ErrorKind::Store, "away")),
        }
    }
}

#[async_trait]
impl Backlog for Flaky {
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
        self.fails()?;
        let lanes = self.outbox.claim(batch).await?;
        let count = u32::try_from(lanes.len()).expect("few");
        let lent = self.lent.fetch_add(count, Ordering::Relaxed) + count;
        self.most.fetch_max(lent, Ordering::Relaxed);
        Ok(lanes)
    }

    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
        self.fails()?;
        let count = u32::try_from(settled.len()).expect("few");
        self.lent.fetch_sub(count, Ordering::Relaxed);
        self.outbox.settle(settled).await
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        self.outbox.parked(limit).await
    }

    async fn retry(&self, id: &MessageId) -> Result<bool> {
        self.outbox.retry(id).await
    }

    async fn discard(&self, id: &MessageId) -> Result<bool> {
        self.outbox.discard(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_fails_now_and_then_costs_no_repetition_and_no_more_memory() {
    let outbox = filled(30, 10);
    let broker = Broker::new(|_, _| Mood::Slow(Duration::from_millis(3)));
    let flaky = Arc::new(Flaky::new(outbox.clone()));
    let mut batch = Batch::new("relay");
    (batch.lanes, batch.messages) = (8, 4);
    let builder = Relay::builder(Arc::clone(&flaky), broker.clone()).batch(batch);
    let (builder, told) = listening(builder);
    let relay = builder.start();
    until("all", || outbox.is_empty()).await;
    assert_eq!(broker.taken().len(), 300);
    assert_eq!(broker.first(), whole(30, 10));
    assert!(told.lock().iter().any(|line| line == "backlog"));
    assert!(flaky.most.load(Ordering::Relaxed) <= 8);
    assert!(broker.most_flying() <= 8);
    relay.shutdown().await;
}
