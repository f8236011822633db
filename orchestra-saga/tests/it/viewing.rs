//! What people see and do: searching, subscribing, diagrams, many sagas at once, forks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Backoff;
use orchestra_saga::operate::Action;
use orchestra_saga::projection::search::{MemoryIndex, Query, Search};
use orchestra_saga::projection::{Projector, Subscription, View};
use orchestra_saga::{
    Call, Definition, Entry, Error, ErrorKind, Executor, Failure, Filter, MemoryStore, Operator,
    Position, Result, Retry, Start, Status, StepName,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

fn ada() -> Operator {
    Operator::new("ada", "a test")
}

/// `hold` (compensatable), then `pay`: done for an even input, refused for one that three divides, and
/// tried for ever otherwise, as long as the bank is down.
fn payment(bank: &Arc<AtomicBool>, calls: &Arc<AtomicU32>) -> Definition {
    let mut d = Definition::builder("payment", "1");
    let number = d.input::<u32>();
    let held = d
        .step(
            "hold",
            number,
            |_: Call, number: u32| async move { Ok(number) },
        )
        .compensate(|_: Call, _: u32, _: Option<u32>| async { Ok(()) });
    let checked = d
        .step("check", held, |_: Call, number: u32| async move {
            match number % 3 {
                0 if number % 2 == 1 => Err(Failure::rejected("divided by three")),
                _ => Ok(number),
            }
        })
        .read_only();
    let (bank, calls) = (Arc::clone(bank), Arc::clone(calls));
    d.step("pay", checked, move |_: Call, number: u32| {
        calls.fetch_add(1, Ordering::Relaxed);
        let down = number % 2 == 1 && !bank.load(Ordering::Relaxed);
        std::future::ready(if down {
            Err(Failure::retryable("\"the <bank>\" is down"))
        } else {
            Ok(number)
        })
    })
    .retry(Retry::new(1, Backoff::fixed(Duration::from_millis(10))))
    .retriable();
    d.build().expect("valid")
}

struct Shop {
    store: Arc<MemoryStore>,
    executor: Executor,
    bank: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

impl Shop {
    async fn open() -> Self {
        let store = Arc::new(MemoryStore::default());
        let (bank, calls) = (Arc::default(), Arc::default());
        let builder = Executor::builder(Arc::clone(&store)).definition(payment(&bank, &calls));
        let executor = builder.build().await.expect("built");
        Self {
            store,
            executor,
            bank,
            calls,
        }
    }

    /// Ten payments: 0, 2, 4, 6, 8 completed; 3, 9 compensated; 1, 5, 7 parked.
    async fn trade(&self) {
        for number in 0..10_u32 {
            let start = Start::of("payment").input(&number).expect("json");
            let start = start.attribute("number", number.to_string());
            let start = start.attribute("parity", if number % 2 == 0 { "even" } else { "odd" });
            let saga = self.executor.start(start).await.expect("started");
            self.executor.settled(saga).await.expect("settled");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn numbers(index: &impl Search, query: &Query) -> Vec<String> {
    let found = index.search(query).await.expect("found");
    found
        .into_iter()
        .map(|found| found.attributes["number"].clone())
        .collect()
}

async fn agrees(shop: &Shop, index: &impl Search) {
    for status in Status::ALL {
        let listed = shop
            .executor
            .list(&Filter::of(status))
            .await
            .expect("listed");
        let listed: Vec<_> = listed
            .into_iter()
            .map(|line| (line.saga, line.version))
            .collect();
        let found = index
            .search(&Query::default().status(status))
            .await
            .expect("found");
        let found: Vec<_> = found
            .into_iter()
            .map(|found| (found.saga, found.version))
            .collect();
        assert_eq!(found, listed, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn sagas_are_found_by_what_is_known_of_them() {
    let shop = Shop::open().await;
    shop.trade().await;
    let index = Arc::new(MemoryIndex::new(100));
    let mut projector = Projector::new(Arc::clone(&shop.store), Arc::clone(&index));
    assert!(projector.catch_up().await.expect("applied") > 40);
    assert_eq!(projector.catch_up().await.expect("nothing new"), 0);
    agrees(&shop, &index).await;
    let query = Query::default();
    let parked = query.clone().status(Status::Parked);
    assert_eq!(numbers(&index, &parked).await, ["1", "5", "7"]);
    assert_eq!(
        numbers(&index, &query.clone().attribute("number", "9")).await,
        ["9"]
    );
    let odd = query
        .clone()
        .attribute("parity", "odd")
        .definition("payment");
    assert_eq!(numbers(&index, &odd).await, ["1", "3", "5", "7", "9"]);
    assert!(
        numbers(&index, &query.clone().definition("other"))
            .await
            .is_empty()
    );
    let page = odd.clone().limit(2);
    let found = index.search(&page).await.expect("found");
    assert_eq!(
        numbers(&index, &page.clone().after(found[1].saga)).await,
        ["5", "7"]
    );
    let (from, to) = (found[0].started, found[1].started);
    assert_eq!(numbers(&index, &query.started(from, to)).await, ["1", "2"]);

    // Retried, paused, resumed: the index follows.
    shop.bank.store(true, Ordering::Relaxed);
    let saga = found[0].saga;
    shop.executor.pause(saga, ada()).await.expect("told");
    projector.catch_up().await.expect("applied");
    agrees(&shop, &index).await;
    shop.executor.resume(saga, ada()).await.expect("told");
    shop.executor.retry(saga, ada()).await.expect("told");
    shop.executor.wait(saga).await.expect("ended");
    projector.catch_up().await.expect("applied");
    agrees(&shop, &index).await;
    let before = index.search(&Query::default()).await.expect("found");
    projector.rebuild().await.expect("rebuilt");
    assert_eq!(
        index.search(&Query::default()).await.expect("found"),
        before
    );
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_index_in_a_file_finds_what_the_one_in_memory_does() {
    use orchestra_saga::projection::search::sqlite::SqliteIndex;
    let shop = Shop::open().await;
    shop.trade().await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("search.db");
    let memory = Arc::new(MemoryIndex::new(100));
    Projector::new(Arc::clone(&shop.store), Arc::clone(&memory))
        .catch_up()
        .await
        .expect("applied");
    let file = SqliteIndex::open(&path).await.expect("opened");
    // In pieces, some of them twice, and reopened between.
    let mut after = Position::START;
    loop {
        let entries = orchestra_saga::SagaStore::read(&*shop.store, after, 7)
            .await
            .expect("read");
        let Some(last) = entries.last() else { break };
        file.apply(&entries).await.expect("applied");
        file.apply(&entries).await.expect("applied again");
        after = last.position;
        assert_eq!(file.checkpoint().await.expect("read"), after);
    }
    drop(file);
    let file = SqliteIndex::open(&path).await.expect("reopened");
    agrees(&shop, &file).await;
    let all = memory.search(&Query::default()).await.expect("found");
    let some = [
        Query::default(),
        Query::default()
            .attribute("parity", "odd")
            .status(Status::Compensated),
        Query::default()
            .attribute("parity", "odd")
            .attribute("number", "7"),
        Query::default()
            .started(all[2].started, all[5].started)
            .definition("payment"),
        Query::default().after(all[4].saga).limit(3),
        Query::default().definition("other"),
    ];
    for query in some {
        let expected = memory.search(&query).await.expect("found");
        assert_eq!(
            file.search(&query).await.expect("found"),
            expected,
            "{query:?}"
        );
    }
    file.reset().await.expect("reset");
    assert!(
        file.search(&Query::default())
            .await
            .expect("found")
            .is_empty()
    );
    assert_eq!(file.checkpoint().await.expect("read"), Position::START);
}

/// Counts entries; every third apply fails before it does anything, every fifth after.
#[derive(Debug, Default)]
struct Counting {
    inner: Mutex<(Position, u64)>,
    applies: AtomicU32,
}

#[async_trait]
impl View for Counting {
    async fn checkpoint(&self) -> Result<Position> {
        Ok(self.inner.lock().0)
    }

    async fn apply(&self, entries: &[Entry]) -> Result<()> {
        let turn = self.applies.fetch_add(1, Ordering::Relaxed);
        let failed = || Err(Error::new(ErrorKind::Store, "the disk is gone"));
        if turn % 3 == 1 {
            return failed();
        }
        let mut inner = self.inner.lock();
        for entry in entries.iter().take(5) {
            if entry.position > inner.0 {
                *inner = (entry.position, inner.1 + 1);
            }
        }
        if turn % 5 == 2 { failed() } else { Ok(()) }
    }

    async fn reset(&self) -> Result<()> {
        *self.inner.lock() = (Position::START, 0);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_that_fails_again_and_again_counts_every_event_once() {
    let shop = Shop::open().await;
    let view = Arc::new(Counting::default());
    let stop = CancellationToken::new();
    let projector = Projector::new(Arc::clone(&shop.store), Arc::clone(&view));
    let following = projector.follow(stop.clone());
    let trading = async {
        shop.trade().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        // What is parked is tried again for ever: nothing may happen between the last look and the count.
        shop.executor.shutdown().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        stop.cancel();
    };
    let (followed, ()) = tokio::join!(following, trading);
    followed.expect("stopped");
    let mut all = Subscription::new(Arc::clone(&shop.store), Position::START);
    let mut count = 0;
    while let Ok(entry) = tokio::time::timeout(Duration::from_secs(1), all.next()).await {
        count += 1;
        assert_eq!(entry.expect("read").position, all.position());
    }
    assert_eq!((view.inner.lock().1, count), (count, count));
    assert!(count > 40);
}

#[tokio::test(start_paused = true)]
async fn many_sagas_are_retried_at_once() {
    let shop = Shop::open().await;
    shop.trade().await;
    let filter = Filter::of(Status::Parked).limit(2);
    let report = shop
        .executor
        .bulk(&filter, Action::Retry, &ada())
        .await
        .expect("done");
    assert_eq!(
        (report.matched, report.changed, report.failed.len()),
        (2, 2, 0)
    );
    shop.bank.store(true, Ordering::Relaxed);
    let rest = Filter::of(Status::Parked).limit(100);
    let report = shop
        .executor
        .bulk(&rest, Action::Retry, &ada())
        .await
        .expect("done");
    assert!(report.changed >= 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left = shop.executor.list(&Filter::open()).await.expect("listed");
    assert!(left.is_empty(), "{left:?}");
    let ended = Filter::default();
    let report = shop
        .executor
        .bulk(&ended, Action::Cancel, &ada())
        .await
        .expect("done");
    assert_eq!(
        (report.matched, report.changed),
        (10, 0),
        "ended sagas are left alone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_diagram_shows_where_each_step_stands_and_nothing_that_it_says_breaks_it() {
    let shop = Shop::open().await;
    let start = Start::of("payment").input(&5_u32).expect("json");
    let saga = shop.executor.start(start).await.expect("started");
    shop.executor.settled(saga).await.expect("parked");
    let diagram = shop.executor.diagram(saga).await.expect("drawn");
    let expected = "flowchart TD\n    s0[\"hold<br/>completed\"]:::done\n    \
                    s1[\"check<br/>completed\"]:::done\n    \
                    s2[\"pay<br/>parked, 2 attempts<br/>#34;the #60;bank#62;#34; is down\"]:::stuck\n    \
                    s0 --> s1\n    s1 --> s2\n";
    let mermaid = diagram.mermaid();
    assert!(mermaid.starts_with(expected), "{mermaid}");
    assert!(mermaid.contains("classDef stuck fill:#ffb74d"));
    let dot = diagram.dot();
    assert!(
        dot.contains(r#"s2 [label="pay\nparked, 2 attempts\n\"the <bank>\" is down", shape=box"#),
        "{dot}"
    );
    assert!(dot.contains("s1 -> s2;"));
}

#[tokio::test(start_paused = true)]
async fn a_fork_repeats_a_completed_saga_from_a_step_on() {
    let shop = Shop::open().await;
    let start = Start::of("payment").input(&4_u32).expect("json");
    let view = shop.executor.run(start).await.expect("ended");
    assert_eq!(shop.calls.load(Ordering::Relaxed), 1);
    let pay = StepName::new("pay").expect("valid");
    let fork = shop
        .executor
        .fork(view.id, &pay, ada())
        .await
        .expect("forked");
    let forked = shop.executor.wait(fork).await.expect("ended");
    assert_eq!(forked.status, Status::Completed);
    assert_eq!(shop.calls.load(Ordering::Relaxed), 2);
    let attempts: Vec<_> = forked.steps.iter().map(|step| step.attempts).collect();
    assert_eq!(attempts, [0, 0, 1], "the others are taken over");
    assert_eq!(forked.output("hold"), view.output("hold"));

    let start = Start::of("payment").input(&9_u32).expect("json");
    let back = shop.executor.run(start).await.expect("ended");
    let refused = shop.executor.fork(back.id, &pay, ada()).await;
    assert_eq!(
        refused.expect_err("it went back").kind(),
        ErrorKind::InvalidInput
    );
}
