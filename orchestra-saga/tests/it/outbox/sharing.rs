//! Several relays on one backlog. Time is virtual.

use std::time::Duration;

use orchestra_saga::outbox::{Batch, Relay};
use proptest::prelude::*;

use super::world::{Broker, Mood, filled, until, whole};

fn batch(name: &str) -> Batch {
    let mut batch = Batch::new(name);
    (batch.lanes, batch.messages) = (3, 3);
    batch.term = Duration::from_secs(3);
    batch
}

#[tokio::test(start_paused = true)]
async fn relays_share_the_work_and_send_nothing_twice() {
    let outbox = filled(12, 10);
    let broker = Broker::new(|_, _| Mood::Slow(Duration::from_millis(50)));
    let mut relays = Vec::new();
    for name in ["one", "two", "three"] {
        let relay = Relay::builder(outbox.clone(), broker.clone()).batch(batch(name));
        relays.push(relay.start());
    }
    until("all", || outbox.is_empty()).await;
    assert_eq!(broker.taken().len(), 120);
    assert_eq!(broker.first(), whole(12, 10));
    assert_eq!(broker.most_flying(), 9, "all three took part");
    for relay in relays {
        relay.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_relay_stops_before_another_can_have_its_key() {
    let outbox = filled(3, 12);
    // The three messages of a loan take longer than its term.
    let broker = Broker::new(|_, _| Mood::Slow(Duration::from_millis(1_100)));
    let relays: Vec<_> = ["one", "two"]
        .map(|name| {
            Relay::builder(outbox.clone(), broker.clone())
                .batch(batch(name))
                .start()
        })
        .into();
    until("all", || outbox.is_empty()).await;
    assert_eq!(broker.first(), whole(3, 12));
    for relay in relays {
        relay.shutdown().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn relays_that_come_and_go_lose_and_reorder_nothing(
        ages in prop::collection::vec((1..3_000_u64, any::<bool>()), 1..12),
        slow in 1..400_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let outbox = filled(8, 12);
            let broker = Broker::new(move |_, _| Mood::Slow(Duration::from_millis(slow)));
            let start = || {
                let relay = Relay::builder(outbox.clone(), broker.clone());
                relay.batch(batch("relay")).start()
            };
            let steady = start();
            for (age, dies) in ages {
                let relay = start();
                tokio::time::sleep(Duration::from_millis(age)).await;
                if dies {
                    drop(relay);
                } else {
                    relay.shutdown().await;
                }
            }
            until("all", || outbox.is_empty()).await;
            assert_eq!(broker.first(), whole(8, 12));
            steady.shutdown().await;
        });
    }
}
