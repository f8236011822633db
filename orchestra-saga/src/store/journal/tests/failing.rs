use super::*;
use crate::error::ErrorKind;
use crate::store::{Blueprint, Filter, Snapshot};

async fn begun(sim: &Sim) -> (JournalStore, Claim, Ledger) {
    let store = open(sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let mut ledger = Ledger::default();
    for number in 1..=3 {
        ledger
            .append(&store, claim, &start(number))
            .await
            .expect("appended");
    }
    (store, claim, ledger)
}

#[tokio::test]
async fn a_sync_that_fails_is_not_tried_again_and_nothing_is_acknowledged_after_it() {
    for fails_write in [false, true] {
        let sim = Sim::default();
        let (store, claim, mut ledger) = begun(&sim).await;
        while store.core().state().spare.is_none() {
            std::thread::yield_now();
        }
        if fails_write {
            sim.world().failing_write = Some(0);
        } else {
            sim.world().failing_sync = Some(0);
        }
        let failed = ledger.append(&store, claim, &more(1, 1, 10)).await;
        assert_eq!(failed.expect_err("not durable").kind(), ErrorKind::Store);
        let syncs = sim.world().syncs;
        for append in [more(2, 1, 10), start(9)] {
            let refused = store.append(claim, &append).await.expect_err("poisoned");
            assert_eq!(refused.kind(), ErrorKind::Store);
            assert!(
                refused
                    .to_string()
                    .contains("until the store is opened again"),
                "{refused}"
            );
        }
        let refused = store.claim(HOME, "other").await.expect_err("poisoned");
        assert_eq!(refused.kind(), ErrorKind::Store);
        assert_eq!(
            sim.world().syncs,
            syncs,
            "a sync that failed was followed by another"
        );
        // What is durable can be read; what rests on the rest cannot.
        assert_eq!(
            store
                .load(saga(2), Version(0))
                .await
                .expect("durable")
                .len(),
            1
        );
        let unknown = store.load(saga(1), Version(0)).await.expect_err("unknown");
        assert_eq!(unknown.kind(), ErrorKind::Store);
        let unknown = [
            store.list(&Filter::default()).await.map(drop),
            store.timers(HOME, at(99), 9).await.map(drop),
        ];
        for unknown in unknown {
            assert_eq!(unknown.expect_err("unknown").kind(), ErrorKind::Store);
        }
        let first = Filter::default().after(Some(saga(1)));
        assert_eq!(store.list(&first).await.expect("durable").len(), 2);
        assert!(store.close().await.is_err());

        // Whoever opens it sees the bytes that the disk does not have, and makes them last.
        let store = open(&sim).expect("opened");
        ledger.check(&store).await;
        let seen = store.load(saga(1), Version(0)).await.expect("read");
        let crashed = sim.after_power_loss(|| false);
        let after = open(&crashed).expect("opened");
        ledger.check(&after).await;
        assert_eq!(after.load(saga(1), Version(0)).await.expect("read"), seen);
        halt(&after);
        store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_panic_of_the_writer_is_told_to_all_who_wait_and_all_who_come() {
    let sim = Sim::default();
    let (store, claim, ledger) = begun(&sim).await;
    sim.hold();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 11..=20 {
        let appending = store.clone();
        tasks.spawn(async move {
            let start = start(number);
            appending.append(claim, &start).await.map(drop)
        });
        // The first is with the writer, the others wait behind it.
        while store.core().state().flying.is_none() {
            tokio::task::yield_now().await;
        }
    }
    let listing = store.clone();
    tasks.spawn(async move {
        let all = Filter::default();
        listing.list(&all).await.map(drop)
    });
    while store.core().state().group.waiters.seats() < 10 {
        tokio::task::yield_now().await;
    }
    sim.world().panics = true;
    sim.release();
    let soon = std::time::Duration::from_secs(10);
    while let Some(done) = tokio::time::timeout(soon, tasks.join_next())
        .await
        .expect("no hang")
    {
        let refused = done.expect("no panic").expect_err("not durable");
        assert_eq!(refused.kind(), ErrorKind::Store);
        assert!(refused.to_string().contains("panicked"), "{refused}");
    }
    let late = start(30);
    let late = store.append(claim, &late);
    let late = tokio::time::timeout(soon, late).await.expect("no hang");
    assert_eq!(late.expect_err("poisoned").kind(), ErrorKind::Store);
    assert_eq!(
        store
            .load(saga(1), Version(0))
            .await
            .expect("durable")
            .len(),
        1
    );
    let closed = tokio::time::timeout(soon, store.close())
        .await
        .expect("no hang");
    assert_eq!(
        closed.expect_err("not all is durable").kind(),
        ErrorKind::Store
    );
    sim.world().panics = false;
    let store = open(&sim).expect("opened");
    for number in 1..=3 {
        let log = store.load(saga(number), Version(0)).await.expect("read");
        assert_eq!(log, ledger.logs[&saga(number)]);
    }
    halt(&store);
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let sim = Sim::default();
    let (store, claim, mut ledger) = begun(&sim).await;
    while store.core().state().spare.is_none() {
        std::thread::yield_now();
    }
    sim.world().room = Some(1000);
    let mut version = 1;
    for length in [4000, 10] {
        let refused = loop {
            let more = more(1, version, length);
            match ledger.append(&store, claim, &more).await {
                Ok(()) => version += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::Full);
    }
    assert!(
        version > 20,
        "the segments that were there are used first: {version}"
    );
    ledger.doubtful = None;
    ledger.check(&store).await;
    // Purging must be possible, or there never is room again.
    let end = more(2, 1, 10).status(crate::Status::Completed);
    ledger.append(&store, claim, &end).await.expect_err("full");
    ledger.doubtful = None;
    assert_eq!(store.purge(claim, at(100), 10).await.expect("purged"), 0);
    let taken = store.claim(HOME, "next").await.expect("an epoch has room");
    assert!(taken.epoch > claim.epoch);
    sim.world().room = None;
    loop {
        match ledger.append(&store, taken, &more(1, version, 4000)).await {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
        }
        tokio::task::yield_now().await;
    }
    ledger.check(&store).await;
    store.close().await.expect("closed");
    let store = open(&sim).expect("opened");
    ledger.check(&store).await;
    halt(&store);
}

#[tokio::test]
async fn a_directory_on_a_full_disk_is_not_opened() {
    let sim = Sim::default();
    sim.world().room = Some(100);
    let refused = open(&sim).expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert_eq!(sim.paths(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_disk_that_takes_a_little_at_a_time_is_written_in_full() {
    let sim = Sim::default();
    sim.world().short = Some(1000);
    let (store, claim, mut ledger) = begun(&sim).await;
    for version in 1..50 {
        let more = more(1, version, 3000);
        ledger.append(&store, claim, &more).await.expect("appended");
    }
    halt(&store);
    let store = open(&sim.after_power_loss(|| false)).expect("opened");
    ledger.check(&store).await;
    halt(&store);
}

#[tokio::test]
async fn a_batch_that_no_segment_holds_is_refused() {
    let sim = Sim::default();
    let (store, claim, ledger) = begun(&sim).await;
    let refused = store.append(claim, &more(1, 1, 80_000)).await;
    assert_eq!(
        refused.expect_err("too long").kind(),
        ErrorKind::InvalidInput
    );
    store
        .append(claim, &more(1, 1, 40_000))
        .await
        .expect("fits");
    let ledger = Ledger {
        doubtful: Some((saga(1), more(1, 1, 40_000).recorded(claim.epoch).collect())),
        ..ledger
    };
    ledger.check(&store).await;
    halt(&store);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_replaced_by_the_one_before() {
    let sim = Sim::default();
    let (store, claim, mut ledger) = begun(&sim).await;
    for version in 1..60 {
        let more = more(1, version, 4000);
        ledger.append(&store, claim, &more).await.expect("appended");
        if version % 20 == 0 {
            tidy(&store).expect("a checkpoint");
        }
    }
    halt(&store);
    let mut checkpoints = sim.paths();
    checkpoints.retain(|path| path.to_string_lossy().contains("checkpoint"));
    assert_eq!(checkpoints.len(), 2);
    for at in 0..200 {
        let bad = sim.copy();
        bad.edit(&checkpoints[1], |bytes| {
            let at = at % bytes.len();
            bytes[at] ^= 1;
        });
        let store = open(&bad).expect("opened");
        ledger.check(&store).await;
        halt(&store);
    }
    let bad = sim.copy();
    for path in &checkpoints {
        bad.edit(path, |bytes| bytes.truncate(bytes.len() - 1));
    }
    // The log is as it was written, and says everything.
    let store = open(&bad).expect("opened");
    ledger.check(&store).await;
    store.close().await.expect("closed");
    let store = open(&bad).expect("opened");
    assert_eq!(store.recovered().frames, 0);
    halt(&store);

    // A log that was rewritten does not say what was purged from it.
    let end = more(1, 60, 10).status(crate::Status::Completed);
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    store.append(claim, &end).await.expect("appended");
    assert_eq!(store.purge(claim, at(100), 10).await.expect("purged"), 1);
    tidy(&store).expect("tidied");
    halt(&store);
    let path = segment_path(2);
    assert!(!sim.paths().contains(&path), "segments were given back");
    for path in sim.paths() {
        if path.to_string_lossy().contains("checkpoint") {
            sim.edit(&path, |bytes| bytes.truncate(bytes.len() - 1));
        }
    }
    let refused = open(&sim).expect_err("what was purged would come back");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("checkpoint-"), "{refused}");
}

#[tokio::test]
async fn a_segment_that_is_missing_is_corruption_if_something_in_it_is_needed() {
    let sim = Sim::default();
    let (store, claim, mut ledger) = begun(&sim).await;
    for version in 1..60 {
        let more = more(1, version, 4000);
        ledger.append(&store, claim, &more).await.expect("appended");
    }
    halt(&store);
    let segments: Vec<_> = sim
        .paths()
        .into_iter()
        .filter(|path| is_segment(path))
        .collect();
    assert!(segments.len() > 3);
    let tail = store.core().state().tail.segment();
    for path in segments {
        let name = path.file_name().expect("a name").to_string_lossy();
        if Name::parse(&name).expect("a segment").first > tail {
            continue;
        }
        let bad = sim.copy();
        bad.unlink(&path);
        let refused = open(&bad).expect_err("missing");
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        assert!(refused.to_string().contains(&*name), "{refused}");
    }
}

#[tokio::test]
async fn snapshots_and_definitions_are_there_after_opening() {
    let sim = Sim::default();
    let (store, claim, _ledger) = begun(&sim).await;
    let snapshot = Snapshot::new(Version(1), vec![7; 3000]);
    store
        .save_snapshot(saga(1), snapshot.clone())
        .await
        .expect("saved");
    assert_eq!(
        store.load_snapshot(saga(1)).await.expect("read"),
        Some(snapshot.clone())
    );
    let blueprint = Blueprint::new(
        Arc::from("hash"),
        serde_json::json!("x".repeat(1000)).into(),
    );
    store.define(&blueprint).await.expect("kept");
    store.append(claim, &more(1, 1, 1)).await.expect("appended");
    store.close().await.expect("closed");
    let late = store
        .append(claim, &more(1, 2, 1))
        .await
        .expect_err("closed");
    assert_eq!(late.kind(), ErrorKind::Store);
    let store = open(&sim).expect("opened");
    assert_eq!(
        store.load_snapshot(saga(1)).await.expect("read"),
        Some(snapshot)
    );
    assert_eq!(
        store.definition("hash").await.expect("read"),
        Some(blueprint)
    );
    halt(&store);
}

#[tokio::test]
async fn segments_may_have_another_length_than_before() {
    let sim = Sim::default();
    let (store, _, mut ledger) = begun(&sim).await;
    let open_with = |bytes| {
        let config = small().segment_bytes(bytes);
        JournalStore::open_on(Arc::new(sim.clone()), directory(), config, None).expect("opened")
    };
    halt(&store);
    let mut version = 1;
    for bytes in [1 << 20, 64 << 10, 256 << 10] {
        let store = open_with(bytes);
        let claim = store.claim(HOME, "test").await.expect("claimed");
        let length = usize::try_from(bytes).expect("small") / 2;
        for _ in 0..5 {
            let more = more(1, version, length);
            ledger.append(&store, claim, &more).await.expect("appended");
            version += 1;
        }
        ledger.check(&store).await;
        halt(&store);
    }
}
