//! Explores a checkout whose compensation forgets something, shows how it comes to light, and explores the
//! mended one.
//!
//! `cargo run -p orchestra-saga --features test-util --example saga_explore`

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestra_saga::explore::explore;
use orchestra_saga::{Call, Definition, Failure, SagaId, Status};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    item: String,
    price: u32,
}

/// A fake of the services that the saga calls.
#[derive(Default)]
struct Shop {
    holds: Mutex<BTreeMap<u64, SagaId>>,
    charges: Mutex<Vec<u32>>,
}

impl Shop {
    fn reset(&self) {
        self.holds.lock().clear();
        self.charges.lock().clear();
    }

    /// A completed checkout has one hold and one charge, any other has nothing.
    fn check(&self, end: Status) -> Result<(), String> {
        let (holds, charges) = (self.holds.lock().len(), self.charges.lock().len());
        let wanted = usize::from(end == Status::Completed);
        if (holds, charges) == (wanted, wanted) {
            Ok(())
        } else {
            Err(format!(
                "the service has holds: {holds}, charges: {charges}"
            ))
        }
    }

    fn reserve(&self, saga: SagaId) -> u64 {
        let mut holds = self.holds.lock();
        let number = holds.len() as u64 + 1;
        holds.insert(number, saga);
        number
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    /// Only if the answer of the reservation was heard.
    ByNumber,
    /// Whatever the saga holds.
    BySaga,
}

fn checkout(shop: &Arc<Shop>, release: Release) -> orchestra_saga::Result<Definition> {
    let mut d = Definition::builder("checkout", "1");
    let order = d.input::<Order>();
    let (reserve, free, charge) = (Arc::clone(shop), Arc::clone(shop), Arc::clone(shop));
    let hold = d
        .step("reserve", order, move |call: Call, _: Order| {
            let hold = reserve.reserve(call.saga);
            async move { Ok(hold) }
        })
        .compensate(move |call: Call, _: Order, hold: Option<u64>| {
            let mut holds = free.holds.lock();
            match (release, hold) {
                (Release::BySaga, _) => holds.retain(|_, saga| *saga != call.saga),
                (Release::ByNumber, Some(hold)) => drop(holds.remove(&hold)),
                // Nobody heard the number, so there is nothing to release. Or is there?
                (Release::ByNumber, None) => {}
            }
            async { Ok(()) }
        });
    d.step(
        "charge",
        (order, hold),
        move |_: Call, (order, _): (Order, u64)| {
            charge.charges.lock().push(order.price);
            async { Ok::<(), Failure>(()) }
        },
    )
    .pivot();
    d.build()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let order = Order {
        item: "book".to_owned(),
        price: 120,
    };
    let shop = Arc::new(Shop::default());
    for release in [Release::ByNumber, Release::BySaga] {
        let definition = checkout(&shop, release)?;
        let report = explore(&definition)
            .input(&order)
            .service(|| shop.reset(), |end| shop.check(end))
            .faults(3)
            .run();
        say(&format!("{report}"));
        if let Some(finding) = &report.finding {
            say(&format!("\n{finding}\n\n{}", finding.mermaid()));
        }
        let is_found = report.finding.is_some();
        if is_found != (release == Release::ByNumber) {
            return Err(
                "the explorer does not see the leak, or sees one where there is none".into(),
            );
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "that is what an example is for")]
fn say(text: &str) {
    println!("{text}");
}
