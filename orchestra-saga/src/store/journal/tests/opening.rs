//! What opening reads, believes and refuses.

use super::*;
use crate::error::ErrorKind;
use crate::store::journal::checkpoint;

fn checkpoints(sim: &Sim) -> Vec<PathBuf> {
    let mut paths = sim.paths();
    paths.retain(|path| path.to_string_lossy().contains("checkpoint-"));
    paths
}

/// A journal of several segments, with two checkpoints.
async fn several() -> (Sim, Ledger) {
    let sim = Sim::default();
    let mut ledger = Ledger::default();
    fill(&sim, &mut ledger).await;
    (sim, ledger)
}

async fn fill(sim: &Sim, ledger: &mut Ledger) {
    let store = open(sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    for number in 1..=60 {
        for append in [start(number), more(number, 1, 3000)] {
            let appended = ledger.append(&store, claim, &append).await;
            appended.expect("appended");
        }
        if number % 20 == 0 {
            tidy(&store).expect("a checkpoint");
        }
    }
    halt(&store);
}

#[tokio::test]
async fn after_a_close_the_rest_of_the_segment_is_not_read() {
    let sim = Sim::default();
    let open_large = |sim: &Sim| {
        let config = Config::default().segment_bytes(4 << 20);
        JournalStore::open_on(Arc::new(sim.clone()), directory(), config, None).expect("opened")
    };
    let store = open_large(&sim);
    let claim = store.claim(HOME, "test").await.expect("claimed");
    store.append(claim, &start(1)).await.expect("appended");
    while store.core().state().spare.is_none() {
        tokio::task::yield_now().await;
    }
    let crashed = sim.after_power_loss(|| false);
    halt(&open_large(&crashed));
    let read = crashed.world().read_bytes;
    assert!(read > 8 << 20, "two segments are looked through: {read}");
    store.close().await.expect("closed");
    for _ in 0..3 {
        let before = sim.world().read_bytes;
        let store = open_large(&sim);
        let read = sim.world().read_bytes - before;
        assert!(read < 64 << 10, "{read} bytes were read");
        assert_eq!(store.recovered().frames, 0);
        let log = store.load(saga(1), Version(0)).await.expect("read");
        assert_eq!(log.len(), 1);
        store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn that_it_was_closed_is_believed_only_if_nothing_follows() {
    let (sim, mut ledger) = several().await;
    let store = open(&sim).expect("opened");
    store.close().await.expect("closed");
    let closed: Vec<_> = sim.paths();
    let closed = closed
        .iter()
        .find(|path| path.to_string_lossy().contains("closed-"));
    let closed = closed.expect("it says so").clone();
    let store = open(&sim).expect("opened");
    assert!(!sim.paths().contains(&closed), "and no longer");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let late = more(1, 2, 10);
    ledger.append(&store, claim, &late).await.expect("appended");
    halt(&store);
    // A copy of the directory may have been made piece by piece.
    let disk: &dyn crate::store::journal::disk::Disk = &sim;
    disk.create(&closed).expect("created");
    let store = open(&sim).expect("opened");
    ledger.check(&store).await;
    assert_eq!(store.recovered().frames, 2);
    halt(&store);
}

/// Opens, appends and closes, three times over, as far as the disk lets it.
async fn sessions(sim: &Sim, ledger: &mut Ledger) -> Result<()> {
    for number in 1..=3 {
        let store = open(sim)?;
        let worked = async {
            let claim = store.claim(HOME, "test").await?;
            ledger.append(&store, claim, &start(number)).await?;
            let more = more(number, 1, 2000);
            ledger.append(&store, claim, &more).await?;
            store.close().await
        };
        let worked = worked.await;
        halt(&store);
        worked?;
    }
    Ok(())
}

#[tokio::test]
async fn power_may_go_at_every_change_of_a_close_and_an_opening() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut limit = 0;
    loop {
        let sim = Sim::default();
        sim.world().dies_after = Some(limit);
        let mut ledger = Ledger::default();
        let done = sessions(&sim, &mut ledger).await.is_ok();
        for lasts in [0, 30, 70, 100] {
            let crashed = sim.after_power_loss(|| rng.u8(..100) < lasts);
            let store = open(&crashed).expect("opened");
            ledger.check(&store).await;
            halt(&store);
            // What was cut off does not come back.
            let again = recovered(&crashed).expect("opened");
            assert_eq!(again.report.torn, None, "after {limit} changes");
        }
        if done {
            break;
        }
        limit += 1;
    }
    assert!(limit > 30, "{limit}");
}

#[tokio::test]
async fn a_segment_of_another_journal_is_refused() {
    let (sim, _) = several().await;
    let (other, _) = several().await;
    let tail = open(&sim).expect("opened");
    let ids = [&tail, &open(&other).expect("opened")].map(|store| {
        halt(store);
        store.core().journal.to_string()
    });
    let tail = tail.core().state().tail.segment();
    // Where the log goes on after the last checkpoint, and where only a read comes by.
    let mixed = sim.copy();
    mixed.edit(&segment_path(tail), |bytes| {
        *bytes = other.bytes(&segment_path(tail));
    });
    let refused = open(&mixed).expect_err("not its own");
    let mixed = sim.copy();
    mixed.edit(&segment_path(1), |bytes| {
        *bytes = other.bytes(&segment_path(1));
    });
    let store = open(&mixed).expect("opened");
    let unread = store
        .load(saga(1), Version(0))
        .await
        .expect_err("not its own");
    for refused in [refused, unread] {
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        for id in &ids {
            assert!(refused.to_string().contains(id), "{refused}");
        }
    }
    let log = store.load(saga(60), Version(0)).await.expect("its own");
    assert_eq!(log.len(), 2);
    halt(&store);
    // A checkpoint that is not of the log that goes on after it.
    let last = checkpoints(&other).pop().expect("one");
    let mixed = sim.copy();
    let own = checkpoints(&sim).pop().expect("one");
    assert_eq!(own, last);
    mixed.edit(&own, |bytes| *bytes = other.bytes(&last));
    let refused = open(&mixed).expect_err("not its own");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
}

/// As a version of that format would have written it.
fn set_format(bytes: &mut [u8], length: usize, format: u8) {
    bytes[7] = format;
    let crc = crc32fast::hash(&bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test]
async fn another_format_is_refused_and_left_as_it_is() {
    let (sim, ledger) = several().await;
    let newest = checkpoints(&sim).pop().expect("a checkpoint");
    let place = newest.file_name().expect("a name").to_string_lossy();
    let place = checkpoint::parse(&place).expect("a checkpoint");
    let segment = segment_path(place.segment());
    for (format, says) in [(b'1', "older format"), (b'3', "newer version")] {
        for path in [&segment, &newest] {
            let strange = sim.copy();
            let is_segment = is_segment(path);
            strange.edit(path, |bytes| {
                let length = if is_segment {
                    FRONT as usize
                } else {
                    bytes.len()
                };
                set_format(bytes, length, format);
            });
            let before = strange.paths();
            let refused = open(&strange).expect_err("another format");
            assert_eq!(refused.kind(), ErrorKind::UnknownFormat, "{refused}");
            assert!(refused.to_string().contains(says), "{refused}");
            assert!(
                refused.to_string().contains(&*path.to_string_lossy()),
                "{refused}"
            );
            assert!(!refused.is_retryable());
            assert_eq!(strange.paths(), before, "nothing was removed");
            strange.edit(path, |bytes| {
                let length = if is_segment {
                    FRONT as usize
                } else {
                    bytes.len()
                };
                set_format(bytes, length, b'2');
            });
            let store = open(&strange).expect("opened");
            ledger.check(&store).await;
            halt(&store);
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_stays_until_the_store_is_open() {
    let (sim, ledger) = several().await;
    let checkpoints = checkpoints(&sim);
    assert_eq!(checkpoints.len(), 2);
    sim.edit(&checkpoints[1], |bytes| bytes[30] ^= 1);
    let older = checkpoints[0]
        .file_name()
        .expect("a name")
        .to_string_lossy();
    let older = checkpoint::parse(&older).expect("a checkpoint");
    let broken = sim.copy();
    broken.unlink(&segment_path(older.segment()));
    let before = broken.paths();
    let refused = open(&broken).expect_err("a segment is missing");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert_eq!(broken.paths(), before, "nothing was removed");
    let store = open(&sim).expect("opened");
    ledger.check(&store).await;
    assert!(!sim.paths().contains(&checkpoints[1]));
    halt(&store);
}

#[test]
fn the_name_of_a_new_journal_is_durable() {
    let sim = Sim::default();
    halt(&open(&sim).expect("opened"));
    let synced = sim.world().synced_dirs.clone();
    assert!(synced.contains(Path::new("/")), "{synced:?}");
}

#[tokio::test]
async fn neighbours_are_read_together_and_strangers_alone() {
    let sim = Sim::default();
    let config = Config::default().segment_bytes(4 << 20);
    let open = || {
        let disk = Arc::new(sim.clone());
        JournalStore::open_on(disk, directory(), config, None).expect("opened")
    };
    let store = open();
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let mut ledger = Ledger::default();
    for number in 1..=400 {
        for append in [start(number), more(number, 1, 300)] {
            let appended = ledger.append(&store, claim, &append).await;
            appended.expect("appended");
        }
        // What is behind the durable place is not taken for what will be there.
        for saga in [saga(number), saga(number.div_ceil(2))] {
            let log = store.load(saga, Version(0)).await.expect("read");
            assert_eq!(log, ledger.logs[&saga]);
        }
    }
    // Sagas that are far from each other.
    for number in 401..=410 {
        let appended = ledger.append(&store, claim, &start(number)).await;
        appended.expect("appended");
        for version in 1..4 {
            let more = more(1, version + 1 + 3 * (number - 401), 60_000);
            ledger.append(&store, claim, &more).await.expect("appended");
        }
    }
    store.close().await.expect("closed");
    let store = open();
    let before = sim.world().reads;
    for number in 2..=400 {
        let log = store.load(saga(number), Version(0)).await.expect("read");
        assert_eq!(log, ledger.logs[&saga(number)]);
    }
    let reads = sim.world().reads - before;
    assert!(reads < 60, "{reads} reads of 798 frames");
    let before = sim.world().read_bytes;
    for number in 401..=410 {
        let log = store.load(saga(number), Version(0)).await.expect("read");
        assert_eq!(log.len(), 1);
    }
    let read = sim.world().read_bytes - before;
    assert!(read <= 10 * 1024, "{read} bytes for 10 frames");
    halt(&store);
}
