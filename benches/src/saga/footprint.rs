//! Memory: of sagas that run, and of those that sleep until a timer is due.

use std::time::Duration;

use orchestra_saga::{Call, Definition, Error, Failure};
use orchestra_testkit::held_by_all;

use super::durable::executor;
use super::recovery::{self, World, start};
use super::store::Kind;
use crate::disk::{Disk, two_workers_and_sockets};
use crate::measure::Session;

const MIB: f64 = 1024.0 * 1024.0;

/// A saga that waits for a week.
fn sleeping() -> Result<Definition, Error> {
    let mut d = Definition::builder("noop", "1").timeout(None);
    let input = d.input::<u32>();
    let woken = d.sleep("a_week", input, Duration::from_secs(7 * 86_400));
    d.step("end", input, |_: Call, _: u32| async {
        Ok::<_, Failure>(())
    })
    .after(woken)
    .retriable();
    d.build()
}

/// What needs an allocator that counts. The timers come first, while the process has nothing else.
pub fn figures(session: &Session) {
    let disk = Disk::of_environment();
    let (sagas, timers) = if session.is_quick() {
        (1_000, 5_000)
    } else {
        (100_000, 1_000_000)
    };
    asleep(session, &disk, &Kind::Journal, (sagas, timers));
    asleep(session, &disk, &Kind::Sqlite, (sagas, sagas));
    for kind in [Kind::Journal, Kind::Sqlite] {
        running(session, &disk, &kind, sagas);
    }
}

fn asleep(session: &Session, disk: &Disk, kind: &Kind, (sagas, timers): (u32, u32)) {
    let scratch = disk.scratch(kind.name());
    let runtime = two_workers_and_sockets();
    runtime.block_on(async {
        let opened = kind.open(&scratch).await;
        let definition = sleeping().expect("a valid definition");
        let executor = executor(opened.store(), definition).await;
        let before = held_by_all();
        let mut started = 0;
        for (count, in_all) in [(sagas, false), (timers - sagas, true)] {
            if count == 0 {
                continue;
            }
            start(&executor, count).await;
            started += count;
            while executor.running() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            let held = (held_by_all() - before) as f64;
            let name = kind.name();
            if in_all {
                session.value(&format!("saga_{started}_timers_{name}"), held / MIB, "MiB");
                let figure = format!("saga_{started}_timers_{name}_resident");
                session.value(&figure, resident(), "MiB");
            } else {
                let figure = format!("saga_bytes_per_sleeping_{name}_{started}");
                session.value(&figure, held / f64::from(started), "B");
            }
        }
        executor.shutdown().await;
        drop(executor);
        opened.close().await;
    });
}

fn running(session: &Session, disk: &Disk, kind: &Kind, sagas: u32) {
    let scratch = disk.scratch(kind.name());
    let runtime = two_workers_and_sockets();
    runtime.block_on(async {
        let opened = kind.open(&scratch).await;
        let world = World::new(false, sagas);
        let definition = recovery::definition(&world).expect("a valid definition");
        let executor = executor(opened.store(), definition).await;
        let before = held_by_all();
        start(&executor, sagas).await;
        world.all_called().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let held = (held_by_all() - before) as f64 / f64::from(sagas);
        let figure = format!("saga_bytes_per_running_{}_{sagas}", kind.name());
        session.value(&figure, held, "B");
    });
    // Their steps never end.
    runtime.shutdown_timeout(Duration::from_secs(10));
}

/// What the process has of the machine's memory, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says so");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.expect("a number of KiB") / 1024.0
}
