//! Prints our own figures of memory. Its allocator counts, which takes a little time: those of time come from
//! `figures`.

use orchestra_benches::discovery;
use orchestra_benches::measure::Session;
use orchestra_testkit::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() {
    let session = Session::of("orchestra");
    if std::env::args().nth(1).as_deref() != Some("discovery") {
        eprintln!("usage: footprint discovery [--quick]");
        std::process::exit(2);
    }
    discovery::footprint::figures(&session);
}
