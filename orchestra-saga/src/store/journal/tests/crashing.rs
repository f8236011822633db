use super::*;
use crate::status::Status;

/// Starts, steps, ends, purges and compacts, as far as the disk lets it.
async fn work(sim: &Sim, ledger: &mut Ledger) -> Result<()> {
    let store = open(sim)?;
    let worked = steps(&store, ledger).await;
    halt(&store);
    worked
}

async fn steps(store: &JournalStore, ledger: &mut Ledger) -> Result<()> {
    let claim = store.claim(HOME, "test").await?;
    let first = ledger.logs.len() as u64 + ledger.purged.len() as u64 + 1;
    for number in first..first + 36 {
        let start = start(number)
            .start_key(Some(key(number)))
            .wake(Some(at(number)));
        ledger.append(store, claim, &start).await?;
        ledger.append(store, claim, &more(number, 1, 3000)).await?;
        store
            .save_snapshot(saga(number), crate::Snapshot::new(Version(2), vec![1; 900]))
            .await?;
        // A few go on living.
        if number % 9 != 0 {
            let end = more(number, 2, 100).status(Status::Completed);
            ledger.append(store, claim, &end).await?;
        }
        if number % 12 == 0 {
            ledger.doubtful_purge = ledger.logs.keys().copied().collect();
            store.purge(claim, at(number), usize::MAX).await?;
            ledger.doubtful_purge.clear();
            let gone: Vec<_> = ledger.logs.keys().copied().collect();
            for saga in gone {
                if ledger.logs[&saga].len() == 3 && saga < super::saga(number) {
                    ledger.logs.remove(&saga);
                    ledger.purged.push(saga);
                }
            }
            tidy(store)?;
        }
    }
    tidy(store)
}

fn segment_bytes(sim: &Sim) -> usize {
    let paths = sim.paths().into_iter().filter(|path| is_segment(path));
    paths.map(|path| sim.bytes(&path).len()).sum()
}

#[tokio::test]
async fn what_was_purged_gives_its_room_back_and_the_rest_is_read_as_before() {
    let sim = Sim::default();
    let mut ledger = Ledger::default();
    let mut sizes = Vec::new();
    for _ in 0..8 {
        work(&sim, &mut ledger).await.expect("done");
        sizes.push(segment_bytes(&sim));
        let store = open(&sim).expect("opened");
        ledger.check(&store).await;
        halt(&store);
        // The log behind the older checkpoint was left as it was.
        let damaged = sim.copy();
        let mut paths = damaged.paths();
        paths.retain(|path| path.to_string_lossy().contains("checkpoint"));
        damaged.edit(paths.last().expect("a checkpoint"), |bytes| bytes[20] ^= 1);
        let store = open(&damaged).expect("opened");
        ledger.check(&store).await;
        halt(&store);
    }
    // Eight rounds write 1.2 MB; what lives are a few sagas of each.
    assert!(sizes[7] < sizes[1] + 300_000, "{sizes:?}");
    let packed = sim.paths().into_iter().filter(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Name::parse(&name.unwrap_or_default()).is_some_and(|name| name.generation > 0)
    });
    assert!(packed.count() > 0);
}

#[tokio::test]
async fn power_may_go_at_every_change_of_the_disk() {
    let sim = Sim::default();
    work(&sim, &mut Ledger::default()).await.expect("done");
    let changes = sim.world().changes;
    assert!(changes > 250, "{changes}");
    let mut rng = fastrand::Rng::with_seed(11);
    for limit in 0..changes {
        let sim = Sim::default();
        sim.world().dies_after = Some(limit);
        let mut ledger = Ledger::default();
        let _died = work(&sim, &mut ledger).await;
        for lasts in [0, 50, 100] {
            let crashed = sim.after_power_loss(|| rng.u8(..100) < lasts);
            let store = match open(&crashed) {
                Ok(store) => store,
                Err(error) => panic!("after {limit} changes, {lasts} of 100 last: {error}"),
            };
            ledger.check(&store).await;
            halt(&store);
            // And at once again, before anything was written.
            let crashed = crashed.after_power_loss(|| rng.bool());
            let store = open(&crashed).expect("opened");
            ledger.check(&store).await;
            let claim = store.claim(HOME, "next").await.expect("claimed");
            store.append(claim, &start(10_000)).await.expect("goes on");
            halt(&store);
        }
    }
}

/// The process dies, the system does not: what was written is there, synced or not.
#[tokio::test]
async fn a_process_may_die_at_every_change_of_the_disk() {
    let mut limit = 0;
    loop {
        let sim = Sim::default();
        sim.world().dies_after = Some(limit);
        let mut ledger = Ledger::default();
        let done = work(&sim, &mut ledger).await.is_ok();
        sim.world().dies_after = None;
        let store = open(&sim).expect("opened");
        ledger.check(&store).await;
        halt(&store);
        let crashed = sim.after_power_loss(|| false);
        let store = open(&crashed).expect("opened");
        ledger.check(&store).await;
        halt(&store);
        if done {
            break;
        }
        limit += 3;
    }
}

/// While a checkpoint and compaction take place, appends go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_while_room_is_given_back() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..8_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (0..60).map(|turn| 1 + lane + 8 * turn) {
                store.append(claim, &start(number)).await.expect("appended");
                let end = more(number, 1, 1500).status(Status::Completed);
                store.append(claim, &end).await.expect("appended");
                let log = store.load(saga(number), Version(0)).await.expect("read");
                // Another lane may be far ahead and purge it.
                assert!(log.len() == 2 || log.is_empty(), "{}", log.len());
                if number.is_multiple_of(5) {
                    store
                        .purge(claim, at(number / 2), 100)
                        .await
                        .expect("purged");
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    store
        .purge(claim, at(400), usize::MAX)
        .await
        .expect("purged");
    tidy(&store).expect("tidied");
    tidy(&store).expect("tidied");
    Ledger::default().check(&store).await;
    assert!(segment_bytes(&sim) < 600_000, "{}", segment_bytes(&sim));
    store.close().await.expect("closed");
    let store = open(&sim).expect("opened");
    Ledger::default().check(&store).await;
    assert_eq!(store.recovered().sagas, 81);
    halt(&store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_for_a_purge_that_may_be_lost() {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let mut ledger = Ledger::default();
    for number in 1..=40 {
        ledger
            .append(&store, claim, &start(number))
            .await
            .expect("appended");
        let end = more(number, 1, 5000).status(Status::Completed);
        ledger.append(&store, claim, &end).await.expect("appended");
    }
    for number in 41..=42 {
        ledger
            .append(&store, claim, &start(number))
            .await
            .expect("appended");
        tidy(&store).expect("a checkpoint");
    }
    sim.hold();
    let before = store.core().state().decided;
    let mut purging = tokio::task::JoinSet::new();
    purging.spawn({
        let store = store.clone();
        async move { store.purge(claim, at(100), usize::MAX).await }
    });
    while store.core().state().decided == before {
        tokio::task::yield_now().await;
    }
    let compacting = std::thread::spawn({
        let store = store.clone();
        move || {
            let _alone = store.core().tidying.lock();
            compact::compact(store.core())
        }
    });
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        let crashed = open(&sim.after_power_loss(|| false)).expect("opened");
        ledger.check(&crashed).await;
        halt(&crashed);
    }
    assert!(!compacting.is_finished());
    sim.release();
    let purged = purging.join_next().await.expect("one");
    assert_eq!(purged.expect("no panic").expect("purged"), 40);
    compacting.join().expect("no panic").expect("compacted");
    assert!(segment_bytes(&sim) < 300_000, "{}", segment_bytes(&sim));
    halt(&store);
}
