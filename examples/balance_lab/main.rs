//! A laboratory for balancers: real resolvers, simulated servers, virtual time.
//!
//! `cargo run --release --example balance_lab` compares the balancers of the crate where servers are slow, fail
//! or die; it succeeds only if the default meets its targets. `--quick` takes seconds, `--svg` draws.

mod case;
mod cli;
mod drawing;
mod figures;
mod policy;
mod server;
mod simulation;
mod summary;
mod target;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::case::Pace;
use crate::cli::Arguments;
use crate::policy::Policy;
use crate::simulation::Setup;
use crate::summary::Summary;
use crate::target::Verdict;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let summaries = compare(arguments)?;
    if let Some(path) = &arguments.svg {
        draw(&summaries, path)?;
    }
    Ok(conclude(&Verdict::of(&summaries)))
}

/// Runs each policy in each case, and prints as it goes.
fn compare(arguments: &Arguments) -> anyhow::Result<Vec<Summary>> {
    let pace = if arguments.quick {
        Pace::QUICK
    } else {
        Pace::FULL
    };
    let is_asked_for = |policy: &&Policy| policy.name.contains(&arguments.policy);
    let policies: Vec<_> = policy::ALL.iter().filter(is_asked_for).collect();
    anyhow::ensure!(
        !policies.is_empty(),
        "no policy's name contains {:?}",
        arguments.policy
    );
    let seeds: Vec<_> = arguments.seeds().collect();
    println!("The worst of each figure over the seeds {seeds:?}.");
    let mut summaries = Vec::new();
    for case in case::ALL {
        println!("{}", summary::heading(&case));
        for &&policy in &policies {
            let mut summary = Summary::new(case, policy);
            for &seed in &seeds {
                let figures = simulation::run(&Setup {
                    case,
                    policy,
                    pace,
                    seed,
                    clients: arguments.clients,
                })?;
                summary.add(&figures, &pace);
            }
            println!("{}", summary.line());
            summaries.push(summary);
        }
    }
    Ok(summaries)
}

fn draw(summaries: &[Summary], path: &Path) -> anyhow::Result<()> {
    let case = case::SLOW_TENTH;
    let of_case = |summary: &&Summary| summary.case.name == case.name;
    let drawn: Vec<_> = summaries.iter().filter(of_case).collect();
    let title = format!("Latency where {} (logarithmic scale)", case.about);
    let svg = drawing::latencies(&title, &drawn)?;
    fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nDrawn into {}.", path.display());
    Ok(())
}

fn conclude(verdict: &Verdict) -> ExitCode {
    let Verdict { checked, missed } = verdict;
    println!();
    if *checked == 0 {
        println!("The default was not run: no target was checked.");
        return ExitCode::SUCCESS;
    }
    if missed.is_empty() {
        println!("The default meets all {checked} targets.");
        return ExitCode::SUCCESS;
    }
    eprintln!("The default misses {} of {checked} targets:", missed.len());
    for miss in missed {
        eprintln!("  {miss}");
    }
    ExitCode::FAILURE
}
