//! In memory: how much of the executor's own time a saga takes.

use std::time::Duration;

use orchestra_saga::{Call, Definition, Error, Executor, Failure, Status};
use tokio::runtime::Runtime;

use super::{act, definition, executor_of, run_to, undo};
use crate::measure::Session;
use crate::tasks::{shared_by, two_workers};

/// The longest chain that is begun 64 at once.
const SHORT: u32 = 100;

/// Three steps, of which the last is refused.
fn refused() -> Result<Definition, Error> {
    let mut d = Definition::builder("noop", "1");
    let input = d.input::<u32>();
    let one = d.step("one", input, act).compensate(undo);
    let two = d.step("two", one, act).compensate(undo);
    d.step("three", two, refuse).compensate(undo);
    d.build()
}

async fn refuse(_: Call, _: u32) -> Result<u32, Failure> {
    Err(Failure::rejected("refused"))
}

/// So many steps, each of which reads what the one before returned.
fn chain(steps: u32) -> Result<Definition, Error> {
    let mut d = Definition::builder("noop", "1");
    let mut last = d.input::<u32>();
    for step in 1..=steps {
        last = d.step(&format!("step_{step}"), last, act).compensate(undo);
    }
    d.build()
}

/// All figures of sagas in memory.
pub fn figures(session: &Session) {
    let runtime = two_workers();
    for (what, definition, end) in [
        ("3_steps", definition(), Status::Completed),
        ("fails_at_step_3", refused(), Status::Compensated),
    ] {
        let executor = start(&runtime, definition);
        for concurrent in [1, 64] {
            let figure = format!("saga_{what}_memory_{concurrent}_at_once");
            let batches = batches(&executor, &runtime, concurrent, end);
            session.rate(&figure, "sagas/s", batches);
        }
        runtime.block_on(executor.shutdown());
    }
    let long: &[u32] = if session.is_quick() {
        &[]
    } else {
        &[1_000, 10_000]
    };
    for &steps in [SHORT].iter().chain(long) {
        let executor = start(&runtime, chain(steps));
        let mut figures = vec![figure(steps, 1)];
        let of_chain = |session: &Session, figures: &[String], concurrent| {
            let batches = batches(&executor, &runtime, concurrent, Status::Completed);
            session.rate_of_parts(figures, "steps/s", steps, batches);
        };
        of_chain(session, &figures, 1);
        if steps == SHORT {
            // What the longer ones are to be judged by: a step costs them no more.
            figures = long.iter().map(|&steps| figure(steps, 1)).collect();
            of_chain(&session.for_subject("own-100-steps"), &figures, 1);
            of_chain(session, &[figure(steps, 64)], 64);
        }
        runtime.block_on(executor.shutdown());
    }
}

fn figure(steps: u32, concurrent: u64) -> String {
    format!("saga_chain_{steps}_memory_{concurrent}_at_once")
}

fn start(runtime: &Runtime, definition: Result<Definition, Error>) -> Executor {
    let definition = definition.expect("a valid definition");
    let executor = runtime.block_on(executor_of(definition));
    executor.expect("a store in memory does not fail")
}

fn batches(
    executor: &Executor,
    runtime: &Runtime,
    concurrent: u64,
    end: Status,
) -> impl FnMut(u64) -> Duration {
    let executor = executor.clone();
    shared_by(concurrent, runtime, move |count| {
        let executor = executor.clone();
        async move {
            for _ in 0..count {
                let ran = run_to(&executor, end).await;
                ran.expect("the store does not fail");
            }
        }
    })
}
