//! A saga of three steps that do nothing, each with a compensation, in memory.

use orchestra_saga::{Call, Definition, Error, Executor, MemoryStore, Start, Status};

use crate::measure::Session;
use crate::tasks::{shared_by, two_workers};

/// Three steps, one after the other.
pub fn definition() -> Result<Definition, Error> {
    let mut d = Definition::builder("noop", "1");
    let input = d.input::<u32>();
    let one = d.step("one", input, act).compensate(undo);
    let two = d.step("two", one, act).compensate(undo);
    d.step("three", two, act).compensate(undo);
    d.build()
}

async fn act(_: Call, value: u32) -> Result<u32, orchestra_saga::Failure> {
    Ok(value)
}

async fn undo(_: Call, _: u32, _: Option<u32>) -> Result<(), orchestra_saga::Failure> {
    Ok(())
}

/// An executor of that definition on a store in memory.
pub async fn executor() -> Result<Executor, Error> {
    Executor::builder(MemoryStore::default())
        .definition(definition()?)
        .build()
        .await
}

/// Runs one saga to its end.
pub async fn run(executor: &Executor) -> Result<(), Error> {
    let view = executor.run(Start::of("noop").input(&7)?).await?;
    assert_eq!(view.status, Status::Completed);
    Ok(())
}

/// One saga at a time, and 64 at once.
pub fn figures(session: &Session) {
    let runtime = two_workers();
    let executor = runtime.block_on(executor()).expect("a valid definition");
    for concurrent in [1, 64] {
        let work = |count| {
            let executor = executor.clone();
            async move {
                for _ in 0..count {
                    run(&executor).await.expect("the store does not fail");
                }
            }
        };
        let figure = format!("saga_3_steps_memory_{concurrent}_at_once");
        session.rate(&figure, "sagas/s", shared_by(concurrent, &runtime, work));
    }
    runtime.block_on(executor.shutdown());
}
