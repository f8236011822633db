//! What goes wrong while customers buy: a payment and an order replica are killed, a payment replica is
//! frozen until its lease lapses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use orchestra::core::{InstanceId, ServiceName};
use orchestra::discovery::Resolver;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::Instant;

use crate::platform::Platform;

/// What was done to whom, and how long it took until another one served in its place.
pub struct Repair {
    pub what: &'static str,
    pub instance: InstanceId,
    pub took: Duration,
}

/// How long a strike or a repair may take.
const LONGEST: Duration = Duration::from_secs(30);

/// Strikes at a fifth, two fifths and three fifths of the orders.
pub async fn strike(
    platform: &Platform,
    progress: &Arc<AtomicU64>,
    orders: u64,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Vec<Repair>> {
    let strikes = [
        ("kill -9", "payment", Signal::KILL),
        ("kill -9", "order", Signal::KILL),
        ("SIGSTOP", "payment", Signal::STOP),
    ];
    let mut repairs = Vec::new();
    for (number, (what, service, signal)) in (1..).zip(strikes) {
        while progress.load(Ordering::Relaxed) < orders * number / 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        repairs.push(hit(platform, what, service, signal, rng).await?);
    }
    Ok(repairs)
}

async fn hit(
    platform: &Platform,
    what: &'static str,
    service: &str,
    signal: Signal,
    rng: &mut fastrand::Rng,
) -> anyhow::Result<Repair> {
    let service = ServiceName::new(service)?;
    let status = platform
        .scheduler()?
        .until(|status| status.ready(&service) == 2)
        .await?;
    let workload = status
        .workload(&service)
        .context("the service is not wanted")?;
    let seats = workload
        .instances
        .iter()
        .filter_map(|seat| Some((seat.id.clone()?, seat.pid?)));
    let mut seats: Vec<_> = seats.collect();
    rng.shuffle(&mut seats);
    let resolver = platform.orchestra.resolver(service.as_str())?;
    let struck = tokio::time::timeout(LONGEST, strike_busy(&resolver, &seats, signal));
    let (instance, begin) = struck
        .await
        .with_context(|| format!("{service} has nothing to do"))??;
    let ready = tokio::time::timeout(LONGEST, platform.watched.replaced(&instance));
    let ready = ready
        .await
        .with_context(|| format!("{instance} was not replaced"))?;
    let took = ready.context("the scheduler ended")?.duration_since(begin);
    Ok(Repair {
        what,
        instance,
        took,
    })
}

/// Strikes an instance while it has a call in hand: who called it will not know what became of the call.
async fn strike_busy(
    resolver: &Resolver,
    seats: &[(InstanceId, u32)],
    signal: Signal,
) -> anyhow::Result<(InstanceId, Instant)> {
    let is_busy =
        |instance: &InstanceId| resolver.in_flight(instance).is_some_and(|calls| calls > 0);
    loop {
        for (instance, pid) in seats.iter().filter(|(instance, _)| is_busy(instance)) {
            let pid = Pid::from_raw(i32::try_from(*pid)?).context("the process id is zero")?;
            let begin = Instant::now();
            kill_process_group(pid, signal)?;
            if signal != Signal::STOP {
                return Ok((instance.clone(), begin));
            }
            // A frozen process finishes nothing: what is in hand now stays in hand.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if is_busy(instance) {
                return Ok((instance.clone(), begin));
            }
            kill_process_group(pid, Signal::CONT)?;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
