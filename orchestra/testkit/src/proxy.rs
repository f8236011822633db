//! A proxy between two sockets that damages what passes, as told.
//!
//! It needs no privilege and works the same for TCP and Unix sockets, in any mix. Bytes are read at
//! once, wait in a queue of limited length until their delay is over, and are then delivered, held,
//! swallowed or answered with a reset, according to the [`Faults`] that are in force **at delivery**.
//!
//! Time is tokio's. In a runtime whose time is paused, waiting for a socket makes time jump, so use
//! real time here.

mod carry;
mod config;
mod faults;
mod listen;
mod socket;
mod traffic;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Endpoint;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use config::Config;
pub use faults::{Accept, Delivery, Faults, Flow};
use listen::Doorway;
use traffic::Counters;
pub use traffic::Traffic;

/// A running proxy.
///
/// Dropping it stops it and cuts its connections; [`Proxy::shutdown`] also waits for that.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Endpoint;
/// use orchestra_testkit::{Faults, Proxy};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let payments = Endpoint::from(upstream.local_addr()?);
/// let proxy = Proxy::start(payments).await?;
/// println!("send requests to {}", proxy.endpoint());
///
/// proxy.set(Faults::latency(Duration::from_millis(20), Duration::from_millis(5))).await?;
/// proxy.set(Faults::partition()).await?; // nothing passes, nothing is lost
/// proxy.set(Faults::none()).await?;      // healed: what was held arrives
///
/// // An outage of 100 ms, while the test does something else.
/// let outage = [(Duration::ZERO, Faults::refuse()), (Duration::from_millis(100), Faults::none())];
/// proxy.play(outage).await?;
/// proxy.shutdown().await;
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    endpoint: Endpoint,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    door: JoinSet<()>,
}

/// What the owner, the listener and the connections share.
#[derive(Debug)]
struct State {
    upstream: Endpoint,
    seed: u64,
    orders: watch::Sender<Order>,
    obeyed: watch::Sender<Obeyed>,
    /// Counts the moments at which all connections were cut.
    cuts: watch::Sender<u64>,
    traffic: Counters,
}

/// The faults asked for; the number tells one order from the next.
#[derive(Debug, Clone, Default)]
struct Order {
    number: u64,
    faults: Faults,
}

/// How far the listener has followed the orders.
#[derive(Debug, Clone, Default)]
struct Obeyed {
    number: u64,
    failure: Option<Arc<io::Error>>,
}

impl Proxy {
    /// Listens and forwards to an upstream, without faults.
    ///
    /// Given an [`Endpoint`], it listens on a free port of 127.0.0.1. The upstream is connected to once
    /// for each connection that is accepted, so it need not be there yet.
    pub async fn start(config: impl Into<Config>) -> io::Result<Self> {
        let config = config.into();
        let door = Doorway::open(&config.listen).await?;
        let endpoint = door.endpoint().clone();
        let state = Arc::new(State {
            upstream: config.upstream,
            seed: config.seed,
            orders: watch::Sender::default(),
            obeyed: watch::Sender::default(),
            cuts: watch::Sender::default(),
            traffic: Counters::default(),
        });
        let (stop, stopped) = watch::channel(false);
        // Subscribed here: an order given before the task first runs is not missed.
        let orders = state.orders.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::serve(door, Arc::clone(&state), orders, stopped));
        Ok(Self {
            endpoint,
            state,
            stop,
            door: tasks,
        })
    }

    /// Where it listens.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Puts faults in force, for the connections that are open and those to come.
    ///
    /// On return the listener follows them: the next connection attempt is refused or accepted
    /// accordingly. Fails if the address cannot be listened on again after a refusal. If the call is
    /// cancelled, the faults still come into force, a moment later.
    pub async fn set(&self, faults: Faults) -> io::Result<()> {
        let cuts = faults.cut_all();
        let mut number = 0;
        self.state.orders.send_modify(|order| {
            order.number += 1;
            number = order.number;
            order.faults = faults;
        });
        if cuts {
            self.reset_connections();
        }
        self.obeyed(number).await
    }

    async fn obeyed(&self, number: u64) -> io::Result<()> {
        let mut obeyed = self.state.obeyed.subscribe();
        let closed = |_| io::Error::from(io::ErrorKind::NotConnected);
        let obeyed = obeyed.wait_for(|at| at.number >= number).await;
        match &obeyed.map_err(closed)?.failure {
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        self.state.orders.borrow().faults.clone()
    }

    /// Puts each step's faults in force so long after the step before; the last ones stay.
    ///
    /// It runs while it is awaited: join it with the work that should go through the faults. Cancelled,
    /// it leaves the step that was in force.
    pub async fn play(
        &self,
        script: impl IntoIterator<Item = (Duration, Faults)>,
    ) -> io::Result<()> {
        for (after, faults) in script {
            tokio::time::sleep(after).await;
            self.set(faults).await?;
        }
        Ok(())
    }

    /// Resets all open connections once; new ones are not affected.
    pub fn reset_connections(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What has passed so far.
    pub fn traffic(&self) -> Traffic {
        self.state.traffic.read()
    }

    /// Stops listening, cuts all connections and waits until that is done.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.door.join_next().await.is_some() {}
    }
}
