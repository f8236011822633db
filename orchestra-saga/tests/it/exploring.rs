//! The explorer: on every small graph, on every feature of definitions, on closures, and on mutants.

mod campaign;
mod closures;
mod features;
mod graphs;
mod mutants;
