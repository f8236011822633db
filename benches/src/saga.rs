//! Sagas of steps that do nothing, each with a compensation.

pub mod durable;
pub mod footprint;
mod memory;
mod recovery;
mod store;

use orchestra_saga::{Call, Definition, Error, Executor, Failure, MemoryStore, Start, Status};

pub use memory::figures;

/// Three steps, one after the other.
pub fn definition() -> Result<Definition, Error> {
    let mut d = Definition::builder("noop", "1");
    let input = d.input::<u32>();
    let one = d.step("one", input, act).compensate(undo);
    let two = d.step("two", one, act).compensate(undo);
    d.step("three", two, act).compensate(undo);
    d.build()
}

async fn act(_: Call, value: u32) -> Result<u32, Failure> {
    Ok(value)
}

async fn undo(_: Call, _: u32, _: Option<u32>) -> Result<(), Failure> {
    Ok(())
}

/// An executor of that definition on a store in memory.
pub async fn executor() -> Result<Executor, Error> {
    executor_of(definition()?).await
}

/// On a store that remembers the last thousand, not all that ever ran.
async fn executor_of(definition: Definition) -> Result<Executor, Error> {
    Executor::builder(MemoryStore::new(1_000))
        .definition(definition)
        .build()
        .await
}

/// Runs one saga to its end.
pub async fn run(executor: &Executor) -> Result<(), Error> {
    run_to(executor, Status::Completed).await
}

async fn run_to(executor: &Executor, end: Status) -> Result<(), Error> {
    let view = executor.run(Start::of("noop").input(&7)?).await?;
    assert_eq!(view.status, end);
    Ok(())
}
