//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Balancers compared on servers that are slow, fail or die, in virtual time.
///
/// It fails if the default misses its targets.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Arguments {
    /// Fewer calls and one seed.
    #[arg(long)]
    pub quick: bool,
    /// Runs of each policy and case, each from a seed of its own.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// The first seed: the same seeds give the same figures.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Processes that share the load, each with a resolver that knows of its own calls alone.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub clients: u64,
    /// Only policies whose names contain this.
    #[arg(long, default_value = "")]
    pub policy: String,
    /// Draws the figures into this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}
