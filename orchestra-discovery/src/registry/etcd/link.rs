//! The connections: one endpoint is used until it fails, then the next.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient, LeaseClient, WatchClient};
use orchestra_core::Endpoint;
use tokio::sync::OnceCell;

use super::fault;
use crate::error::{Error, ErrorKind, Result};

/// The largest answer: a thousand changes of the largest values, with what was there before.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How long a watch may be silent before it is pinged; etcd allows no more than a ping in 5 seconds.
const PING: Duration = Duration::from_secs(10);

/// What one endpoint is asked by.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) kv: KvClient,
    pub(super) lease: LeaseClient,
    pub(super) watch: WatchClient,
}

struct Site {
    endpoint: Endpoint,
    peer: OnceCell<Peer>,
}

pub(super) struct Link {
    sites: Box<[Site]>,
    /// The one in use, counted on without end.
    turn: AtomicUsize,
    options: ConnectOptions,
    timeout: Duration,
}

impl Link {
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        user: Option<(String, String)>,
        timeout: Duration,
    ) -> Result<Self> {
        if endpoints.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "etcd has no endpoint"));
        }
        if let Some(socket) = endpoints.iter().find(|it| matches!(it, Endpoint::Unix(_))) {
            let message = format!("etcd cannot be reached at {socket}: it has no unix sockets");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(timeout)
            .with_keep_alive(PING, timeout)
            // etcd ends a connection that pings without a stream.
            .with_keep_alive_while_idle(false)
            // A member that lost the others must say so instead of being silent.
            .with_require_leader(true);
        if let Some((name, password)) = user {
            options = options
                .with_user(name, password)
                .with_auto_token_refresh(true);
        }
        let site = |endpoint| Site {
            endpoint,
            peer: OnceCell::new(),
        };
        Ok(Self {
            sites: endpoints.into_iter().map(site).collect(),
            turn: AtomicUsize::new(0),
            options,
            timeout,
        })
    }

    /// Asks one endpoint after the other until one answers: each at most once, and none after one that was late.
    pub(super) async fn call<T, F>(&self, what: &str, ask: impl Fn(Peer) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let mut left = self.sites.len();
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let Some(site) = self.sites.get(turn % self.sites.len()) else {
                return Err(Error::new(ErrorKind::Invalid, "etcd has no endpoint"));
            };
            let asked = async { ask(self.peer(site).await?).await };
            let error = match tokio::time::timeout(self.timeout, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(fault)) => {
                    fault::error(fault, format!("etcd {} failed to {what}", site.endpoint))
                }
                Err(elapsed) => {
                    let message = format!(
                        "etcd {} did not {what} within {:?}",
                        site.endpoint, self.timeout
                    );
                    Error::new(ErrorKind::Timeout, message).with_source(elapsed)
                }
            };
            left = left.saturating_sub(1);
            if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
                return Err(error);
            }
            self.leave(turn);
            if left == 0 || error.kind() == ErrorKind::Timeout {
                return Err(error);
            }
        }
    }

    /// Goes on to the next endpoint, unless another call has done so.
    fn leave(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        let _already_left = self
            .turn
            .compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_err();
    }

    async fn peer(&self, site: &Site) -> Result<Peer, etcd_client::Error> {
        let connect = || async {
            let endpoint = site.endpoint.to_string();
            let client = Client::connect([endpoint], Some(self.options.clone())).await?;
            Ok(Peer {
                kv: client.kv_client().max_decoding_message_size(MAX_ANSWER),
                lease: client.lease_client(),
                watch: client.watch_client().max_decoding_message_size(MAX_ANSWER),
            })
        };
        site.peer.get_or_try_init(connect).await.cloned()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.sites.iter().map(|site| &site.endpoint).collect();
        f.debug_struct("Link")
            .field("endpoints", &endpoints)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
