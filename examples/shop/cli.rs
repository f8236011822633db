//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// A platform of six services as processes: sold from, killed and repaired.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Arguments {
    /// Keep running and serve until Ctrl-C.
    #[arg(long)]
    pub serve: bool,
    /// Where the databases live; a temporary directory unless given. Given again, unfinished orders go on.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Port of the gateway on 127.0.0.1; 0 takes any free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Orders that the run drives.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(2_000..=1_000_000))]
    pub orders: u64,
    /// Seed of orders and kills; random unless given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Replicas of one service, for example `payment=0`; 2 of each unless said.
    #[arg(long, value_name = "SERVICE=N", value_parser = replicas)]
    pub replicas: Vec<(String, u32)>,
    /// Run as one of the services; the platform starts them so.
    #[arg(long, hide = true)]
    pub service: bool,
}

fn replicas(text: &str) -> Result<(String, u32), String> {
    let (service, count) = text.split_once('=').ok_or("expected SERVICE=N")?;
    if !crate::platform::SERVICES.contains(&service) {
        return Err(format!(
            "no service {service:?}; there are {}",
            crate::platform::SERVICES.join(", ")
        ));
    }
    let count = count
        .parse()
        .map_err(|error| format!("{count:?}: {error}"))?;
    if count > 8 {
        Err("at most 8 replicas".to_owned())
    } else {
        Ok((service.to_owned(), count))
    }
}
