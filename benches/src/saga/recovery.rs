//! Sagas that were in the middle of their second step when everything ended: how long until all go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use orchestra_saga::{Call, Definition, Error, Executor, Failure, Start};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::durable::executor;
use super::store::Kind;
use super::{act, undo};
use crate::disk::{Disk, two_workers_and_sockets};
use crate::measure::Session;

/// Starts at once.
const CLIENTS: u32 = 1_000;

/// What the second step does: it counts, and answers or never does.
#[derive(Debug)]
pub(super) struct World {
    answers: bool,
    wanted: u32,
    called: AtomicU32,
    all: Notify,
}

impl World {
    pub(super) fn new(answers: bool, wanted: u32) -> Arc<Self> {
        Arc::new(Self {
            answers,
            wanted,
            called: AtomicU32::new(0),
            all: Notify::new(),
        })
    }

    async fn call(&self, value: u32) -> Result<u32, Failure> {
        if self.called.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.all.notify_one();
        }
        if !self.answers {
            std::future::pending::<()>().await;
        }
        Ok(value)
    }

    /// Until the step was called as often as is wanted.
    pub(super) async fn all_called(&self) {
        self.all.notified().await;
    }
}

pub(super) fn definition(world: &Arc<World>) -> Result<Definition, Error> {
    // Longer than anything here takes.
    let long = Duration::from_secs(3_600);
    let mut d = Definition::builder("noop", "1").timeout(None);
    let input = d.input::<u32>();
    let one = d.step("one", input, act).compensate(undo);
    let world = Arc::clone(world);
    let call = move |_: Call, value| {
        let world = Arc::clone(&world);
        async move { world.call(value).await }
    };
    let two = d
        .step("two", one, call)
        .attempt_timeout(long)
        .timeout(long)
        .compensate(undo);
    d.step("three", two, act).compensate(undo);
    d.build()
}

/// Starts so many sagas.
pub(super) async fn start(executor: &Executor, sagas: u32) {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let share = (sagas + client) / CLIENTS;
        let executor = executor.clone();
        clients.spawn(async move {
            for _ in 0..share {
                let start = Start::of("noop").input(&7).expect("a number");
                let started = executor.start(start).await;
                started.expect("the store does not fail");
            }
        });
    }
    clients.join_all().await;
}

/// How long it takes from an executor's start until all sagas have called their step again, and beside it how
/// long opening the store took before.
pub fn figures(session: &Session, disk: &Disk, kind: &Kind) {
    let sagas = if session.is_quick() { 1_000 } else { 100_000 };
    let scratch = disk.scratch(kind.name());
    let left = two_workers_and_sockets();
    let kind = left.block_on(async {
        let kind = kind.make_room().await;
        let opened = kind.open(&scratch).await;
        let world = World::new(false, sagas);
        let definition = definition(&world).expect("a valid definition");
        let executor = executor(opened.store(), definition).await;
        start(&executor, sagas).await;
        world.all_called().await;
        kind
    });
    // No step ends and nothing is closed: as if the process had been killed.
    left.shutdown_timeout(Duration::from_secs(10));

    let runtime = two_workers_and_sockets();
    let (opening, continued) = runtime.block_on(async {
        let (opened, opening) = kind.open_timed(&scratch).await;
        let world = World::new(true, sagas);
        let definition = definition(&world).expect("a valid definition");
        let store = opened.store();
        let begun = Instant::now();
        let executor = executor(store, definition).await;
        world.all_called().await;
        let continued = begun.elapsed();
        while executor.running() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        executor.shutdown().await;
        drop(executor);
        opened.close().await;
        (opening, continued)
    });
    let figure = format!("saga_recovery_{}_{sagas}", kind.name());
    session.value(&figure, continued.as_secs_f64(), "s");
    session.value(&format!("{figure}_opening"), opening.as_secs_f64(), "s");
}
