//! A step that reads a number as a text.

use orchestra_saga::{Call, Definition, Failure};

async fn reserve(_: Call, item: String) -> Result<String, Failure> {
    Ok(item)
}

fn main() {
    let mut d = Definition::builder("checkout", "1");
    let pieces = d.input::<u32>();
    d.step("reserve", pieces, reserve).read_only();
}
