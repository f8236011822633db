use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Listener, Silent};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Exporter;
use crate::trace::{Batch, Cursor, SpanRing};
use crate::{Error, ErrorKind, Event};

/// Options of a [`Delivery`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The most spans in one batch; 512. A full batch is sent at once.
    pub batch: NonZeroUsize,
    /// How long a span waits for its batch to fill; 5 s.
    pub interval: Duration,
    /// How long one attempt, or the shutdown of the exporter, may take; 10 s.
    pub timeout: Duration,
    /// How many times a batch is sent again; 5.
    pub retries: u32,
    /// How long to wait before sending again; exponential from 200 ms, full jitter.
    pub backoff: Backoff,
    /// Where the jitter is drawn from; random by default.
    pub seed: Option<u64>,
    /// Hears of batches.
    pub listener: Arc<dyn Listener<Event>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: NonZeroUsize::MIN.saturating_add(511),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            retries: 5,
            backoff: Backoff::exponential(Duration::from_millis(200), 2.0),
            seed: None,
            listener: Arc::new(Silent),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("batch", &self.batch)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// Takes the spans of a ring to an exporter, in batches, until it is shut down.
///
/// Spans that the ring overwrote before they were taken, and batches that failed for good, are said to be
/// lost ([`Event::SpansLost`]). Dropping it stops the delivery where it is; [`Delivery::shutdown`] sends
/// what is left first.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::Arc;
/// use orchestra_observe::{Delivery, MemoryExporter, Tracer, export};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let tracer = Tracer::builder().build();
/// let exporter = Arc::new(MemoryExporter::new(NonZeroUsize::MIN));
/// let spans = Arc::clone(tracer.spans());
/// let delivery = Delivery::start(spans, Arc::clone(&exporter), export::Options::default());
/// tracer.span("checkout").start().end();
/// delivery.shutdown().await?;
/// assert_eq!(exporter.spans().len(), 1);
/// # Ok::<(), orchestra_observe::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Delivery {
    stop: watch::Sender<bool>,
    task: JoinSet<Result<(), Error>>,
}

impl Delivery {
    /// Begins to deliver, on the tokio runtime that this is called on. One delivery per ring.
    pub fn start(ring: Arc<SpanRing>, exporter: impl Exporter + 'static, options: Options) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(Courier::new(ring, Box::new(exporter), options).run(stopped));
        Self { stop, task }
    }

    /// Sends what is left, each batch with its retries, shuts the exporter down and waits for all of it.
    /// The error is that of the exporter's shutdown.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        match self.task.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(error)) => {
                let reason = "the delivery did not end by itself";
                Err(Error::new(ErrorKind::Export, "delivery", reason).with_source(error))
            }
            None => Ok(()),
        }
    }
}

struct Courier {
    ring: Arc<SpanRing>,
    exporter: Box<dyn Exporter>,
    options: Options,
    cursor: Cursor,
    draws: fastrand::Rng,
}

impl Courier {
    fn new(ring: Arc<SpanRing>, exporter: Box<dyn Exporter>, options: Options) -> Self {
        let seed = options.seed;
        Self {
            ring,
            exporter,
            options,
            cursor: Cursor::default(),
            draws: seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
        }
    }

    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<(), Error> {
        loop {
            let stop = tokio::select! {
                // An error means that the handle is gone, which aborts this task anyway.
                _ = stopped.wait_for(|stop| *stop) => true,
                () = self.full() => false,
                () = sleep(self.options.interval) => false,
            };
            self.drain().await;
            if stop {
                return within(self.options.timeout, self.exporter.shutdown()).await;
            }
        }
    }

    /// Waits until a batch is full.
    async fn full(&self) {
        while self.ring.waiting(self.cursor) < self.options.batch.get() {
            self.ring.arrived().await;
        }
    }

    async fn drain(&mut self) {
        loop {
            let batch = self.ring.after(self.cursor, self.options.batch.get());
            self.cursor = batch.next;
            self.lost(batch.lost, None);
            if batch.spans.is_empty() {
                return;
            }
            self.deliver(&batch).await;
        }
    }

    async fn deliver(&mut self, batch: &Batch) {
        let mut waited = Duration::ZERO;
        for retry in 1.. {
            let sent = within(self.options.timeout, self.exporter.export(&batch.spans)).await;
            let error = match sent {
                Ok(()) => {
                    let count = batch.spans.len();
                    return self.tell(&Event::SpansExported { count });
                }
                Err(error) => error,
            };
            let kind = error.kind();
            if !error.is_retryable() || retry > self.options.retries {
                return self.lost(batch.spans.len() as u64, Some(kind));
            }
            self.tell(&Event::ExportRetried { kind, retry });
            let least = error.class().retry_after().unwrap_or_default();
            let delay = self
                .options
                .backoff
                .delay(retry, waited, self.draws.u64(..));
            waited = delay.max(least);
            sleep(waited).await;
        }
    }

    fn lost(&self, count: u64, kind: Option<ErrorKind>) {
        if count > 0 {
            self.tell(&Event::SpansLost { count, kind });
        }
    }

    fn tell(&self, event: &Event) {
        self.options.listener.on_event(event);
    }
}

async fn within(
    limit: Duration,
    call: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    match timeout(limit, call).await {
        Ok(result) => result,
        Err(elapsed) => {
            let reason = format!("no answer within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, "exporter", reason).with_source(elapsed))
        }
    }
}
