//! The stream of all events, while others write.

use std::collections::HashMap;
use std::time::Duration;

use orchestra_saga::{Append, Partition, Position, SagaStore, Version};
use tokio::task::JoinSet;

use super::{at, more, note, open, raw, saga, schema, start};

#[tokio::test]
async fn what_commits_late_is_not_passed_by() {
    let schema = schema();
    let store = open(&schema).await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    store.append(claim, &start(saga(1))).await.unwrap();
    store.append(claim, &start(saga(2))).await.unwrap();
    // A transaction of the store that has its number and waits for a lock.
    let mut stranger = raw().await;
    let held = stranger.transaction().await.unwrap();
    let sql = format!(
        "SELECT FROM {schema}.saga WHERE id = (SELECT min(id::text)::uuid FROM {schema}.saga) FOR UPDATE"
    );
    held.execute(&sql, &[]).await.unwrap();
    let early = more(saga(1), 1, "early");
    let mut early = Box::pin(store.append(claim, &early));
    tokio::select! {
        answer = &mut early => panic!("{answer:?} through a lock"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    store
        .append(claim, &more(saga(2), 1, "late"))
        .await
        .unwrap();
    let seen = store.read(Position::START, 10).await.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|entry| (entry.saga, entry.recorded.version))
        .collect();
    let begun = [(saga(1), Version(1)), (saga(2), Version(1))];
    assert!(
        begun.starts_with(&seen),
        "{seen:?} was read past a transaction that runs"
    );
    held.rollback().await.unwrap();
    early.await.unwrap();
    let all = [
        begun[0],
        begun[1],
        (saga(1), Version(2)),
        (saga(2), Version(2)),
    ];
    for _ in 0..200 {
        let seen = store.read(Position::START, 10).await.unwrap();
        let seen: Vec<_> = seen
            .iter()
            .map(|entry| (entry.saga, entry.recorded.version))
            .collect();
        if seen == all {
            return;
        }
        assert!(all.starts_with(&seen), "{seen:?}");
        // Other tests write on the same server.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the stream does not get there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_many_writers_misses_nothing() {
    let schema = schema();
    let mut tasks = JoinSet::new();
    let (sagas, rounds) = (30_u64, 20_u64);
    for partition in 0..2 {
        let store = open(&schema).await;
        let claim = store.claim(Partition(partition), "test").await.unwrap();
        for number in 0..sagas {
            let (store, id) = (store.clone(), saga(u64::from(partition) * sagas + number));
            drop(tasks.spawn(async move {
                store.append(claim, &start(id)).await.unwrap();
                for round in 0..rounds {
                    let events = vec![note("one"), note("two"), note("three")];
                    let append = Append::new(id, Version(1 + round * 3), at(2), events);
                    store.append(claim, &append).await.unwrap();
                }
            }));
        }
    }
    let store = open(&schema).await;
    let reading = async {
        let (mut position, mut seen) = (Position::START, HashMap::new());
        let mut total = 0;
        while total < 2 * sagas * (1 + 3 * rounds) {
            // Pages that end in the midst of an append.
            for entry in store.read(position, 7).await.unwrap() {
                assert!(entry.position > position);
                position = entry.position;
                let last = seen.entry(entry.saga).or_insert(Version(0));
                assert_eq!(
                    entry.recorded.version,
                    Version(last.0 + 1),
                    "of {}",
                    entry.saga
                );
                *last = entry.recorded.version;
                total += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .unwrap();
    tasks.join_all().await;
}
