//! Who may have the directory next, and when.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_second_close_does_not_release_what_the_first_still_writes() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "a").await.expect("claimed");
    sim.hold();
    let mut appending = tokio::task::JoinSet::new();
    let appender = store.clone();
    appending.spawn(async move { appender.append(claim, &start(1)).await });
    while store.core().state().flying.is_none() {
        tokio::task::yield_now().await;
    }
    // A caller that has lost its patience asks again, as a clone elsewhere does.
    let patience = Duration::from_millis(50);
    let first = tokio::time::timeout(patience, store.close()).await;
    let second = tokio::time::timeout(patience, store.close()).await;
    sim.release();
    assert!(first.is_err() && second.is_err(), "a write was under way");
    store.close().await.expect("closed");
    let appended = appending.join_next().await.expect("one");
    appended.expect("ran").expect("appended");
    let store = open(&sim).expect("opened");
    assert_eq!(store.recovered().frames, 0, "there is a checkpoint");
    halt(&store);
}

#[tokio::test]
async fn a_lease_may_last_longer_than_the_clock_counts() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let leased = store.lease(HOME, "a", Duration::MAX).await.expect("leased");
    let claim = leased.expect("free");
    store.renew(claim, Duration::MAX).await.expect("renewed");
    let second = store.lease(HOME, "b", Duration::MAX).await.expect("asked");
    assert_eq!(second, None);
    halt(&store);
}
