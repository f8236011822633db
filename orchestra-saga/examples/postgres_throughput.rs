//! How many sagas of three steps a PostgreSQL makes durable in a second, through the executor.
//!
//! `postgres_throughput <url> [concurrency] [sagas] [writers]`; with `recover` as the concurrency it leaves that many
//! sagas in flight and measures how long the next executor takes to have continued all of them.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program reads the clock and prints"
)]

use std::error::Error;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use orchestra_saga::store::postgres::Config;
use orchestra_saga::{Call, Definition, Executor, Failure, PostgresStore, Start};
use tokio::task::JoinSet;

type Failed = Box<dyn Error + Send + Sync>;

/// What the steps do: answer at once, or never; and how often the first was called.
#[derive(Clone, Default)]
struct World {
    frozen: bool,
    called: Arc<AtomicUsize>,
}

fn three_steps(world: World) -> Result<Definition, Failed> {
    let mut d = Definition::builder("three", "1");
    let input = d.input::<u64>();
    let step = move |call: Call, n: u64| {
        let frozen = world.frozen;
        if call.step.as_str() == "one" {
            let _before = world.called.fetch_add(1, Ordering::Relaxed);
        }
        async move {
            if frozen {
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(n + 1)
        }
    };
    let undo = |_: Call, _: u64, _: Option<u64>| async { Ok::<_, Failure>(()) };
    // Longer than what is frozen stays so.
    let long = Duration::from_secs(600);
    let one = d
        .step("one", input, step.clone())
        .attempt_timeout(long)
        .timeout(long)
        .compensate(undo);
    let two = d.step("two", one, step.clone()).compensate(undo);
    d.step("three", two, step).compensate(undo);
    Ok(d.build()?)
}

async fn executor(store: &PostgresStore, world: World) -> Result<Executor, Failed> {
    let most = NonZeroU32::new(200_000).ok_or("no sagas")?;
    let builder = Executor::builder(store.clone()).definition(three_steps(world)?);
    Ok(builder.max_running(most).build().await?)
}

async fn throughput(store: &PostgresStore, at_once: usize, sagas: usize) -> Result<(), Failed> {
    let executor = executor(store, World::default()).await?;
    let left = Arc::new(AtomicUsize::new(sagas));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let (executor, left) = (executor.clone(), Arc::clone(&left));
        drop(clients.spawn(async move {
            let mut took = Vec::new();
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                let begun = Instant::now();
                let saga = executor.start(Start::of("three").input(&1_u64)?).await?;
                drop(executor.wait(saga).await?);
                took.push(begun.elapsed());
            }
            Ok::<_, orchestra_saga::Error>(took)
        }));
    }
    let mut took = Vec::new();
    while let Some(client) = clients.join_next().await {
        took.extend(client??);
    }
    let rate = sagas as f64 / begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let part = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{at_once} at once: {rate:.0} sagas/s, p50 {:?}, p99 {:?}",
        part(50),
        part(99)
    );
    executor.shutdown().await;
    Ok(())
}

async fn recovery(store: &PostgresStore, sagas: usize) -> Result<(), Failed> {
    let world = World {
        frozen: true,
        ..World::default()
    };
    let first = executor(store, world).await?;
    let mut starts = JoinSet::new();
    for client in 0..1_000 {
        let (first, share) = (
            first.clone(),
            sagas / 1_000 + usize::from(client < sagas % 1_000),
        );
        drop(starts.spawn(async move {
            for _ in 0..share {
                let _saga = first.start(Start::of("three").input(&1_u64)?).await?;
            }
            Ok::<_, orchestra_saga::Error>(())
        }));
    }
    while let Some(client) = starts.join_next().await {
        client??;
    }
    // The claim of the next executor fences the first one off, whose steps never end.
    let world = World::default();
    let called = Arc::clone(&world.called);
    let begun = Instant::now();
    let second = executor(store, world).await?;
    while called.load(Ordering::Relaxed) < sagas {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "{sagas} in flight: all called again after {:?}",
        begun.elapsed()
    );
    while second.running() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{sagas} in flight: all ended after {:?}", begun.elapsed());
    second.shutdown().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .ok_or("the address of a PostgreSQL is missing")?;
    let kind = arguments.next().unwrap_or_else(|| "64".to_owned());
    let sagas = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let writers = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let writers = NonZeroUsize::new(writers).ok_or("no writers")?;
    let config = Config::parse(&url)?.schema("throughput")?.writers(writers);
    let store = PostgresStore::connect(config.timeout(Duration::from_secs(30))).await?;
    match kind.parse() {
        Ok(at_once) => throughput(&store, at_once, sagas).await?,
        Err(_) => recovery(&store, sagas).await?,
    }
    store.close().await;
    Ok(())
}
