//! The whole crate in virtual time: instances under leases, a registry, DNS and a fallback, a cache, a resolver,
//! checks and callers. Links are cut and lie, clocks step, processes come, go and hang, and what must hold is
//! checked after every event.
//!
//! `ORCHESTRA_SEEDS` says how many runs there are, `ORCHESTRA_SEED` which one is repeated.

mod acts;
mod calls;
mod ear;
mod invariants;
mod link;
mod plan;
mod rest;
mod seen;
mod setup;
mod truth;
mod uplink;
mod ward;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestra_testkit::Seed;
use parking_lot::Mutex;

use tokio::runtime::Handle;
use tokio::time::sleep;

use self::plan::Act;
use self::world::World;

/// So many runs make a test.
const RUNS: u64 = 50;
/// So many events make a run.
const EVENTS: usize = 300;

/// What a test of this size must have come across.
const MUST_HAPPEN: [&str; 31] = [
    "cut checks",
    "deregistered",
    "ejected",
    "empty unconfirmed",
    "expired",
    "fallback",
    "gate bypassed",
    "health",
    "heartbeat failed",
    "heartbeat replaced",
    "mass checks",
    "negative",
    "not picked",
    "older unconfirmed",
    "overridden",
    "panic",
    "panic checks",
    "preserved",
    "released",
    "renewed",
    "replaced",
    "restored",
    "stale",
    "status",
    "suppressed",
    "synced checks",
    "tombstone checks",
    "trial",
    "upstream failed",
    "upstream recovered",
    "withheld",
];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// Lets everything happen that needs no time.
async fn quiet() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// How often what happened.
type Counts = BTreeMap<&'static str, u64>;

async fn run(seed: u64, trace: &mut Vec<String>) -> Counts {
    let mut world = World::new(seed).await;
    trace.push(format!("{:?}", world.setup));
    for number in 0..EVENTS {
        let act = Act::draw(&mut world.rng, world.setup.most);
        let at = world.now().as_nanos() / 1_000_000;
        trace.push(format!("{number} at {at} ms: {act:?}"));
        world.act(&act).await;
        let pause = millis([0, 5, 150, 700, 1_500][world.rng.usize(..5)]);
        sleep(pause).await;
        world.settle_due(world.now());
        quiet().await;
        world.check().await;
        if number % 150 == 149 {
            trace.push("rest".to_owned());
            world.come_to_rest().await;
        }
    }
    let mut counts = std::mem::take(&mut world.ear.counts);
    counts.insert("checks", world.seen.checks);
    counts.insert("synced checks", world.seen.synced_checks);
    counts.insert("mass checks", world.seen.mass_checks);
    counts.insert("tombstone checks", world.seen.tombstone_checks);
    counts.insert("cut checks", world.seen.cut_checks);
    counts.insert("panic checks", world.seen.panic_checks);
    counts.insert("fallback", world.seen.fallback_checks);
    counts.retain(|_, count| *count > 0);
    world.end().await;
    quiet().await;
    let alive = Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive, 0, "tasks outlive what they belong to");
    counts
}

#[expect(
    clippy::print_stderr,
    reason = "what happened belongs beside the message of the panic"
)]
fn simulate(seed: u64) -> Counts {
    let mut trace = Vec::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(Box::pin(run(seed, &mut trace)))
    }));
    result.unwrap_or_else(|panic| {
        let trace = trace.join("\n");
        eprintln!("{trace}\nrepeat with ORCHESTRA_SEED={seed}");
        resume_unwind(panic)
    })
}

/// One failure ends all runs.
struct Failed<'a>(&'a AtomicBool);

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn whatever_fails_invariants_hold_after_every_event() {
    if std::env::var_os("ORCHESTRA_SEED").is_some() {
        simulate(Seed::from_env_or_random("ORCHESTRA_SEED").value());
        return;
    }
    let seeds = number("ORCHESTRA_SEEDS").unwrap_or(RUNS);
    let (all, failed) = (Mutex::new(Counts::new()), AtomicBool::new(false));
    let simulate = |seed: u64| {
        let _failed = Failed(&failed);
        simulate(seed)
    };
    let halves = [0, 1].map(|first| (first..seeds).step_by(2));
    std::thread::scope(|scope| {
        for half in halves {
            scope.spawn(|| {
                let seeds = half.take_while(|_| !failed.load(Ordering::Relaxed));
                for (what, count) in seeds.flat_map(simulate) {
                    *all.lock().entry(what).or_default() += count;
                }
            });
        }
    });
    let all = all.into_inner();
    println!("{all:#?}");
    // What never happens is not tested.
    for what in MUST_HAPPEN.iter().filter(|_| seeds >= RUNS) {
        assert!(all.contains_key(*what), "{what} never happened");
    }
}
