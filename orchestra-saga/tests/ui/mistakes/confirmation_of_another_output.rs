//! A confirmation of what the action does not return.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn keep(_: Call, _hold: u64) -> Result<(), Failure> {
    Ok(())
}

async fn release(_: Call, _pieces: u32, _hold: Option<String>) -> Result<(), Failure> {
    Ok(())
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("reserve", pieces, reserve).confirm(keep, release);
}
