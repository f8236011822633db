//! A step whose input is a value, and one whose input is the name of a step.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn charge(_: Call, (_pieces, hold): (u32, String)) -> Result<String, Failure> {
    Ok(hold)
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("reserve", 7_u32, reserve).read_only();
    d.step("charge", (pieces, "reserve"), charge).read_only();
}
