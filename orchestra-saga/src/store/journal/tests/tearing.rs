use std::task::{Context, Poll, Waker};

use super::*;
use crate::error::ErrorKind;

/// A log of several groups of which the last has several frames, and what was acknowledged before it.
async fn written() -> (Sim, Ledger) {
    let sim = Sim::default();
    let store = open(&sim).expect("opened");
    let claim = store.claim(HOME, "test").await.expect("claimed");
    let mut ledger = Ledger::default();
    for number in 1..=3 {
        let start = start(number).start_key(Some(key(number)));
        ledger
            .append(&store, claim, &start)
            .await
            .expect("appended");
    }
    // Everything that comes while a sync lasts is one group.
    sim.hold();
    let mut cx = Context::from_waker(Waker::noop());
    let held = more(1, 1, 10);
    let mut held = Box::pin(store.append(claim, &held));
    assert!(held.as_mut().poll(&mut cx).is_pending());
    while store.core().state().flying.is_none() {
        std::thread::yield_now();
    }
    let batches: Vec<_> = (1..=8)
        .map(|at| more(2, at, 40 + 13 * usize::try_from(at).expect("small")))
        .collect();
    let mut group: Vec<_> = batches
        .iter()
        .map(|batch| Box::pin(store.append(claim, batch)))
        .collect();
    for append in &mut group {
        assert!(append.as_mut().poll(&mut cx).is_pending());
    }
    sim.release();
    held.await.expect("appended");
    ledger
        .logs
        .entry(saga(1))
        .or_default()
        .extend(more(1, 1, 10).recorded(claim.epoch));
    for append in group {
        append.await.expect("appended");
    }
    halt(&store);
    (sim, ledger)
}

/// The offset of the last group, where it ends, and where its frames begin.
fn last_group(sim: &Sim) -> (usize, usize, Vec<usize>) {
    let frames = frames(sim, 1);
    let last = frames.last().expect("a frame");
    let group = frames.iter().filter(|frame| frame.synced == last.synced);
    let begins: Vec<_> = group.map(|frame| frame.place.offset() as usize).collect();
    assert_eq!(
        begins.len(),
        8,
        "the last group has every batch that waited"
    );
    let synced = last.synced.offset() as usize;
    assert_eq!(begins[0], synced);
    (synced, last.end().offset() as usize, begins)
}

/// The last group of this disk is there up to the frame of that offset, and nothing is lost before it.
fn check(sim: &Sim, ledger: &Ledger, whole: usize) {
    let opened = recovered(sim).expect("a torn end is no corruption");
    let known = opened.log.index.find(saga(2)).expect("acknowledged");
    assert_eq!(known.version, Version(1 + whole as u64));
    for (saga, log) in &ledger.logs {
        let entry = opened.log.index.find(*saga).expect("acknowledged");
        assert!(entry.version.0 >= log.len() as u64);
    }
    // What was cut off does not come back.
    let again = recovered(sim).expect("opened again");
    assert_eq!(again.report.torn, None);
    assert_eq!(again.tail, opened.tail);
}

#[tokio::test]
async fn a_write_that_ends_at_any_byte_keeps_the_frames_that_are_whole() {
    let (sim, ledger) = written().await;
    let (begin, end, begins) = last_group(&sim);
    let written = sim.bytes(&segment_path(1));
    let says_something = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    for cut in begin..=end {
        let torn = sim.copy();
        torn.edit(&segment_path(1), |bytes| bytes[cut..].fill(0));
        // Padding is zeros: a frame without it is whole.
        let ends = begins.iter().skip(1).chain([&end]);
        let whole = ends.filter(|next| **next <= cut || !says_something(&written[cut..**next]));
        check(&torn, &ledger, whole.count());
        let torn = sim.copy();
        torn.edit(&segment_path(1), |bytes| bytes[cut..].fill(0));
        let report = recovered(&torn).expect("opened").report.torn;
        let frame = begins
            .iter()
            .rfind(|begin| **begin <= cut)
            .expect("a frame");
        let next = begins.iter().chain([&end]).find(|begin| **begin >= cut);
        let half = says_something(&written[*frame..cut])
            && says_something(&written[cut..*next.expect("an end")]);
        assert_eq!(report.is_some(), half, "cut at {cut}: {report:?}");
        if let Some(report) = report {
            assert_eq!(report.file, segment_path(1));
            assert!((report.offset as usize) < cut);
        }
    }
}

#[tokio::test]
async fn a_byte_that_changes_is_torn_in_the_last_group_and_corruption_before() {
    let (sim, ledger) = written().await;
    let (begin, end, begins) = last_group(&sim);
    for at in FRONT as usize..end {
        let bad = sim.copy();
        bad.edit(&segment_path(1), |bytes| bytes[at] ^= 1 << (at % 8));
        if at >= begin {
            let whole = begins.iter().filter(|begin| **begin <= at).count() - 1;
            check(&bad, &ledger, whole);
            continue;
        }
        let error = recovered(&bad).expect_err("what was acknowledged is damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        let path = segment_path(1);
        assert!(text.contains(&*path.to_string_lossy()), "{text}");
        let before = frames(&sim, 1);
        let frame = before
            .iter()
            .rfind(|frame| frame.place.offset() as usize <= at);
        let offset = frame.expect("a frame").place.offset();
        assert!(text.contains(&format!("byte {offset} ")), "{text} for {at}");
    }
    for at in 0..FRONT as usize {
        let bad = sim.copy();
        bad.edit(&segment_path(1), |bytes| bytes[at] ^= 1);
        let error = recovered(&bad).expect_err("a header is damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn garbage_behind_the_last_frame_is_cut_off() {
    let (sim, ledger) = written().await;
    let (_, end, _) = last_group(&sim);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let bad = sim.copy();
        bad.edit(&segment_path(1), |bytes| {
            let begin = rng.usize(end..bytes.len());
            let end = rng.usize(begin..bytes.len());
            bytes[begin..=end].fill_with(|| rng.u8(1..));
        });
        let opened = recovered(&bad.copy()).expect("opened");
        let torn = opened.report.torn.expect("said");
        assert_eq!(torn.offset as usize, end);
        check(&bad, &ledger, 8);
    }
}

/// Sectors of one write reach the disk in any order, so whole frames may follow a hole.
#[tokio::test]
async fn sectors_of_a_write_may_be_missing_anywhere() {
    let (sim, ledger) = written().await;
    let (begin, end, begins) = last_group(&sim);
    let mut torn = 0;
    for (length, step) in [(1, 1), (96, 5), (512, 7)] {
        for hole in (0..end - begin).step_by(step) {
            let bad = sim.copy();
            let (from, to) = (begin + hole, (begin + hole + length).min(end));
            let mut changed = None;
            bad.edit(&segment_path(1), |bytes| {
                changed = (from..to).find(|at| bytes[*at] != 0);
                bytes[from..to].fill(0);
            });
            let first = changed.unwrap_or(end);
            let whole = begins.iter().filter(|begin| **begin <= first).count();
            let whole = if changed.is_some() { whole - 1 } else { 8 };
            torn += usize::from(changed.is_some());
            check(&bad, &ledger, whole);
        }
    }
    assert!(torn > 1_000, "{torn}");
}

#[tokio::test]
async fn what_is_written_after_a_torn_end_is_not_followed_by_it() {
    let (sim, mut ledger) = written().await;
    let (begin, ..) = last_group(&sim);
    // The first frame of the group is missing, the others lie behind whole.
    sim.edit(&segment_path(1), |bytes| bytes[begin..begin + 8].fill(0));
    let store = open(&sim).expect("opened");
    let torn = store.recovered().torn.clone().expect("said");
    assert_eq!(torn.offset as usize, begin);
    let claim = store.claim(HOME, "test").await.expect("claimed");
    for version in 1..20 {
        let more = more(3, version, 51);
        ledger.append(&store, claim, &more).await.expect("appended");
        let crashed = sim.after_power_loss(|| false);
        let reopened = open(&crashed).expect("opened");
        assert_eq!(reopened.recovered().torn, None);
        ledger.check(&reopened).await;
        halt(&reopened);
    }
    halt(&store);
}

#[tokio::test]
async fn a_closed_store_knows_that_its_last_group_was_whole() {
    let (sim, _) = written().await;
    let store = open(&sim).expect("opened");
    store.close().await.expect("closed");
    let opened = recovered(&sim.copy()).expect("opened");
    assert_eq!(opened.report.frames, 0);
    let (begin, ..) = last_group(&sim);
    sim.edit(&segment_path(1), |bytes| bytes[begin + 100] ^= 1);
    let store = open(&sim).expect("the log before a checkpoint is read when it is needed");
    let error = store.load(saga(2), Version(0)).await.expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains(&format!("byte {begin} ")),
        "{error}"
    );
    assert!(matches!(
        Poll::Ready(store.load(saga(1), Version(0)).await.map(|log| log.len())),
        Poll::Ready(Ok(2))
    ));
    halt(&store);
}

#[tokio::test]
async fn a_file_that_only_claims_to_replace_segments_replaces_none() {
    let (sim, _ledger) = written().await;
    let name = Name {
        first: 1,
        last: u32::MAX,
        generation: 1,
    };
    let path = directory().join(name.file());
    let disk: &dyn crate::store::journal::disk::Disk = &sim;
    let file = disk.create(&path).expect("created");
    file.write_at(b"half a copy", 0).expect("written");
    let before = sim.paths();
    let refused = recovered(&sim).expect_err("it makes no sense");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert_eq!(sim.paths(), before, "nothing was removed");
}
