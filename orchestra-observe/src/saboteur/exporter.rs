use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use orchestra_core::{ErrorClass, SpanId};
use parking_lot::Mutex;

use crate::conformance::exporter::{Id, Subject};
use crate::{Error, Exporter, FinishedSpan};

macro_rules! subject {
    ($($name:ident),+) => {$(
        #[async_trait]
        impl<E: Subject + Exporter> Subject for $name<E> {
            fn exporter(&self) -> &dyn Exporter {
                self
            }

            async fn taken(&self) -> Vec<Id> {
                self.inner.taken().await
            }
        }
    )+};
}

subject!(DropsLast, Reverses, Renumbers, Reopens, ShutsOnce);

/// Says `Ok` and leaves out the last span of each batch. Breaks law 1.
#[derive(Debug)]
pub struct DropsLast<E> {
    inner: E,
}

impl<E: Exporter> DropsLast<E> {
    /// Wraps a faultless exporter.
    pub fn new(inner: E) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<E: Exporter> Exporter for DropsLast<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        let kept = batch.split_last().map_or(batch, |(_, kept)| kept);
        self.inner.export(kept).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        self.inner.shutdown().await
    }
}

/// Turns each batch around. Breaks law 2.
#[derive(Debug)]
pub struct Reverses<E> {
    inner: E,
}

impl<E: Exporter> Reverses<E> {
    /// Wraps a faultless exporter.
    pub fn new(inner: E) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<E: Exporter> Exporter for Reverses<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        let turned: Vec<_> = batch.iter().rev().cloned().collect();
        self.inner.export(&turned).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        self.inner.shutdown().await
    }
}

/// Gives a span that it saw before a new id, so that it is taken again. Breaks law 3.
#[derive(Debug)]
pub struct Renumbers<E> {
    inner: E,
    seen: Mutex<HashSet<Id>>,
}

impl<E: Exporter> Renumbers<E> {
    /// Wraps a faultless exporter.
    pub fn new(inner: E) -> Self {
        Self {
            inner,
            seen: Mutex::default(),
        }
    }

    fn renumbered(&self, span: &Arc<FinishedSpan>) -> Arc<FinishedSpan> {
        let mut seen = self.seen.lock();
        let mut context = span.context.clone();
        while !seen.insert((context.trace_id(), context.span_id())) {
            let next = context.span_id().as_number().wrapping_add(1);
            context = context.child(SpanId::from_draw(next));
        }
        let span = FinishedSpan::clone(span);
        Arc::new(FinishedSpan { context, ..span })
    }
}

#[async_trait]
impl<E: Exporter> Exporter for Renumbers<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        let renumbered: Vec<_> = batch.iter().map(|span| self.renumbered(span)).collect();
        self.inner.export(&renumbered).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        self.inner.shutdown().await
    }
}

/// Goes on after a shutdown. Breaks law 4.
#[derive(Debug)]
pub struct Reopens<E> {
    inner: E,
}

impl<E: Exporter> Reopens<E> {
    /// Wraps a faultless exporter.
    pub fn new(inner: E) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<E: Exporter> Exporter for Reopens<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        self.inner.export(batch).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Fails when it is shut down a second time. Breaks law 5.
#[derive(Debug)]
pub struct ShutsOnce<E> {
    inner: E,
    closed: AtomicBool,
}

impl<E: Exporter> ShutsOnce<E> {
    /// Wraps a faultless exporter.
    pub fn new(inner: E) -> Self {
        Self {
            inner,
            closed: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl<E: Exporter> Exporter for ShutsOnce<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        self.inner.export(batch).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::Relaxed) {
            let reason = "it was shut down before";
            return Err(Error::export("shuts-once", ErrorClass::Permanent, reason));
        }
        self.inner.shutdown().await
    }
}
