//! A step that reads one that comes after it.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn charge(_: Call, hold: String) -> Result<String, Failure> {
    Ok(hold)
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("charge", hold, charge).read_only();
    let hold = d.step("reserve", pieces, reserve).read_only();
}
