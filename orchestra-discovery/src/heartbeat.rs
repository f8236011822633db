//! Keeping one registration alive.
//!
//! The lease is renewed every third of its ttl, so two renewals may fail before it lapses. A lease that
//! lapsed is registered anew; one that was *replaced* is not, since the id belongs to another process then:
//! the heartbeat ends, and [`Heartbeat::ended`] tells. Only where a registration of its own got no answer, and so
//! may have arrived late, a lease that is replaced before its first renewal is registered anew.

mod pulse;

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Listener;
use tokio::sync::watch;

use self::pulse::{Act, Next, Pulse};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::instance::{Registration, Status};
use crate::registry::{Lease, Registry};
use crate::task::{Stop, Task};

/// What a [`Heartbeat`] is connected to.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Event, heartbeat::Config};
///
/// let config = Config::default().seed(7).listener(Arc::new(|event: &Event| println!("{event:?}")));
/// assert_eq!(config.seed, Some(7));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// The seed of the jitter; from the system's entropy when absent.
    pub seed: Option<u64>,
    events: Events,
}

impl Config {
    /// Draws the jitter from this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Tells this listener.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}

#[derive(Debug, Clone)]
enum Standing {
    Seeking,
    Held(Lease),
    Ended(ErrorKind, String),
}

/// How a [drain](Heartbeat::drain) ended.
///
/// ```
/// use orchestra_discovery::heartbeat::Drained;
///
/// fn exit_code(drained: Drained) -> u8 {
///     u8::from(drained == Drained::Overdue)
/// }
/// # assert_eq!(exit_code(Drained::Finished), 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Drained {
    /// What was in flight has finished.
    Finished,
    /// It had not when the deadline passed.
    Overdue,
}

/// Registers an instance and renews its lease until it is shut down.
///
/// Dropped without [`Heartbeat::shutdown`] it stops at once, and the lease lapses by itself.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::{Heartbeat, MemoryRegistry, Registration, heartbeat::Config};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Arc::new(MemoryRegistry::default());
/// let asked = Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "unix:/run/o1.sock".parse()?, Duration::from_secs(5),
/// );
/// let heartbeat = Heartbeat::start(registry, asked, Config::default());
/// let lease = heartbeat.registered().await?;
/// assert_eq!(lease.id.as_str(), "orders-1");
/// heartbeat.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Heartbeat {
    standing: watch::Receiver<Standing>,
    status: watch::Sender<Status>,
    confirmed: watch::Receiver<Status>,
    task: Task<Result<()>>,
}

impl Heartbeat {
    /// Begins at once, on the tokio runtime of the caller.
    pub fn start(registry: Arc<dyn Registry>, registration: Registration, config: Config) -> Self {
        let (sender, standing) = watch::channel(Standing::Seeking);
        let status = watch::Sender::new(registration.status);
        let wanted = status.subscribe();
        let (confirm, confirmed) = watch::channel(registration.status);
        let task = Task::spawn(|stop| {
            let driver = Driver {
                pulse: Pulse::new(registration.ttl),
                confirmed: confirm,
                in_doubt: false,
                registry,
                registration,
                standing: sender,
                wanted,
                rng: config
                    .seed
                    .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
                events: config.events,
            };
            driver.run(stop)
        });
        Self {
            standing,
            status,
            confirmed,
            task,
        }
    }

    /// Waits for the first registration, or for its final refusal.
    pub async fn registered(&self) -> Result<Lease> {
        let mut standing = self.standing.clone();
        let settled = |standing: &Standing| !matches!(standing, Standing::Seeking);
        match standing.wait_for(settled).await.as_deref() {
            Ok(Standing::Held(lease)) => Ok(lease.clone()),
            Ok(Standing::Ended(kind, message)) => Err(Error::new(*kind, message.clone())),
            Ok(Standing::Seeking) | Err(_) => Err(closed()),
        }
    }

    /// The lease that is held now, as far as is known.
    pub fn lease(&self) -> Option<Lease> {
        match &*self.standing.borrow() {
            Standing::Held(lease) => Some(lease.clone()),
            Standing::Seeking | Standing::Ended(..) => None,
        }
    }

    /// Waits until the heartbeat gives up: its id was registered by another, or it was never let in.
    pub async fn ended(&self) -> Error {
        let mut standing = self.standing.clone();
        let ended = |standing: &Standing| matches!(standing, Standing::Ended(..));
        match standing.wait_for(ended).await.as_deref() {
            Ok(Standing::Ended(kind, message)) => Error::new(*kind, message.clone()),
            Ok(_) | Err(_) => closed(),
        }
    }

    /// Changes what the instance says of itself, now and in later registrations.
    pub fn set_status(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Leaves in order: takes no new calls, lets those in flight finish, gives the lease back.
    ///
    /// First the registry is told [`Draining`](Status::Draining), again and again if it does not answer. Once
    /// it knows, `in_flight_done` is waited for: polled any earlier it could find the instance idle while calls
    /// are still sent to it. Then the lease, renewed until now, is given back as by [`Heartbeat::shutdown`].
    ///
    /// Both waits together take `deadline` at most; the whole takes up to the ttl longer, if the
    /// registry does not answer. Who watches the registry hears of it a little later than it is told: let
    /// `in_flight_done` last for that long at least. Fails with the error of the last step, and the lease
    /// lapses by itself then. Dropped half way, it stops renewing at once, and the instance is listed as
    /// draining until its lease lapses.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use orchestra_discovery::{Heartbeat, MemoryRegistry, Registration, heartbeat};
    /// use orchestra_discovery::heartbeat::Drained;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let registry = Arc::new(MemoryRegistry::default());
    /// # let asked = Registration::new(
    /// #     "orders".parse()?, "orders-1".parse()?, "10.0.0.7:80".parse()?, Duration::from_secs(5),
    /// # );
    /// let heartbeat = Heartbeat::start(registry, asked, heartbeat::Config::default());
    /// let idle = async { /* the server's own graceful shutdown */ };
    /// let drained = heartbeat.drain(idle, Duration::from_secs(30)).await?;
    /// assert_eq!(drained, Drained::Finished);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain(
        self,
        in_flight_done: impl Future<Output = ()>,
        deadline: Duration,
    ) -> Result<Drained> {
        self.set_status(Status::Draining);
        let finished = async {
            self.announced().await;
            in_flight_done.await;
        };
        let drained = match tokio::time::timeout(deadline, finished).await {
            Ok(()) => Drained::Finished,
            Err(_passed) => Drained::Overdue,
        };
        self.shutdown().await?;
        Ok(drained)
    }

    /// Waits until nobody is told any more to call this instance.
    async fn announced(&self) {
        let (mut confirmed, mut standing) = (self.confirmed.clone(), self.standing.clone());
        let ended = |standing: &Standing| matches!(standing, Standing::Ended(..));
        // A sender that is gone is a heartbeat that ended.
        tokio::select! {
            _known = confirmed.wait_for(|status| *status == Status::Draining) => {}
            _ended = standing.wait_for(ended) => {}
        }
    }

    /// Stops renewing and gives the lease back; returns once both are done.
    pub async fn shutdown(self) -> Result<()> {
        self.task.stop().await?
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the heartbeat was shut down")
}

struct Driver {
    pulse: Pulse,
    registry: Arc<dyn Registry>,
    registration: Registration,
    standing: watch::Sender<Standing>,
    wanted: watch::Receiver<Status>,
    confirmed: watch::Sender<Status>,
    /// A status was told and got no answer: the registry may list that one, or the one before.
    in_doubt: bool,
    rng: fastrand::Rng,
    events: Events,
}

impl Driver {
    async fn run(mut self, mut stop: Stop) -> Result<()> {
        loop {
            // A call is never dropped half way: it might have taken effect unseen.
            let wait = match self.beat().await {
                Next::Wait(wait) => wait,
                Next::End => {
                    stop.asked().await;
                    return Ok(());
                }
            };
            tokio::select! {
                biased;
                () = stop.asked() => return self.give_back().await,
                () = tokio::time::sleep(wait) => {}
                Ok(()) = self.wanted.changed() => {}
            }
        }
    }

    async fn beat(&mut self) -> Next {
        let draw = self.rng.u64(..);
        let result = match self.pulse.act() {
            Act::Register => self.register().await,
            Act::Renew(lease) => self.renew(&lease).await,
        };
        match result {
            Ok(lease) => self.pulse.held(lease, draw),
            Err(error) => self.failed(&error, draw),
        }
    }

    async fn register(&mut self) -> Result<Lease> {
        let status = *self.wanted.borrow_and_update();
        let asked = self.registration.clone().status(status);
        let lease = self.timely(self.registry.register(asked)).await?;
        self.in_doubt = false;
        self.confirmed.send_replace(status);
        self.standing.send_replace(Standing::Held(lease.clone()));
        self.events.emit(&Event::LeaseHeld {
            service: lease.service.clone(),
            id: lease.id.clone(),
            incarnation: lease.incarnation,
        });
        Ok(lease)
    }

    async fn renew(&mut self, lease: &Lease) -> Result<Lease> {
        self.timely(self.registry.renew(lease)).await?;
        let status = *self.wanted.borrow_and_update();
        if self.in_doubt || status != *self.confirmed.borrow() {
            self.in_doubt = true;
            self.timely(self.registry.set_status(lease, status)).await?;
            self.in_doubt = false;
            self.confirmed.send_replace(status);
        }
        Ok(lease.clone())
    }

    fn failed(&mut self, error: &Error, draw: u64) -> Next {
        let Registration { service, id, .. } = &self.registration;
        tracing::warn!(%service, %id, %error, "heartbeat failed");
        self.events.emit(&Event::HeartbeatFailed {
            service: service.clone(),
            id: id.clone(),
            kind: error.kind(),
            message: error.to_string(),
        });
        let next = self.pulse.failed(error, draw);
        if matches!(next, Next::End) {
            let ended = Standing::Ended(error.kind(), error.to_string());
            self.standing.send_replace(ended);
        } else if self.pulse.lease().is_none() {
            self.standing.send_replace(Standing::Seeking);
        }
        next
    }

    async fn give_back(&mut self) -> Result<()> {
        match self.pulse.lease() {
            Some(lease) => self.timely(self.registry.deregister(lease)).await,
            None => Ok(()),
        }
    }

    async fn timely<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.pulse.interval().max(Duration::from_millis(1));
        match tokio::time::timeout(limit, call).await {
            Ok(result) => result,
            Err(elapsed) => {
                let Registration { service, id, .. } = &self.registration;
                let message =
                    format!("no answer for instance {id} of service {service} within {limit:?}");
                Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed))
            }
        }
    }
}
