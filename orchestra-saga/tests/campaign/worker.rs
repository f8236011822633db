//! A worker: starts sagas, lets them be approved, cancelled, paused and resumed, and dies.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::IdempotencyKey;
use orchestra_saga::executor::Builder;
use orchestra_saga::{
    Config, Executor, Filter, Notice, Operator, Result, SagaId, Start, Status, Summary,
};
use serde::{Deserialize, Serialize};

use crate::child;
use crate::client::Client;
use crate::fuse::{Armed, Fuse};
use crate::fused::Fused;
use crate::ledger;
use crate::sagas::{self, APPROVAL, APPROVED, Order, Whim};
use crate::store::{Kind, Opened};

/// How long a worker has a partition without renewing its lease.
#[cfg(feature = "postgres")]
pub(crate) const TERM: Duration = Duration::from_millis(300);
/// How often a worker looks for what it might do to a saga.
const LOOK: Duration = Duration::from_millis(15);
/// How many sagas run in a worker at most.
const WINDOW: usize = 12;

/// What a worker is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) kind: Kind,
    pub(crate) directory: PathBuf,
    /// Whose starts these are: a worker that is started again goes on with the starts of the one before.
    pub(crate) slot: u64,
    pub(crate) task: Task,
    pub(crate) armed: Option<Armed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// To start sagas from this number on.
    Start(u64),
    /// To let those that are there end.
    Finish,
}

/// The key of a start.
pub(crate) fn key(slot: u64, number: u64) -> IdempotencyKey {
    IdempotencyKey::new(format!("{slot}-{number}")).expect("valid")
}

/// An executor, or several.
#[derive(Clone)]
enum Host {
    Alone(Executor),
    #[cfg(feature = "postgres")]
    Shared(orchestra_saga::Fleet),
}

pub(crate) async fn run() {
    let orders: Orders = child::orders();
    let fuse = Arc::new(Fuse::new(orders.armed.clone()));
    let client = Client {
        socket: Arc::new(ledger::socket(&orders.directory)),
        fuse: Arc::clone(&fuse),
    };
    let opened = Opened::open(orders.kind, &orders.directory);
    let opened = opened.await.expect("opened");
    let store = opened.store();
    let mut config = Config::default();
    config.persistence.snapshot_every = 2;
    let builder = Executor::builder(Fused { store, fuse })
        .definition(sagas::transfer(&client))
        .definition(sagas::approval(&client))
        .owner(format!("worker {}", std::process::id()))
        .poll(Duration::from_millis(10))
        .config(config)
        .listener(|notice: &Notice<'_>| match notice {
            Notice::Unrecoverable { saga, error } => {
                println!("unrecoverable {saga}: {error}");
                std::process::abort();
            }
            Notice::Fenced { error } => println!("fenced off: {error}"),
            _ => {}
        });
    let host = Host::begin(orders.kind, builder).await;
    match orders.task {
        Task::Start(first) => {
            let started = start_for_ever(&host, orders.slot, first);
            tokio::join!(started, shepherd(&host, |_| false));
        }
        Task::Finish => {
            shepherd(&host, |open| open == 0).await;
            host.shutdown().await;
            opened.close().await;
            println!("finished");
        }
    }
}

#[cfg_attr(
    not(feature = "postgres"),
    expect(
        unused_variables,
        clippy::unnecessary_wraps,
        clippy::unused_async,
        reason = "every store has one owner then"
    )
)]
impl Host {
    async fn begin(kind: Kind, builder: Builder) -> Self {
        #[cfg(feature = "postgres")]
        if kind.is_shared() {
            let shares = orchestra_saga::fleet::Shares::new(6.try_into().expect("six"), TERM);
            let fleet = builder.fleet(shares).expect("valid");
            fleet.ready().await;
            return Self::Shared(fleet);
        }
        Self::Alone(builder.build().await.expect("built"))
    }

    fn any(&self) -> Result<Executor> {
        match self {
            Self::Alone(executor) => Ok(executor.clone()),
            #[cfg(feature = "postgres")]
            Self::Shared(fleet) => fleet.any(),
        }
    }

    async fn of(&self, saga: SagaId) -> Result<Option<Executor>> {
        match self {
            Self::Alone(executor) => Ok(Some(executor.clone())),
            #[cfg(feature = "postgres")]
            Self::Shared(fleet) => fleet.executor_of(saga).await,
        }
    }

    async fn shutdown(&self) {
        match self {
            Self::Alone(executor) => executor.shutdown().await,
            #[cfg(feature = "postgres")]
            Self::Shared(fleet) => fleet.shutdown().await,
        }
    }
}

async fn start_for_ever(host: &Host, slot: u64, first: u64) {
    let mut recent = VecDeque::new();
    for number in first.. {
        let order = Order::of(number);
        let saga = loop {
            match start(host, slot, &order).await {
                Ok(saga) => break saga,
                // Without a partition, for the moment.
                Err(error) => complain(&error),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        println!("started {number} {saga}");
        if let Err(error) = disturb(host, saga, order.whim).await {
            complain(&error);
        }
        recent.push_back((saga, order.whim));
        if recent.len() > 24
            && let Some((saga, Whim::Revoked)) = recent.pop_front()
            && let Ok(Some(executor)) = host.of(saga).await
        {
            // Too early, or too late: both are fine.
            drop(executor.revoke(saga, "second thoughts").await);
        }
        let mut pause = Duration::from_millis(2);
        while host.any().is_ok_and(|executor| executor.running() > WINDOW) {
            tokio::time::sleep(pause).await;
            pause = Duration::from_millis(1);
        }
        tokio::time::sleep(pause / 2).await;
    }
}

fn complain(error: &orchestra_saga::Error) {
    eprintln!("worker {}: {error}", std::process::id());
}

async fn start(host: &Host, slot: u64, order: &Order) -> Result<SagaId> {
    let executor = host.any()?;
    let key = key(slot, order.number);
    let known = executor.find(&key).await?;
    let start = Start::of(order.definition()).key(key).input(order)?;
    let saga = executor.start(start).await?;
    if let Some(known) = known {
        assert_eq!(known, saga, "the start of {order:?}");
    }
    Ok(saga)
}

async fn disturb(host: &Host, saga: SagaId, whim: Whim) -> Result<()> {
    if !matches!(whim, Whim::Cancelled | Whim::Paused) {
        return Ok(());
    }
    let Some(executor) = host.of(saga).await? else {
        return Ok(());
    };
    if whim == Whim::Cancelled {
        let _too_late_is_fine = executor.cancel(saga, "changed my mind").await?;
    } else {
        executor.pause(saga, operator()).await?;
    }
    Ok(())
}

fn operator() -> Operator {
    Operator::new("campaign", "to see what happens")
}

/// Approves, resumes and retries, until so many open sagas are enough.
async fn shepherd(host: &Host, enough: impl Fn(usize) -> bool) {
    loop {
        tokio::time::sleep(LOOK).await;
        match look(host).await {
            Ok(open) if enough(open) => return,
            Ok(_) => {}
            Err(error) => complain(&error),
        }
    }
}

async fn look(host: &Host) -> Result<usize> {
    let executor = host.any()?;
    let open = executor.list(&Filter::open().limit(500)).await?;
    for summary in &open {
        // Ended meanwhile, or fenced off: the next look shows.
        drop(tend(host, summary).await);
    }
    Ok(open.len())
}

async fn tend(host: &Host, summary: &Summary) -> Result<()> {
    let saga = summary.saga;
    let draw = saga.to_bytes()[15];
    let waits = summary.status == Status::Started && &*summary.definition == APPROVAL;
    match summary.status {
        Status::Paused => {}
        Status::Parked if draw.is_multiple_of(2) => {}
        _ if waits => {}
        _ => return Ok(()),
    }
    let Some(executor) = host.of(saga).await? else {
        return Ok(());
    };
    match summary.status {
        Status::Paused => {
            executor.resume(saga, operator()).await?;
        }
        Status::Parked => {
            executor.retry(saga, operator()).await?;
        }
        _ => {
            let view = executor.status(saga).await?;
            let order: Order = view.input.read().expect("an order");
            if order.whim != Whim::Unapproved {
                let signal = executor.signal(saga, APPROVED, None, &order.number);
                let _early_is_fine = signal.await?;
            }
        }
    }
    Ok(())
}
