//! A journey: flight, hotel and car are booked at once. There is no car left, so the flight and the room, which
//! are booked by then, are given back, also at once. The traveller takes another day, and gets all three.
//!
//! `cargo run --release -p orchestra-saga --example saga_parallel_travel`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use orchestra_saga::{Call, Definition, Executor, Failure, MemoryStore, SagaId, Start, Status};
use tokio::time::{Instant, sleep};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Some service far away, which takes its time.
async fn book(call: Call, day: String, takes: u64) -> Result<String, Failure> {
    sleep(Duration::from_millis(takes)).await;
    if call.step.as_str() == "car" && day == "saturday" {
        println!("  {:8} refused", call.step);
        return Err(Failure::rejected("no car is left on saturday"));
    }
    println!("  {:8} booked", call.step);
    Ok(format!("{} on {day}", call.step))
}

/// The booking is known if the service said so. After a crash it may not be, and then the service is told the
/// key of the call, which names the same booking.
async fn give_back(call: Call, _day: String, booking: Option<String>) -> Result<(), Failure> {
    sleep(Duration::from_millis(60)).await;
    let what = booking.unwrap_or_else(|| format!("whatever was booked for {}", call.key));
    println!("  {:8} given back: {what}", call.step);
    Ok(())
}

fn journey() -> Result<Definition> {
    let mut d = Definition::builder("journey", "1");
    let day = d.input::<String>();
    // None of the three reads another, so nothing waits for anything.
    let flight = d
        .step("flight", day, |call, day| book(call, day, 30))
        .compensate(give_back);
    let hotel = d
        .step("hotel", day, |call, day| book(call, day, 40))
        .compensate(give_back);
    let car = d
        .step("car", day, |call, day| book(call, day, 60))
        .compensate(give_back);
    d.step(
        "invoice",
        (flight, hotel, car),
        |_: Call, (flight, hotel, car): (String, String, String)| async move {
            println!("  invoice: {flight}, {hotel}, {car}");
            Ok(())
        },
    )
    .retriable();
    Ok(d.build()?)
}

async fn travel(executor: &Executor, day: &str) -> Result<SagaId> {
    println!("{day}:");
    let begun = Instant::now();
    let saga = executor.start(Start::of("journey").input(day)?).await?;
    let view = executor.wait(saga).await?;
    println!("  {} after {:.0?}", view.status, begun.elapsed());
    Ok(saga)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let executor = Executor::builder(MemoryStore::default())
        .definition(journey()?)
        .build()
        .await?;
    let refused = travel(&executor, "saturday").await?;
    let booked = travel(&executor, "sunday").await?;

    println!("\nhow saturday ended, for any viewer of Mermaid:\n");
    println!("{}", executor.diagram(refused).await?.mermaid());

    let undone = executor.history(refused).await?;
    let undone = undone.iter().filter(|recorded| {
        recorded.event.name() == "compensation_completed" && recorded.event.step().is_some()
    });
    let ends = (
        executor.status(refused).await?.status,
        executor.status(booked).await?.status,
        undone.count(),
    );
    executor.shutdown().await;
    if ends != (Status::Compensated, Status::Completed, 2) {
        return Err(
            format!("flight and hotel should be given back, and nothing else: {ends:?}").into(),
        );
    }
    Ok(())
}
