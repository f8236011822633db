//! Many who want the same at once.

use std::collections::HashSet;
use std::sync::Arc;

use orchestra_saga::{ErrorKind, Filter, Partition, SagaStore, Version};
use tokio::task::JoinSet;

use super::{at, fresh, key, more, note, open, saga, schema, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_key_starts_once_whoever_asks() {
    let schema = schema();
    let stores = [open(&schema).await, open(&schema).await];
    let mut tasks = JoinSet::new();
    for (partition, store) in (0..).zip(&stores) {
        let claim = store.claim(Partition(partition), "test").await.unwrap();
        for number in 0..200_u64 {
            let store = store.clone();
            // Each key is asked for ten times, five of them elsewhere, in no order.
            let name = format!("key {}", number * 7 % 20).replace(' ', "-");
            let id = saga(u64::from(partition) * 1_000 + number);
            let start = start(id).start_key(Some(key(&name)));
            drop(tasks.spawn(async move {
                let answer = store.append(claim, &start).await;
                (id, name, answer)
            }));
        }
    }
    let answers = tasks.join_all().await;
    let mut winners = HashSet::new();
    for (id, name, answer) in &answers {
        let owner = stores[0].find_start(&key(name)).await.unwrap().unwrap();
        match answer {
            Ok(version) => {
                assert_eq!((*version, owner), (Version(1), *id));
                assert!(winners.insert(name.clone()), "{name} started twice");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::DuplicateStart);
                assert_eq!(error.saga(), Some(owner));
                assert!(stores[1].load(*id, Version(0)).await.unwrap().is_empty());
            }
        }
    }
    assert_eq!(winners.len(), 20);
    let listed = stores[0].list(&Filter::default()).await.unwrap();
    assert_eq!(listed.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_appends_of_one_version_one_is_written() {
    let store = fresh().await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    let sagas = 20;
    for number in 0..sagas {
        store.append(claim, &start(saga(number))).await.unwrap();
    }
    for version in 1..=5 {
        let mut tasks = JoinSet::new();
        for rival in 0..10 {
            for number in 0..sagas {
                let store = store.clone();
                // The groups have the sagas in another order each.
                let id = saga((number * 7 + rival * 3) % sagas);
                let append = more(id, version, &format!("rival {rival}"));
                drop(tasks.spawn(async move { (id, store.append(claim, &append).await) }));
            }
        }
        let mut written = HashSet::new();
        for (id, answer) in tasks.join_all().await {
            match answer {
                Ok(next) => {
                    assert_eq!(next, Version(version + 1));
                    assert!(written.insert(id), "{id} was written twice");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::StaleVersion),
            }
        }
        assert_eq!(written.len(), 20);
    }
    for number in 0..sagas {
        assert_eq!(store.load(saga(number), Version(0)).await.unwrap().len(), 6);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_member_does_not_fail_its_group() {
    let store = Arc::new(fresh().await);
    let old = store.claim(Partition(0), "old").await.unwrap();
    let own = store.claim(Partition(0), "own").await.unwrap();
    let other = store.claim(Partition(1), "other").await.unwrap();
    for number in 0..40 {
        let start = start(saga(number)).start_key(Some(key(&format!("{number}"))));
        store.append(own, &start).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for number in 0..40_u64 {
        let good = more(saga(number), 1, "good");
        let (claim, append, wanted) = match number % 8 {
            0 => (
                own,
                more(saga(number), 9, "stale"),
                Some(ErrorKind::StaleVersion),
            ),
            1 => (other, good, Some(ErrorKind::ForeignPartition)),
            2 => (old, good, Some(ErrorKind::Fenced)),
            3 => {
                let taken = Some(key("7"));
                let again = start(saga(100 + number)).start_key(taken);
                (own, again, Some(ErrorKind::DuplicateStart))
            }
            4 => {
                let mut unborn = more(saga(100 + number), 0, "no start");
                unborn.events = vec![note("no start")];
                (own, unborn, Some(ErrorKind::Corrupt))
            }
            5 => (own, start(saga(100 + number)), None),
            _ => (own, good, None),
        };
        let store = Arc::clone(&store);
        drop(tasks.spawn(async move {
            let answer = store.append(claim, &append).await;
            assert_eq!(
                answer.map_err(|error| error.kind()).err(),
                wanted,
                "{number}"
            );
        }));
    }
    tasks.join_all().await;
    for number in 0..40 {
        let events = store.load(saga(number), Version(0)).await.unwrap().len();
        assert_eq!(events, if number % 8 > 5 { 2 } else { 1 }, "{number}");
    }
}

#[tokio::test]
async fn a_purge_goes_on_in_pieces_and_leaves_what_another_works_on() {
    let schema = schema();
    let store = open(&schema).await;
    let claim = store.claim(Partition(0), "test").await.unwrap();
    let ended = 1_200;
    let mut tasks = JoinSet::new();
    for number in 0..ended {
        let store = store.clone();
        let append = start(saga(number)).status(orchestra_saga::Status::Completed);
        drop(tasks.spawn(async move { store.append(claim, &append).await.unwrap() }));
    }
    tasks.join_all().await;
    let mut stranger = super::raw().await;
    let held = stranger.transaction().await.unwrap();
    let sql = format!("SELECT FROM {schema}.saga ORDER BY id LIMIT 3 FOR UPDATE");
    held.execute(&sql, &[]).await.unwrap();
    assert_eq!(store.purge(claim, at(2), 5_000).await.unwrap(), 1_197);
    held.rollback().await.unwrap();
    assert_eq!(store.purge(claim, at(2), 5_000).await.unwrap(), 3);
    assert!(store.list(&Filter::default()).await.unwrap().is_empty());
}
