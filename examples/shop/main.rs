//! A shop on the platform: six services as processes, every order a saga, things going wrong meanwhile.
//!
//! `cargo run --release --example shop` sells, breaks, repairs and counts; it succeeds only if nothing was
//! lost or doubled. `--serve` keeps the shop open for `curl`.

mod api;
mod audit;
mod catalogue;
mod chaos;
mod checkout;
mod cli;
mod load;
mod participant;
mod platform;
mod report;
mod run;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::layer::SubscriberExt as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match begin(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: cli::Arguments) -> anyhow::Result<ExitCode> {
    log()?;
    let mut builder = if arguments.service {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build()?;
    let code = if arguments.service {
        let environment = participant::Environment::read()?;
        runtime
            .block_on(participant::run(environment))
            .map(|()| ExitCode::SUCCESS)
    } else {
        runtime.block_on(run::run(arguments))
    };
    // Reading standard input blocks a thread that nothing can wake.
    runtime.shutdown_background();
    code
}

/// Warnings and errors as masked JSON lines on standard error; `SHOP_LOG=info` shows more.
fn log() -> anyhow::Result<()> {
    let level = match std::env::var("SHOP_LOG") {
        Ok(level) => level.parse()?,
        Err(_) => tracing::Level::ERROR,
    };
    let layer = orchestra::observe::LogLayer::new(std::io::stderr());
    let filter = tracing_subscriber::filter::LevelFilter::from_level(level);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}
