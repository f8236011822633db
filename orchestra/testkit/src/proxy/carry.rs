//! One connection: two directions, each a reader, a queue and a writer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::socket::{Reader, Socket, Writer};
use super::traffic::Counter;
use super::{Delivery, Flow, Order, State};

/// The size of one read, and how many may be on their way: 4 MiB in each direction.
const PIECE: usize = 16 * 1024;
const QUEUE: usize = 256;
/// How much a timer may be late without the link losing that time.
const SLACK: Duration = Duration::from_millis(10);

/// The connection cannot go on and both sides shall see a reset.
#[derive(Debug)]
struct Broken;

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// Counts the connection as closed however it ends, also when its task is aborted.
struct Open<'a>(&'a Counter);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.add(1);
    }
}

pub(super) async fn connection(
    mut client: Socket,
    number: u64,
    mut cuts: watch::Receiver<u64>,
    state: Arc<State>,
) {
    let _open = Open(&state.traffic.closed);
    let Ok(mut upstream) = Socket::connect(&state.upstream).await else {
        state.traffic.unreachable.add(1);
        return client.abort();
    };
    let carried = tokio::select! {
        biased;
        _ = cuts.changed() => Err(Broken),
        carried = both_ways(&mut client, &mut upstream, number, &state) => carried,
    };
    if carried.is_err() {
        state.traffic.reset.add(1);
        client.abort();
        upstream.abort();
    }
}

async fn both_ways(
    client: &mut Socket,
    upstream: &mut Socket,
    number: u64,
    state: &State,
) -> Result<(), Broken> {
    let (from_client, to_client) = client.halves();
    let (from_upstream, to_upstream) = upstream.halves();
    let seed = state.seed.wrapping_add(number.wrapping_mul(2));
    let requests = Direction {
        flow: |order| &order.faults.to_upstream,
        delivered: &state.traffic.to_upstream,
        state,
    };
    let responses = Direction {
        flow: |order| &order.faults.to_client,
        delivered: &state.traffic.to_client,
        state,
    };
    tokio::try_join!(
        requests.run(from_client, to_upstream, seed),
        responses.run(from_upstream, to_client, seed.wrapping_add(1)),
    )?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Direction<'a> {
    flow: fn(&Order) -> &Flow,
    delivered: &'a Counter,
    state: &'a State,
}

/// What was read, and when it may arrive; nothing read is the end of the stream.
struct Piece {
    due: Instant,
    bytes: VecDeque<u8>,
}

impl Direction<'_> {
    async fn run(self, reader: Reader<'_>, writer: Writer<'_>, seed: u64) -> Result<(), Broken> {
        let (queue, pieces) = mpsc::channel(QUEUE);
        let receiver = Receiver {
            direction: self,
            orders: self.state.orders.subscribe(),
            writer,
            pieces,
            passed: 0,
            busy_until: Instant::now(),
            hole: false,
            closed: false,
        };
        tokio::try_join!(self.read(reader, queue, seed), receiver.run())?;
        Ok(())
    }

    async fn read(
        self,
        mut reader: Reader<'_>,
        queue: mpsc::Sender<Piece>,
        seed: u64,
    ) -> Result<(), Broken> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut buffer = vec![0; PIECE];
        let mut due = Instant::now();
        loop {
            let count = reader.read(&mut buffer).await?;
            let delay = self.flow().delay(rng.u64(..));
            // A piece never overtakes the one before it.
            due = due.max(Instant::now() + delay);
            let bytes = buffer.iter().take(count).copied().collect();
            let gone = queue.send(Piece { due, bytes }).await.is_err();
            if gone || count == 0 {
                return Ok(());
            }
        }
    }

    fn flow(self) -> Flow {
        (self.flow)(&self.state.orders.borrow()).clone()
    }
}

/// The receiving end of a direction.
struct Receiver<'a> {
    direction: Direction<'a>,
    orders: watch::Receiver<Order>,
    writer: Writer<'a>,
    pieces: mpsc::Receiver<Piece>,
    /// Bytes delivered in this connection.
    passed: u64,
    /// When the link has carried what was delivered.
    busy_until: Instant,
    /// Bytes were swallowed: nothing after them may arrive.
    hole: bool,
    /// The end of the stream was delivered.
    closed: bool,
}

impl Receiver<'_> {
    async fn run(mut self) -> Result<(), Broken> {
        // The faults that are in force already act on the new connection too.
        self.orders.mark_changed();
        loop {
            tokio::select! {
                biased;
                _ = self.orders.changed() => self.notice().await?,
                piece = self.pieces.recv() => match piece {
                    Some(piece) if piece.bytes.is_empty() => return self.end(piece.due).await,
                    Some(piece) => self.arrive(piece).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Faults that act on a connection where nothing is sent.
    async fn notice(&mut self) -> Result<(), Broken> {
        match self.direction.flow().delivery {
            Delivery::HalfClose => self.close().await,
            Delivery::Reset { after } if self.passed >= after => Err(Broken),
            _ => Ok(()),
        }
    }

    async fn arrive(&mut self, mut piece: Piece) -> Result<(), Broken> {
        tokio::time::sleep_until(piece.due).await;
        while !piece.bytes.is_empty() {
            let flow = self.released().await?;
            let length = piece.bytes.len().min(flow.portion());
            let portion = piece.bytes.drain(..length).collect();
            self.deliver(&flow, portion).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, flow: &Flow, mut portion: Vec<u8>) -> Result<(), Broken> {
        match flow.delivery {
            Delivery::HalfClose => return self.close().await,
            Delivery::Swallow => {
                self.hole = true;
                self.direction.state.traffic.swallowed.add(portion.len());
                return Ok(());
            }
            _ if self.closed => return Ok(()),
            _ if self.hole => return Err(Broken),
            Delivery::Reset { after } => {
                let left = usize::try_from(after.saturating_sub(self.passed));
                portion.truncate(left.unwrap_or(usize::MAX));
            }
            Delivery::Deliver | Delivery::Hold => {}
        }
        self.write(&portion).await?;
        self.occupy(flow.occupancy(portion.len())).await;
        match flow.delivery {
            Delivery::Reset { after } if self.passed >= after => Err(Broken),
            _ => Ok(()),
        }
    }

    async fn write(&mut self, portion: &[u8]) -> Result<(), Broken> {
        self.writer.write_all(portion).await?;
        self.passed += portion.len() as u64;
        self.direction.delivered.add(portion.len());
        Ok(())
    }

    /// Keeps to the bandwidth over time: a timer is too coarse for the short time of one portion.
    async fn occupy(&mut self, occupancy: Duration) {
        let now = Instant::now();
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        self.busy_until = self.busy_until.max(earliest) + occupancy;
        if self.busy_until > now {
            tokio::time::sleep_until(self.busy_until).await;
        }
    }

    /// The end of the stream is delivered, held or lost like bytes.
    async fn end(&mut self, due: Instant) -> Result<(), Broken> {
        tokio::time::sleep_until(due).await;
        let flow = |order: &Order| (self.direction.flow)(order).delivery;
        let held = |order: &Order| matches!(flow(order), Delivery::Hold | Delivery::Swallow);
        let order = self.orders.wait_for(|order| !held(order)).await;
        let broken = matches!(order.map(|order| flow(&order)), Ok(Delivery::Reset { .. }));
        if broken || self.hole {
            return Err(Broken);
        }
        self.close().await
    }

    /// The flow in force, as soon as it is not [`Delivery::Hold`].
    async fn released(&mut self) -> Result<Flow, Broken> {
        let flow = self.direction.flow;
        let released = |order: &Order| flow(order).delivery != Delivery::Hold;
        let order = self.orders.wait_for(released).await;
        order.map_or(Err(Broken), |order| Ok(flow(&order).clone()))
    }

    async fn close(&mut self) -> Result<(), Broken> {
        if !self.closed {
            self.closed = true;
            self.writer.shutdown().await?;
        }
        Ok(())
    }
}
