//! A saga in one process: reserve, charge, ship. Steps are closures; what a step reads are the handles of
//! the steps before it. The charge is declined for one customer, and the reservation is taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orchestra::Orchestra;
use orchestra::saga::step::{Call, Failure};
use orchestra::saga::{Definition, MemoryStore, Start, Status};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    customer: String,
    pieces: i64,
}

fn checkout(stock: &Arc<AtomicI64>) -> anyhow::Result<Definition> {
    let mut saga = Definition::builder("checkout", "1");
    let order = saga.input::<Order>();

    let (take, give_back) = (Arc::clone(stock), Arc::clone(stock));
    let hold = saga
        .step("reserve", order, move |_: Call, order: Order| {
            let stock = Arc::clone(&take);
            async move {
                stock.fetch_sub(order.pieces, Ordering::SeqCst);
                Ok(order.pieces * 250)
            }
        })
        .compensate(move |_: Call, order: Order, _: Option<i64>| {
            let stock = Arc::clone(&give_back);
            async move {
                stock.fetch_add(order.pieces, Ordering::SeqCst);
                Ok(())
            }
        });
    let receipt = saga
        .step(
            "charge",
            (order, hold),
            |call: Call, (order, cents): (Order, i64)| async move {
                if order.customer == "broke" {
                    return Err(Failure::rejected("the card was declined"));
                }
                // The key is the same at every repetition: a payment service knows a request by it.
                Ok(format!(
                    "{cents} cents from {} under {}",
                    order.customer, call.key
                ))
            },
        )
        .pivot();
    saga.step("ship", receipt, |_: Call, receipt: String| async move {
        Ok(receipt.len())
    })
    .retriable();
    Ok(saga.build()?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let stock = Arc::new(AtomicI64::new(10));
    let orchestra = Orchestra::builder()
        .saga_store(MemoryStore::default())
        .definition(checkout(&stock)?)
        .build()
        .await?;
    let sagas = orchestra
        .sagas()
        .expect("there is a store, so there are sagas");

    let mut ends = Vec::new();
    for customer in ["ada", "broke"] {
        let order = Order {
            customer: customer.to_owned(),
            pieces: 3,
        };
        let id = sagas.start(Start::of("checkout").input(&order)?).await?;
        let view = sagas.wait(id).await?;
        match &view.cause {
            None => println!("{customer}: {}", view.status),
            Some(cause) => println!("{customer}: {}, since {cause}", view.status),
        }
        ends.push(view.status);
    }
    assert_eq!(ends, [Status::Completed, Status::Compensated]);
    assert_eq!(
        stock.load(Ordering::SeqCst),
        7,
        "only ada's pieces are gone"
    );

    orchestra.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
