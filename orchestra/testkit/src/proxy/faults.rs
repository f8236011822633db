//! What a proxy does to the connections that pass.

use std::num::NonZeroU64;
use std::time::Duration;

/// The faults in force at one time; the default is none.
///
/// The constructors are the common cases; the fields make any other, per direction:
///
/// ```
/// use orchestra_testkit::proxy::{Delivery, Faults};
///
/// // Requests arrive, and the connection breaks in the middle of the response.
/// let mut faults = Faults::none();
/// faults.to_client.delivery = Delivery::Reset { after: 100 };
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// What a connection attempt meets.
    pub accept: Accept,
    /// The direction from the client to the upstream.
    pub to_upstream: Flow,
    /// The direction from the upstream to the client.
    pub to_client: Flow,
}

/// What a connection attempt meets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accept {
    /// It is accepted and connected to the upstream.
    #[default]
    Forward,
    /// Nobody listens: the system refuses it. Connections that are open stay open.
    Refuse,
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// How long each piece is on its way.
    pub latency: Duration,
    /// The most that is added to the latency, drawn evenly for each piece; the order is kept.
    pub jitter: Duration,
    /// The most bytes per second; `None` is no limit.
    pub bandwidth: Option<NonZeroU64>,
    /// What becomes of a piece when it arrives.
    pub delivery: Delivery,
}

/// What becomes of bytes, and of the end of the stream, at the end of their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// They are delivered.
    #[default]
    Deliver,
    /// They are held, and delivered when that is over: a network partition that heals.
    Hold,
    /// They are lost without a sign: a black hole. A stream that has lost some can never be whole
    /// again: the connection is reset when the next bytes would be delivered.
    Swallow,
    /// The receiver sees the end of the stream, and what is sent afterwards is lost; the other direction
    /// goes on.
    HalfClose,
    /// The connection is reset once this many bytes of this direction have been delivered in it; with
    /// `after: 0` at once. A Unix socket knows no reset: there the connection is closed both ways.
    Reset {
        /// How many bytes pass first.
        after: u64,
    },
}

impl Faults {
    /// Everything passes.
    pub fn none() -> Self {
        Self::default()
    }

    /// Each direction takes `latency` and up to `jitter` more.
    pub fn latency(latency: Duration, jitter: Duration) -> Self {
        Self::both(&Flow {
            latency,
            jitter,
            ..Flow::default()
        })
    }

    /// Each direction of each connection passes at most this many bytes per second.
    pub fn bandwidth(bytes_per_second: NonZeroU64) -> Self {
        Self::both(&Flow {
            bandwidth: Some(bytes_per_second),
            ..Flow::default()
        })
    }

    /// All connections, open and new, are reset at once.
    pub fn reset() -> Self {
        Self::both(&Flow::with(Delivery::Reset { after: 0 }))
    }

    /// New connections are accepted, and nothing that is sent is ever seen again.
    pub fn black_hole() -> Self {
        Self::both(&Flow::with(Delivery::Swallow))
    }

    /// Nothing passes in either direction; when it heals, what was sent arrives.
    pub fn partition() -> Self {
        Self::both(&Flow::with(Delivery::Hold))
    }

    /// Clients see the end of the stream, though what they send still arrives.
    pub fn half_close() -> Self {
        Self {
            to_client: Flow::with(Delivery::HalfClose),
            ..Self::default()
        }
    }

    /// New connections are refused; open ones are left alone.
    pub fn refuse() -> Self {
        Self {
            accept: Accept::Refuse,
            ..Self::default()
        }
    }

    fn both(flow: &Flow) -> Self {
        Self {
            accept: Accept::Forward,
            to_upstream: flow.clone(),
            to_client: flow.clone(),
        }
    }

    /// Whether no connection outlives these faults.
    pub(super) fn cut_all(&self) -> bool {
        [&self.to_upstream, &self.to_client]
            .iter()
            .any(|flow| flow.delivery == Delivery::Reset { after: 0 })
    }
}

impl Flow {
    fn with(delivery: Delivery) -> Self {
        Self {
            delivery,
            ..Self::default()
        }
    }

    /// How long a piece takes whose jitter was drawn as `draw`.
    pub(super) fn delay(&self, draw: u64) -> Duration {
        let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        let drawn = jitter.checked_add(1).map_or(draw, |range| draw % range);
        self.latency.saturating_add(Duration::from_nanos(drawn))
    }

    /// How long the link is busy with `bytes`.
    pub(super) fn occupancy(&self, bytes: usize) -> Duration {
        self.bandwidth.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate.get() as f64)
        })
    }

    /// How many bytes to pass at once, so that a slow link passes them evenly: a twentieth of a second.
    pub(super) fn portion(&self) -> usize {
        self.bandwidth.map_or(usize::MAX, |rate| {
            usize::try_from(rate.get() / 20).map_or(usize::MAX, |portion| portion.max(1))
        })
    }
}
