//! Prints our own figures of memory. Its allocator counts, which takes a little time: those of time come from
//! `figures`.

use orchestra_benches::measure::Session;
use orchestra_benches::{discovery, saga};
use orchestra_testkit::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let session = Session::of("orchestra");
    match std::env::args().nth(1).as_deref() {
        Some("discovery") => discovery::footprint::figures(&session),
        Some("saga") => saga::footprint::figures(&session),
        _ => {
            eprintln!("usage: footprint discovery|saga [--quick]");
            std::process::exit(2);
        }
    }
}
