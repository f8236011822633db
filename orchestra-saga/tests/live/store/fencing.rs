//! One partition, two owners.

use std::process::Command;
use std::time::Duration;

use orchestra_saga::{Epoch, ErrorKind, Partition, SagaStore, Version};
use orchestra_testkit::Process;

use super::{more, note, open, raw, saga, schema, start};

const HERE: Partition = Partition(7);
const SHORT: Duration = Duration::from_millis(1_500);
/// Long enough for whatever does not wait.
const PAUSE: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

async fn lease_soon(store: &impl SagaStore) -> orchestra_saga::Claim {
    for _ in 0..200 {
        if let Some(claim) = store.lease(HERE, "second", LONG).await.unwrap() {
            return claim;
        }
        tokio::time::sleep(PAUSE / 10).await;
    }
    panic!("the partition is never free");
}

#[tokio::test]
async fn an_owner_whose_lease_was_taken_cannot_append() {
    let schema = schema();
    let (one, two) = (open(&schema).await, open(&schema).await);
    let first = one.lease(HERE, "first", SHORT).await.unwrap().unwrap();
    one.append(first, &start(saga(1))).await.unwrap();
    assert_eq!(two.lease(HERE, "second", LONG).await.unwrap(), None);

    let second = lease_soon(&two).await;
    assert!(second.epoch > first.epoch);
    let late = one.append(first, &more(saga(1), 1, "late")).await;
    let late = late.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    assert_eq!(late.epoch(), Some(second.epoch));
    let begun = one.append(first, &start(saga(2))).await.unwrap_err();
    assert_eq!(begun.kind(), ErrorKind::Fenced);
    let purged = one.purge(first, super::at(9), 9).await.unwrap_err();
    assert_eq!(purged.kind(), ErrorKind::Fenced);

    two.append(second, &more(saga(1), 1, "own")).await.unwrap();
    let log = one.load(saga(1), Version(0)).await.unwrap();
    let written: Vec<_> = log
        .iter()
        .map(|event| (event.version, event.epoch))
        .collect();
    assert_eq!(
        written,
        [(Version(1), first.epoch), (Version(2), second.epoch)]
    );
}

#[tokio::test]
async fn a_claim_waits_for_appends_under_way_and_goes_before_those_that_come() {
    let schema = schema();
    let (one, two) = (open(&schema).await, open(&schema).await);
    let first = one.claim(HERE, "first").await.unwrap();
    one.append(first, &start(saga(1))).await.unwrap();
    one.append(first, &start(saga(2))).await.unwrap();

    // A stranger's lock holds the append up in the midst of its transaction.
    let mut stranger = raw().await;
    let held = stranger.transaction().await.unwrap();
    let sql = format!("SELECT FROM {schema}.saga WHERE version = 1 LIMIT 1 FOR UPDATE");
    held.execute(&sql, &[]).await.unwrap();
    let sql = format!(
        "SELECT * FROM {schema}.saga WHERE id = (SELECT min(id::text)::uuid FROM {schema}.saga) FOR UPDATE"
    );
    held.execute(&sql, &[]).await.unwrap();
    let append = more(saga(1), 1, "under way");
    let mut under_way = Box::pin(one.append(first, &append));
    let mut claiming = Box::pin(two.claim(HERE, "second"));
    tokio::select! {
        answer = &mut under_way => panic!("{answer:?} through a lock"),
        () = tokio::time::sleep(PAUSE) => {}
    }
    let late = more(saga(2), 1, "late");
    let mut late = Box::pin(one.append(first, &late));
    tokio::select! {
        answer = &mut claiming => panic!("{answer:?} before the append"),
        () = tokio::time::sleep(PAUSE) => {}
    }
    tokio::select! {
        answer = &mut late => panic!("{answer:?} before the claim"),
        () = tokio::time::sleep(PAUSE) => {}
    }
    held.rollback().await.unwrap();
    let (under_way, second, late) = tokio::join!(under_way, claiming, late);
    assert_eq!(under_way.unwrap(), Version(2));
    assert_eq!(second.unwrap().epoch, Epoch(first.epoch.0 + 1));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_claim_does_not_starve_behind_a_busy_owner() {
    let schema = schema();
    let (one, two) = (open(&schema).await, open(&schema).await);
    let first = one.claim(HERE, "first").await.unwrap();
    let sagas = 64;
    for number in 0..sagas {
        one.append(first, &start(saga(number))).await.unwrap();
    }
    // Appends without a pause, until they are refused.
    let busy = |number| {
        let one = one.clone();
        async move {
            for version in 1.. {
                let append = more(saga(number), version, "busy");
                if let Err(error) = one.append(first, &append).await {
                    return (version, error.kind());
                }
            }
            unreachable!()
        }
    };
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..sagas {
        drop(tasks.spawn(busy(number)));
    }
    tokio::time::sleep(PAUSE).await;
    let claiming = tokio::time::timeout(Duration::from_secs(5), two.claim(HERE, "second"));
    let second = claiming.await.unwrap().unwrap();
    assert!(second.epoch > first.epoch);
    let before = {
        let mut logs = 0;
        for number in 0..sagas {
            logs += two.load(saga(number), Version(0)).await.unwrap().len();
        }
        logs
    };
    let mut accepted = 0;
    for (version, kind) in tasks.join_all().await {
        assert_eq!(kind, ErrorKind::Fenced);
        accepted += usize::try_from(version).unwrap();
    }
    assert_eq!(
        before, accepted,
        "what was accepted was there when the claim was granted"
    );
}

const SCHEMA: &str = "ORCHESTRA_SAGA_FROZEN_SCHEMA";

#[tokio::test]
#[ignore = "the body of the process that is frozen, which the next test runs by name"]
async fn the_process_that_is_frozen() {
    let store = open(&std::env::var(SCHEMA).unwrap()).await;
    let claim = store.lease(HERE, "first", SHORT).await.unwrap().unwrap();
    store.append(claim, &start(saga(1))).await.unwrap();
    let mut version = 1;
    loop {
        // A patient owner: it renews nothing and believes for ever.
        match store.append(claim, &more(saga(1), version, "first")).await {
            Ok(Version(next)) => version = next,
            Err(error) => {
                println!("refused {:?} after {version}", error.kind());
                return;
            }
        }
        if version == 3 {
            println!("lives");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_frozen_beyond_its_lease_is_refused_when_it_wakes() {
    let schema = schema();
    let store = open(&schema).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "store::fencing::the_process_that_is_frozen";
    command
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(SCHEMA, &schema);
    let mut process = Process::spawn(command).unwrap();
    let line = async |text: &str| {
        let found = process.wait_for_line(|line| line.contains(text), Duration::from_secs(20));
        found.await.unwrap().text().to_owned()
    };
    line("lives").await;
    process.pause().unwrap();
    let second = lease_soon(&store).await;
    let seen = store.load(saga(1), Version(0)).await.unwrap();
    let last = seen.last().unwrap().version;
    let own = orchestra_saga::Append::new(saga(1), last, super::at(3), vec![note("second")]);
    let last = store.append(second, &own).await.unwrap();
    process.resume().unwrap();
    assert!(line("refused").await.contains("refused Fenced"));
    assert!(process.wait().await.unwrap().success());
    let log = store.load(saga(1), Version(0)).await.unwrap();
    assert_eq!(log.last().unwrap().version, last);
    assert_eq!(log.last().unwrap().epoch, second.epoch);
}
