//! Room that a purge gives back when there is no other.

use super::*;
use crate::Status;
use crate::error::ErrorKind;

/// Sagas that ended, and a disk that has nothing for the next segment.
async fn full(sim: &Sim) -> (JournalStore, Claim, u64) {
    let store = open(sim).expect("opened");
    let claim = store.claim(HOME, "a").await.expect("claimed");
    let mut number = 0;
    while number < 3000 {
        number += 1;
        let append = start(number).status(Status::Completed);
        store.append(claim, &append).await.expect("appended");
    }
    tidy(&store).expect("a checkpoint");
    while store.core().state().spare.is_none() {
        tokio::task::yield_now().await;
    }
    // Not even a checkpoint of so many sagas.
    sim.world().room = Some(1000);
    loop {
        number += 1;
        let append = start(number).status(Status::Completed);
        match store.append(claim, &append).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full);
                return (store, claim, number);
            }
        }
    }
}

async fn finds_room(store: &JournalStore, claim: Claim, number: u64) {
    for _ in 0..1000 {
        match store.append(claim, &start(number)).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("what was purged gave no room back");
}

#[tokio::test]
async fn a_purge_on_a_full_disk_gives_room_back() {
    let sim = Sim::default();
    let (store, claim, number) = full(&sim).await;
    let purged = store.purge(claim, at(100_000), usize::MAX).await;
    let purged = purged.expect("as many as the reserve takes");
    assert!(purged > 0);
    finds_room(&store, claim, number).await;
    halt(&store);
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "it keeps a thread from tidying")]
async fn room_that_was_not_given_back_before_a_crash_is_given_back_after_it() {
    let sim = Sim::default();
    let (store, claim, number) = full(&sim).await;
    // The process dies as soon as the purge is durable.
    let tidying = store.core().tidying.lock();
    let purged = store.purge(claim, at(100_000), 500).await;
    assert_eq!(purged.expect("purged"), 500);
    let copy = sim.copy();
    copy.world().room = Some(1000);
    drop(tidying);
    halt(&store);
    let store = open(&copy).expect("opened");
    let claim = store.claim(HOME, "b").await.expect("claimed");
    finds_room(&store, claim, number).await;
    halt(&store);
}
