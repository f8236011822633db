//! A step that is tried until it is done, and undone.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn release(_: Call, _pieces: u32, _hold: Option<String>) -> Result<(), Failure> {
    Ok(())
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("reserve", pieces, reserve).retriable().compensate(release);
}
