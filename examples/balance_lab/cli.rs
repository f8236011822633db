//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Runs of each policy and case unless the command line says otherwise.
const SEEDS: u32 = 3;

/// Balancers compared on servers that are slow, fail or die, in virtual time.
///
/// It fails if the default misses its targets.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Arguments {
    /// Shorter runs, and fewer of them.
    #[arg(long)]
    pub quick: bool,
    /// Runs of each policy and case, each from a seed of its own [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: Option<u32>,
    /// The first seed: the same seeds give the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes that share the load, each with a resolver that knows of its own calls alone.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub clients: u16,
    /// Only policies whose names contain this.
    #[arg(long, value_name = "PART", default_value = "")]
    pub policy: String,
    /// Draws the latencies of the slow tenth into this file.
    #[arg(long, value_name = "PATH")]
    pub svg: Option<PathBuf>,
}

impl Arguments {
    /// The seed of each run.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let first = self.seed;
        let default = if self.quick { 1 } else { SEEDS };
        let number = self.seeds.unwrap_or(default);
        (0..number).map(move |index| first.wrapping_add(u64::from(index)))
    }
}
