//! Who dies when: the campaign itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, TokioClock};
use orchestra_saga::SagaId;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::child::{Child, was_killed};
use crate::fuse::{Act, Armed};
use crate::ledger::{self, Request};
use crate::points::{Point, Who, table};
use crate::store::Kind;
use crate::tally::Tally;
use crate::verdict;
use crate::worker::{Orders, Task};

/// So many rounds end with a verdict.
const BATCH: usize = 48;
/// So many rounds of a hundred have no point but a moment.
const MOMENTS: usize = 15;
/// A point that nobody has come by until then is left for later.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is left must have ended by then.
const FINISH: Duration = Duration::from_secs(60);
/// From so many rounds on, every point must have had its death.
const MANY: usize = 1_000;
/// How long a zombie is dead: its lease has ended, and others go on.
const DEATH: Duration = Duration::from_millis(650);

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

/// What happens in a round.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Point(Point, u32),
    WorkerDies(Duration),
    LedgerDies(Duration),
    WorkerStops(Duration),
}

/// The plans of a campaign: all points in an order of the seed, again and again.
struct Deck {
    rng: fastrand::Rng,
    points: Vec<Point>,
    left: Vec<Point>,
    shared: bool,
}

impl Deck {
    fn draw(&mut self) -> Plan {
        let moment = Duration::from_micros(self.rng.u64(2_000..150_000));
        match self.rng.usize(..100) {
            draw if draw >= MOMENTS => {
                if self.left.is_empty() {
                    self.left = self.points.clone();
                    self.rng.shuffle(&mut self.left);
                }
                let point = self.left.pop().expect("points");
                Plan::Point(point, self.rng.u32(1..=point.within))
            }
            0..3 => Plan::LedgerDies(moment),
            3..6 if self.shared => Plan::WorkerStops(moment),
            _ => Plan::WorkerDies(moment),
        }
    }

    /// Nobody came by.
    fn put_back(&mut self, point: Point) {
        let at = self.rng.usize(..=self.left.len());
        self.left.insert(at, point);
    }
}

pub(crate) async fn campaign(kind: Kind) {
    let rounds = usize::try_from(number("SAGA_ROUNDS", 12)).expect("fewer");
    let seed = number("SAGA_SEED", 1);
    let points = table(kind);
    let mut deck = Deck {
        rng: fastrand::Rng::with_seed(seed),
        left: Vec::new(),
        shared: kind.is_shared(),
        points: points.clone(),
    };
    let tally = Arc::new(Mutex::new(Tally::new(&points)));
    let clock = TokioClock::new();
    let begun = clock.now();
    let mut done = 0;
    while done < rounds {
        let plans: Vec<_> = (done..rounds.min(done + BATCH))
            .map(|_| deck.draw())
            .collect();
        done += plans.len();
        let batch = Batch::begin(kind, Arc::clone(&tally), plans).await;
        let (faults, missed) = batch.run().await;
        for point in missed {
            deck.put_back(point);
        }
        tally.lock().batches += 1;
        let told = format!("{kind:?}, seed {seed}, {done} of {rounds} rounds");
        if let Some((faults, directory)) = faults {
            let table = tally.lock().report(&told, clock.now().since(begun));
            panic!(
                "{table}\n{told}: {} faults, traces in {}\n{}",
                faults.len(),
                directory.display(),
                faults.join("\n")
            );
        }
    }
    let tally = tally.lock();
    let title = format!("{kind:?}, seed {seed}: {rounds} rounds");
    println!("{}", tally.report(&title, clock.now().since(begun)));
    assert!(
        tally.completed > 0 && tally.compensated > 0,
        "sagas go forward and back"
    );
    if rounds >= MANY {
        let untouched = tally.untouched();
        assert!(untouched.is_empty(), "nobody died: {untouched:?}");
        // Zombies have called, and have written: both were refused.
        let refused = tally.fenced > 0 && tally.calls.contains_key("stale");
        assert!(refused || !kind.is_shared(), "no zombie was refused");
    }
}

/// Some rounds on one store and one ledger.
struct Batch {
    kind: Kind,
    directory: TempDir,
    tally: Arc<Mutex<Tally>>,
    plans: Mutex<Vec<Plan>>,
    missed: Mutex<Vec<Point>>,
    /// Who starts or kills the ledger has it.
    ledger: tokio::sync::Mutex<Child>,
    /// The acknowledged starts by slot and number.
    acknowledged: Mutex<BTreeMap<(u64, u64), SagaId>>,
    faults: Mutex<Vec<String>>,
}

type Faults = Option<(Vec<String>, PathBuf)>;

impl Batch {
    async fn begin(kind: Kind, tally: Arc<Mutex<Tally>>, plans: Vec<Plan>) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("saga_campaign_")
            .tempdir()
            .expect("a directory");
        let ledger = start_ledger(directory.path()).await;
        Self {
            kind,
            directory,
            tally,
            plans: Mutex::new(plans.into_iter().rev().collect()),
            missed: Mutex::default(),
            ledger: tokio::sync::Mutex::new(ledger),
            acknowledged: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    async fn run(self) -> (Faults, Vec<Point>) {
        let batch = Arc::new(self);
        let slots = if batch.kind.is_shared() { 3 } else { 1 };
        let mut tasks = JoinSet::new();
        for slot in 0..slots {
            tasks.spawn(Arc::clone(&batch).rounds(slot));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("rounds do not fail");
        }
        batch.finish().await;
        // What is still on its way to the ledger arrives before the books are read.
        sleep(ledger::LATE * 2).await;
        let batch = Arc::into_inner(batch).expect("tasks have ended");
        let mut faults = batch.faults.into_inner();
        if faults.is_empty() {
            let acknowledged = batch.acknowledged.into_inner();
            let path = batch.directory.path();
            faults = verdict::judge(batch.kind, path, &acknowledged, &batch.tally).await;
        }
        drop(batch.ledger);
        let missed = batch.missed.into_inner();
        if faults.is_empty() {
            #[cfg(feature = "postgres")]
            if batch.kind == Kind::Postgres {
                crate::store::drop_schema(batch.directory.path()).await;
            }
            return (None, missed);
        }
        (Some((faults, batch.directory.keep())), missed)
    }

    /// One worker after another.
    async fn rounds(self: Arc<Self>, slot: u64) {
        loop {
            let Some(plan) = self.plans.lock().pop() else {
                return;
            };
            let reached = self.round(slot, plan).await;
            let mut tally = self.tally.lock();
            match plan {
                Plan::Point(point, _) if reached => tally.reached(point),
                Plan::Point(point, _) => {
                    tally.missed(point);
                    tally.moment("worker at a random moment");
                    self.missed.lock().push(point);
                }
                Plan::WorkerDies(_) => tally.moment("worker at a random moment"),
                Plan::LedgerDies(_) => tally.moment("ledger at a random moment"),
                Plan::WorkerStops(_) => tally.moment("zombie at a random moment"),
            }
            if !self.faults.lock().is_empty() {
                return;
            }
        }
    }

    /// Whether the point was reached, if there is one.
    async fn round(&self, slot: u64, plan: Plan) -> bool {
        let mut worker = self.start_worker(slot, plan);
        let reached = match plan {
            Plan::Point(point, _) if point.who == Who::Worker => {
                timeout(PATIENCE, worker.wait()).await.is_ok()
            }
            Plan::Point(point, times) if point.who == Who::Ledger => {
                self.kill_ledger(armed(point, times)).await
            }
            Plan::Point(..) => {
                let stopped = timeout(PATIENCE, worker.says("stopping")).await.is_ok();
                if stopped {
                    sleep(DEATH).await;
                    worker.go_on();
                    sleep(DEATH / 4).await;
                }
                stopped
            }
            Plan::WorkerDies(moment) => {
                sleep(moment).await;
                true
            }
            Plan::WorkerStops(moment) => {
                sleep(moment).await;
                worker.stop();
                sleep(DEATH).await;
                worker.go_on();
                sleep(DEATH / 4).await;
                true
            }
            Plan::LedgerDies(moment) => {
                let mut ledger = self.ledger.lock().await;
                sleep(moment).await;
                ledger.kill();
                ledger.wait().await;
                *ledger = start_ledger(self.directory.path()).await;
                true
            }
        };
        worker.kill();
        let status = worker.wait().await;
        if !was_killed(status) {
            self.fault(format!("a worker ended by itself: {status} in {plan:?}"));
        }
        self.hear(slot, worker.last_words().await);
        reached
    }

    /// Whether it came by there.
    async fn kill_ledger(&self, armed: Armed) -> bool {
        let mut ledger = self.ledger.lock().await;
        let armed = timeout(PATIENCE, arm(self.directory.path(), armed)).await;
        armed.expect("the ledger answers");
        let reached = timeout(PATIENCE, ledger.wait()).await.is_ok();
        ledger.kill();
        ledger.wait().await;
        *ledger = start_ledger(self.directory.path()).await;
        // The worker sees it come back.
        sleep(Duration::from_millis(20)).await;
        reached
    }

    fn start_worker(&self, slot: u64, plan: Plan) -> Child {
        let armed = match plan {
            Plan::Point(point, times) if point.who != Who::Ledger => Some(armed(point, times)),
            _ => None,
        };
        let known = self.acknowledged.lock();
        let last = known.range((slot, 0)..(slot + 1, 0)).next_back();
        let next = last.map_or(0, |((_, number), _)| number + 1);
        // Some starts are repeated, as by a client that did not hear the answer.
        let first = next.saturating_sub(2);
        self.spawn_worker(slot, Task::Start(first), armed)
    }

    fn spawn_worker(&self, slot: u64, task: Task, armed: Option<Armed>) -> Child {
        let directory = self.directory.path();
        let orders = Orders {
            kind: self.kind,
            directory: directory.to_owned(),
            slot,
            task,
            armed,
        };
        Child::spawn("the_worker", &orders, directory)
    }

    fn fault(&self, fault: String) {
        self.faults.lock().push(fault);
    }

    /// What was printed before the end was acknowledged, and must be true for ever.
    fn hear(&self, slot: u64, words: Vec<String>) {
        for line in words {
            if line.contains("unrecoverable") {
                self.fault(line);
                continue;
            }
            if line.contains("fenced off") {
                self.tally.lock().fenced += 1;
            }
            let Some((_, words)) = line.split_once("started ") else {
                continue;
            };
            let Some((number, saga)) = words.split_once(' ') else {
                continue;
            };
            let (Ok(number), Ok(saga)) = (number.parse::<u64>(), saga.parse::<SagaId>()) else {
                continue;
            };
            let before = self.acknowledged.lock().insert((slot, number), saga);
            if let Some(before) = before.filter(|before| *before != saga) {
                self.fault(format!(
                    "start {slot}-{number} is {before}, and later {saga}"
                ));
            }
        }
    }

    /// Lets what is left end.
    async fn finish(&self) {
        let mut worker = self.spawn_worker(u64::MAX, Task::Finish, None);
        let ended = timeout(FINISH, worker.wait()).await;
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => self.fault(format!("the last worker ended with {status}")),
            Err(_elapsed) => {
                self.fault(format!("sagas have not ended after {FINISH:?}"));
                worker.kill();
                worker.wait().await;
            }
        }
        let words = worker.last_words().await;
        let unrecoverable = words.into_iter().filter(|l| l.contains("unrecoverable"));
        self.faults.lock().extend(unrecoverable);
    }
}

fn armed(point: Point, left: u32) -> Armed {
    Armed {
        when: point.when.to_owned(),
        what: point.what.to_owned(),
        left,
        act: match point.who {
            Who::Worker | Who::Ledger => Act::Kill,
            Who::Zombie => Act::Stop,
        },
    }
}

async fn start_ledger(directory: &Path) -> Child {
    let ledger = Child::spawn("the_ledger", &directory, directory);
    let ready = timeout(Duration::from_secs(20), ledger.says("ledger is ready"));
    ready.await.expect("the ledger begins");
    ledger
}

/// Tells the ledger of what to die.
async fn arm(directory: &Path, armed: Armed) {
    let stream = UnixStream::connect(ledger::socket(directory)).await;
    let mut stream = BufReader::new(stream.expect("the ledger listens"));
    let mut line = serde_json::to_string(&Request::Arm(armed)).expect("JSON");
    line.push('\n');
    stream.write_all(line.as_bytes()).await.expect("sent");
    stream.read_line(&mut line).await.expect("answered");
}
