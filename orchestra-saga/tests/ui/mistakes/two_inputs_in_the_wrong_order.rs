//! A step that takes its inputs for one another.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn charge(_: Call, (hold, _pieces): (String, u32)) -> Result<String, Failure> {
    Ok(hold)
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    let hold = d.step("reserve", pieces, reserve).read_only();
    d.step("charge", (pieces, hold), charge).pivot();
}
