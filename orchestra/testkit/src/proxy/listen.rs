//! Accepting connections, or refusing them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Endpoint;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::socket::{Socket, unsupported};
use super::{Accept, Obeyed, Order, State, carry};

/// The listening address, with a listener on it or, while connections are refused, without.
#[derive(Debug)]
pub(super) struct Doorway {
    endpoint: Endpoint,
    listener: Option<Listener>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Doorway {
    pub(super) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let listener = Listener::bind(endpoint).await?;
        Ok(Self {
            endpoint: listener.address(endpoint)?,
            listener: Some(listener),
        })
    }

    /// Where it listens, with the port that the system chose.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn follow(&mut self, accept: Accept) -> io::Result<()> {
        match accept {
            Accept::Refuse => self.close(),
            Accept::Forward if self.listener.is_none() => {
                self.listener = Some(Listener::bind(&self.endpoint).await?);
            }
            Accept::Forward => {}
        }
        Ok(())
    }

    /// Stops listening; a Unix socket's file is removed, as its name must be free to listen again.
    fn close(&mut self) {
        if self.listener.take().is_some()
            && let Endpoint::Unix(path) = &self.endpoint
        {
            remove(path);
        }
    }

    /// The next connection; never, while connections are refused.
    async fn accept(&self) -> io::Result<Socket> {
        match &self.listener {
            Some(Listener::Tcp(listener)) => Socket::tcp(listener.accept().await?.0),
            Some(Listener::Unix(listener)) => Ok(Socket::Unix(listener.accept().await?.0)),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Doorway {
    fn drop(&mut self) {
        self.close();
    }
}

fn remove(path: &Path) {
    let _gone_already = std::fs::remove_file(path);
}

impl Listener {
    async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let bound = match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Endpoint::Host { name, port } => {
                let address = (name.as_ref(), *port);
                TcpListener::bind(address).await.map(Self::Tcp)
            }
            Endpoint::Unix(path) => UnixListener::bind(path).map(Self::Unix),
            other => Err(unsupported(other)),
        };
        bound.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on {endpoint}: {error}"),
            )
        })
    }

    fn address(&self, asked: &Endpoint) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.into()),
            Self::Unix(_) => Ok(asked.clone()),
        }
    }
}

/// Accepts, and follows the orders, until it is told to stop; then cuts what is open.
pub(super) async fn serve(
    mut door: Doorway,
    state: Arc<State>,
    mut orders: watch::Receiver<Order>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        // In this order: whoever connects after an order was obeyed is treated by it.
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            _ = orders.changed() => {
                let order = orders.borrow_and_update().clone();
                obey(&mut door, &state, &order).await;
            }
            accepted = door.accept() => match accepted {
                Ok(client) => {
                    state.traffic.accepted.add(1);
                    let number = state.traffic.accepted.count();
                    let cuts = state.cuts.subscribe();
                    connections.spawn(carry::connection(client, number, cuts, Arc::clone(&state)));
                }
                // Out of descriptors, or a client that gave up: neither is helped by trying faster.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(door);
    connections.shutdown().await;
}

async fn obey(door: &mut Doorway, state: &State, order: &Order) {
    let failure = door.follow(order.faults.accept).await.err().map(Arc::new);
    state.obeyed.send_replace(Obeyed {
        number: order.number,
        failure,
    });
}
