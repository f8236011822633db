mod case;
mod cli;
mod figures;
mod policy;
mod server;
mod simulation;

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    let arguments = cli::Arguments::parse();
    let mut pace = if arguments.quick { case::Pace::QUICK } else { case::Pace::FULL }; if let Ok(x) = std::env::var("SETTLE") { pace.settles = std::time::Duration::from_millis(x.parse()?); pace.measured = std::time::Duration::from_secs(5); }
    for case in case::ALL {
        for policy in policy::ALL.iter().filter(|p| p.name.contains(&arguments.policy)) {
            for seed in 1..=(if arguments.quick {1} else {arguments.seeds}) {
                let setup = simulation::Setup { case, policy: *policy, pace, seed, clients: arguments.clients as usize };
                let began = std::time::Instant::now();
                let f = simulation::run(&setup)?;
                println!("{:12} {:28} {seed} p50 {:6.1} p99 {:6.1} p99.9 {:6.1} err {:7.4}% faulty {:7.4}% back {:?} ({:.1}s)", case.name, policy.name,
                    f.quantile(0.5), f.quantile(0.99), f.quantile(0.999), f.error_share()*100., f.faulty_share(&pace)*100., f.back_after(&case,&pace), began.elapsed().as_secs_f64());
            }
        }
    }
    Ok(())
}
