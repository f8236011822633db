//! A step after a name, which need not be that of a step.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("reserve", pieces, reserve).after("pack").read_only();
}
