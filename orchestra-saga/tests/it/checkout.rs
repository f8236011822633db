//! A shop's checkout whose participants live in this process and count their effects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, IdempotencyKey};
use orchestra_saga::{Applied, Call, Definition, Failure, Operation, Retry, StepName};
use parking_lot::Mutex;

/// What a participant is told to answer next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Rejected,
    Retryable,
    /// The effect happens, the answer is lost.
    LostAfter,
    /// The effect does not happen, and nobody knows.
    LostBefore,
    /// Never answers.
    Silence,
    Panic,
}

/// Participants that keep keys, as a barrier does.
#[derive(Debug, Default)]
pub(crate) struct World {
    script: Mutex<HashMap<(String, Operation), Vec<Answer>>>,
    done: Mutex<HashMap<IdempotencyKey, bool>>,
    tombs: Mutex<Vec<StepName>>,
    log: Mutex<Vec<(String, Operation, u32)>>,
    effects: Mutex<HashMap<String, i32>>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The answers to the next calls; after them it is done.
    pub(crate) fn script(&self, step: &str, op: Operation, answers: &[Answer]) {
        let mut answers = answers.to_vec();
        answers.reverse();
        self.script.lock().insert((step.to_owned(), op), answers);
    }

    /// The effects that are left.
    pub(crate) fn effects(&self) -> HashMap<String, i32> {
        let mut effects = self.effects.lock().clone();
        effects.retain(|_, count| *count != 0);
        effects
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let log = self.log.lock();
        log.iter()
            .map(|(step, op, attempt)| match op {
                Operation::Action => format!("{step}#{attempt}"),
                _ => format!("undo {step}#{attempt}"),
            })
            .collect()
    }

    async fn serve(&self, call: &Call) -> Result<(), Failure> {
        let step = call.step.to_string();
        self.log.lock().push((step.clone(), call.op, call.attempt));
        let answer = {
            let mut script = self.script.lock();
            let answers = script.get_mut(&(step.clone(), call.op));
            answers.and_then(Vec::pop).unwrap_or(Answer::Done)
        };
        match answer {
            Answer::Done => self.apply(call),
            Answer::Rejected => Err(Failure::rejected("no")),
            Answer::Retryable => Err(Failure::retryable("busy")),
            Answer::LostAfter => {
                self.apply(call)?;
                Err(Failure::unknown("connection reset"))
            }
            Answer::LostBefore => Err(Failure::unknown("connection reset")),
            Answer::Silence => std::future::pending().await,
            Answer::Panic => panic!("a step that panics"),
        }
    }

    fn apply(&self, call: &Call) -> Result<(), Failure> {
        let action = call.op == Operation::Action;
        if action && self.tombs.lock().contains(&call.step) {
            return Err(Failure::rejected("after its compensation"));
        }
        if self.done.lock().insert(call.key.clone(), true).is_some() {
            return Ok(());
        }
        let key = Call::key_of(call.saga, &call.step, 0, Operation::Action);
        let mut effects = self.effects.lock();
        let count = effects.entry(call.step.to_string()).or_default();
        if action {
            *count += 1;
        } else {
            self.tombs.lock().push(call.step.clone());
            if self.done.lock().contains_key(&key) {
                *count -= 1;
            } else {
                assert_eq!(
                    call.applied,
                    Applied::Unknown,
                    "{} was never applied",
                    call.step
                );
            }
        }
        Ok(())
    }
}

fn quick(retries: u32) -> Retry {
    Retry::new(retries, Backoff::fixed(Duration::from_millis(10)))
}

/// check (read only), reserve, hold (both compensatable, in parallel), charge (pivot), notify.
pub(crate) fn checkout(world: &Arc<World>) -> Definition {
    let serve = || {
        let world = Arc::clone(world);
        move |call: Call, _: serde_json::Value| {
            let world = Arc::clone(&world);
            async move {
                world.serve(&call).await?;
                Ok(format!("{} done", call.step))
            }
        }
    };
    let undo = || {
        let world = Arc::clone(world);
        move |call: Call, _: serde_json::Value, _: Option<String>| {
            let world = Arc::clone(&world);
            async move { world.serve(&call).await }
        }
    };
    let mut d = Definition::builder("checkout", "1");
    let order = d.input::<serde_json::Value>();
    let user = d
        .step("check", order, serve())
        .retry(quick(1))
        .timeout(Duration::from_secs(2))
        .read_only();
    let stock = d
        .step("reserve", order, serve())
        .after(user)
        .retry(quick(2))
        .timeout(Duration::from_secs(5))
        .compensation_retry(quick(1))
        .compensate(undo());
    let hold = d
        .step("hold", order, serve())
        .after(user)
        .retry(quick(2))
        .timeout(Duration::from_secs(5))
        .compensation_retry(quick(1))
        .compensate(undo());
    let paid = d
        .step("charge", order, serve())
        .after(stock)
        .after(hold)
        .retry(quick(2))
        .timeout(Duration::from_secs(5))
        .pivot();
    d.step("notify", order, serve())
        .after(paid)
        .retry(quick(2))
        .timeout(Duration::from_secs(5))
        .retriable();
    d.build().expect("the rules hold")
}
