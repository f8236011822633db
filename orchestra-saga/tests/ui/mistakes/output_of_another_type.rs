//! A step that reads what the one before does not return.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn charge(_: Call, hold: u64) -> Result<u64, Failure> {
    Ok(hold)
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    let hold = d.step("reserve", pieces, reserve).read_only();
    d.step("charge", hold, charge).pivot();
}
