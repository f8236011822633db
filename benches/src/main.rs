//! Prints our own figures; `benches/run` puts them beside those of the rivals.

use orchestra_benches::measure::Session;
use orchestra_benches::{discovery, mesh, observe, saga};

fn main() {
    let session = Session::of("orchestra");
    match std::env::args().nth(1).as_deref() {
        Some("discovery") => discovery::figures(&session),
        Some("mesh") => mesh::figures(&session),
        Some("observe") => observe::figures(&session),
        Some("saga") => saga::figures(&session),
        _ => {
            eprintln!("usage: figures discovery|mesh|observe|saga [--quick]");
            std::process::exit(2);
        }
    }
}
