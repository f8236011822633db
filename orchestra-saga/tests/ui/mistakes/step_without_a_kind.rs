//! A step whose kind is not said, which would not be part of the saga.

#![deny(unused_must_use)]

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, pieces: u32) -> Result<String, Failure> {
    Ok(format!("{pieces} pieces"))
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("reserve", pieces, reserve);
}
