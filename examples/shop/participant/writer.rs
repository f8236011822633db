//! One thread owns the connection: it carries out all calls that wait in one transaction, each in a
//! savepoint of its own, and answers when the transaction is durable. A commit costs one `fsync`, however
//! many calls share it.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::StatusCode;
use orchestra::saga::BarrierCall;
use orchestra::saga::barrier::sqlite::{Barrier, Barriered};
use orchestra::saga::step::Operation;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Participant;

/// Calls that wait at most; beyond that a caller is told to come back.
const QUEUE: usize = 1024;
/// Calls in one transaction at most.
const BATCH: usize = 128;

#[derive(Debug, Clone)]
pub enum Answer {
    /// What the barrier says.
    Now(StatusCode, Value),
    /// Nothing happened, and the caller may come back.
    Busy(String),
}

enum Job {
    Step(BarrierCall, Value, oneshot::Sender<Answer>),
    Read(String, oneshot::Sender<Result<Option<Value>, String>>),
}

pub struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn open(path: &Path, participant: Box<dyn Participant>) -> anyhow::Result<Self> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(Duration::from_millis(500))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        let opening = Barrier::begin(&mut db)?;
        Barrier::install(&opening)?;
        participant.open(&opening)?;
        opening.commit()?;
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || work(db, participant.as_ref(), &jobs))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    fn submit(&self, job: Job) -> Result<(), String> {
        let queue = self.queue.as_ref().ok_or("the service is stopping")?;
        queue
            .try_send(job)
            .map_err(|_| "too many calls wait".to_owned())
    }

    pub async fn step(&self, call: BarrierCall, input: Value) -> Answer {
        let (reply, answer) = oneshot::channel();
        if let Err(reason) = self.submit(Job::Step(call, input, reply)) {
            return Answer::Busy(reason);
        }
        answer
            .await
            .unwrap_or_else(|_| Answer::Busy("the service is stopping".to_owned()))
    }

    pub async fn read(&self, path: String) -> Result<Option<Value>, String> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Read(path, reply))?;
        answer
            .await
            .unwrap_or_else(|_| Err("the service is stopping".to_owned()))
    }
}

/// What waits is finished before the service ends.
impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn work(mut db: Connection, participant: &dyn Participant, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut steps = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1)) {
            match job {
                Job::Step(call, input, reply) => steps.push((call, input, reply)),
                Job::Read(path, reply) => {
                    let found = participant
                        .read(&db, &path)
                        .map_err(|error| error.to_string());
                    let _gone = reply.send(found);
                }
            }
        }
        if steps.is_empty() {
            continue;
        }
        let answers = commit(&mut db, participant, &steps)
            .unwrap_or_else(|error| vec![Answer::Busy(error.to_string()); steps.len()]);
        for ((_, _, reply), answer) in steps.into_iter().zip(answers) {
            let _gone = reply.send(answer);
        }
    }
}

type Waiting = (BarrierCall, Value, oneshot::Sender<Answer>);

/// Nothing of the batch is answered before all of it is durable; if the commit fails, nothing happened.
fn commit(
    db: &mut Connection,
    participant: &dyn Participant,
    steps: &[Waiting],
) -> anyhow::Result<Vec<Answer>> {
    let transaction = Barrier::begin(db)?;
    let answers = steps.iter().map(|(call, input, _)| {
        let barriered = Barrier::run(&transaction, call, |db| match call.op {
            Operation::Compensation => participant.undo(db, input),
            _ => participant.act(db, input),
        });
        barriered.map_or_else(|error| Answer::Busy(error.to_string()), answer)
    });
    let answers = answers.collect();
    transaction.commit()?;
    Ok(answers)
}

fn answer(barriered: Barriered<Value>) -> Answer {
    let status = barriered.status();
    match barriered {
        Barriered::Applied(value) | Barriered::Replayed(value) => Answer::Now(status, value),
        Barriered::NullCompensation => Answer::Now(status, Value::Null),
        Barriered::Rejected(reason) => {
            let body = serde_json::from_str(&reason).unwrap_or(Value::String(reason));
            Answer::Now(status, body)
        }
        late => Answer::Now(
            status,
            json!({ "code": "too_late", "reason": format!("{late:?}") }),
        ),
    }
}
