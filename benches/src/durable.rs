//! Prints our own figures that wait for a disk.

use orchestra_benches::measure::Session;
use orchestra_benches::saga;

fn main() {
    let session = Session::of("orchestra");
    if std::env::args().nth(1).as_deref() != Some("saga") {
        eprintln!("usage: durable saga [--quick]");
        std::process::exit(2);
    }
    saga::durable::figures(&session);
}
