//! One run: open, sell and break, count, close.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use orchestra::saga::{Filter, Status};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::api;
use crate::audit::Books;
use crate::chaos::{self, Repair};
use crate::cli::Arguments;
use crate::load::{self, Driven};
use crate::platform::{Plan, Platform};
use crate::report::Report;

/// Orders per second while things go wrong: slow enough that a frozen replica's lease lapses meanwhile.
const PACE: f64 = 250.0;
/// The share of the orders that is driven as fast as the customers can, after the repairs.
const RUSH: u64 = 4;
const CUSTOMERS: usize = 32;

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let temporary;
    let data: PathBuf = match &arguments.data {
        Some(data) => data.clone(),
        None => {
            temporary = tempfile::Builder::new().prefix("shop-data-").tempdir()?;
            temporary.path().to_owned()
        }
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let replicas = arguments.replicas.iter().cloned().collect();
    let plan = Plan {
        data,
        port: arguments.port,
        seed,
        replicas,
    };
    let begin = Instant::now();
    let platform = Platform::start(plan).await?;
    println!("gateway http://{}", platform.gateway);
    println!("data    {}", platform.data().display());
    println!("seed    {seed}");
    let work = async {
        healthy(&platform).await?;
        if arguments.serve {
            println!("ready");
            std::future::pending().await
        } else {
            sell(&platform, &arguments, seed, begin).await
        }
    };
    let result = tokio::select! {
        result = work => result,
        asked = asked_to_stop() => asked.map(|()| match arguments.serve {
            true => ExitCode::SUCCESS,
            // As a shell reports a program that ended at Ctrl-C.
            false => ExitCode::from(130),
        }),
    };
    platform.shutdown().await?;
    result
}

/// Waits until every wanted replica serves, and shows how far it is.
async fn healthy(platform: &Platform) -> anyhow::Result<()> {
    let (_, wanted) = platform.ready()?;
    let bar = progress("starting", wanted as u64)?;
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let (ready, wanted) = platform.ready()?;
        bar.set_position(ready as u64);
        if ready == wanted {
            bar.finish_and_clear();
            println!(
                "healthy {ready} replicas of {} services",
                crate::platform::SERVICES.len()
            );
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < limit,
            "only {ready} of {wanted} replicas became ready"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        asked = tokio::signal::ctrl_c() => asked?,
        _ = terminate.recv() => {}
    }
    println!("closing");
    Ok(())
}

async fn sell(
    platform: &Platform,
    arguments: &Arguments,
    seed: u64,
    begin: Instant,
) -> anyhow::Result<ExitCode> {
    let orders = arguments.orders;
    let rush = orders / RUSH;
    let plan = load::Plan {
        gateway: platform.gateway,
        seed,
        first: fastrand::u64(..1 << 40),
        orders: orders - rush,
        customers: CUSTOMERS,
        rate: Some(PACE),
        acknowledged: platform.data().join("acknowledged"),
        patience: Duration::from_secs(30),
    };
    let fast = load::Plan {
        first: plan.first + plan.orders,
        orders: rush,
        rate: None,
        ..plan.clone()
    };

    let done = Arc::new(AtomicU64::new(0));
    let bar = progress("orders", orders)?;
    let mut showing = tokio::task::JoinSet::new();
    showing.spawn(show(bar.clone(), Arc::clone(&done)));
    let mut rng = fastrand::Rng::with_seed(seed);
    let calm = plan.orders;
    let (paced, repairs) = tokio::join!(
        load::drive(plan, Arc::clone(&done)),
        chaos::strike(platform, &done, calm, &mut rng),
    );
    let (paced, repairs) = (paced?, repairs?);
    let rushed = load::drive(fast, Arc::clone(&done)).await?;
    showing.shutdown().await;
    bar.finish_and_clear();
    at_rest(platform).await?;

    let report = count(platform, &paced, &rushed, &repairs, begin).await?;
    print!("{}", report.render());
    let holds = report.holds();
    println!(
        "{}",
        if holds {
            "everything holds"
        } else {
            "SOMETHING DOES NOT HOLD"
        }
    );
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn show(bar: ProgressBar, done: Arc<AtomicU64>) {
    loop {
        bar.set_position(done.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn progress(what: &'static str, length: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:9} {bar:40} {pos}/{len} {elapsed}")?;
    Ok(ProgressBar::new(length)
        .with_style(style)
        .with_message(what))
}

/// Waits until no saga is under way: all have ended or are parked.
async fn at_rest(platform: &Platform) -> anyhow::Result<()> {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let mut open = 0;
        for status in [Status::Started, Status::Compensating] {
            open += platform.sagas()?.list(&Filter::of(status)).await?.len();
        }
        if open == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < limit,
            "{open} orders do not come to an end"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ids(platform: &Platform, status: Status) -> anyhow::Result<BTreeSet<String>> {
    let found = api::all(platform.sagas()?, Filter::of(status), usize::MAX).await?;
    Ok(found
        .into_iter()
        .map(|summary| summary.saga.to_string())
        .collect())
}

async fn count(
    platform: &Platform,
    paced: &Driven,
    rushed: &Driven,
    repairs: &[Repair],
    begin: Instant,
) -> anyhow::Result<Report> {
    let completed = ids(platform, Status::Completed).await?;
    let compensated = ids(platform, Status::Compensated).await?;
    let parked = ids(platform, Status::Parked).await?;
    let acknowledged = std::fs::read_to_string(platform.data().join("acknowledged"))
        .context("the file of acknowledged orders cannot be read")?;
    let acknowledged: BTreeSet<String> = acknowledged.lines().map(str::to_owned).collect();
    let ended =
        |id: &&String| completed.contains(*id) || compensated.contains(*id) || parked.contains(*id);
    let lost = acknowledged.iter().filter(|id| !ended(id)).count();
    let books = Books::read(platform.data())?;
    let contradictions = books.contradictions(&completed, &compensated);
    let unknown = platform.watched.unknown();
    let resolved = unknown
        .iter()
        .filter(|id| completed.contains(*id) || compensated.contains(*id));
    let (unknown, resolved) = (unknown.len(), resolved.count());

    let mut report = Report::default();
    let driven = (paced.latencies.len() + rushed.latencies.len()) as u64;
    let answered = paced.acknowledged + rushed.acknowledged;
    report.check(
        "orders driven and acknowledged",
        format!("{driven}, {answered}"),
        driven == answered && driven >= 2_000,
    );
    report.note("orders completed", completed.len());
    report.check(
        "orders compensated",
        compensated.len(),
        compensated.len() >= 100,
    );
    report.note("orders parked", parked.len());
    report.check("acknowledged and lost", lost, lost == 0);
    report.check(
        "orders with half an effect",
        contradictions.len(),
        contradictions.is_empty(),
    );
    report.check(
        "pieces: now, before",
        format!("{:?}", books.pieces),
        books.goods_conserved(),
    );
    report.check(
        "cents: now, before",
        format!("{:?}", books.cents),
        books.money_conserved(),
    );
    report.check(
        "orders with an outcome unknown at first, resolved",
        format!("{unknown}, {resolved}"),
        unknown >= 1 && unknown == resolved,
    );
    let lapsed = platform.watched.lapsed.load(Ordering::Relaxed);
    report.check(
        "instances fenced when their lease lapsed",
        lapsed,
        lapsed >= 1,
    );
    for repair in repairs {
        let what = format!(
            "{} of {} to its replacement serving",
            repair.what, repair.instance
        );
        report.note(&what, format!("{:.1?}", repair.took));
    }
    for (what, driven) in [("while it was repaired", paced), ("in a rush", rushed)] {
        let figures = format!(
            "{:.0} orders/s, p50 {:.1?}, p99 {:.1?}",
            per_second(driven),
            percentile(driven, 0.5),
            percentile(driven, 0.99),
        );
        report.note(&format!("orders {what}"), figures);
    }
    report.note("time", format!("{:.1?}", begin.elapsed()));
    Ok(report)
}

fn percentile(driven: &Driven, share: f64) -> Duration {
    let mut sorted = driven.latencies.clone();
    sorted.sort();
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or_default()
}

fn per_second(driven: &Driven) -> f64 {
    driven.latencies.len() as f64 / driven.elapsed.as_secs_f64().max(1e-9)
}
