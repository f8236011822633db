//! What the mistakes beside it get wrong, done right.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

async fn release(_: Call, _pieces: u32, _hold: Option<String>) -> Result<(), Failure> {
    Ok(())
}

async fn keep(_: Call, _hold: String) -> Result<(), Failure> {
    Ok(())
}

async fn charge(_: Call, (_pieces, _hold): (u32, String)) -> Result<(), Failure> {
    Ok(())
}

pub(crate) fn main() -> orchestra_saga::Result<()> {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    let hold = d.step("reserve", pieces, reserve).compensate(release);
    let other = d
        .step("another", pieces, reserve)
        .after(hold)
        .confirm(keep, release);
    d.step("charge", (pieces, other), charge)
        .after(hold)
        .pivot();
    d.build().map(drop)
}
