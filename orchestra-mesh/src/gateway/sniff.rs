//! Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes.
//!
//! The bytes are read under a time limit of the caller's: a peer that connects and says nothing, or stops
//! within the preface of HTTP/2, does not hold a connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::connect::Stream;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// The stream with the bytes that were read put back in front.
#[derive(Debug)]
pub(super) struct Sniffed {
    stream: Stream,
    first: [u8; PREFACE.len()],
    read: usize,
    filled: usize,
    stall: Stall,
}

/// Ends a connection whose peer takes nothing of what is sent to it.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    /// Set while the peer is waited for.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn check<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.alarm = None;
            return written;
        }
        let limit = self.limit;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        alarm.as_mut().poll(context).map(|()| {
            let message = "the peer reads nothing of what it asked for";
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

/// Reads until the version is certain; `None` if the peer closed before it said anything.
pub(super) async fn sniff(
    mut stream: Stream,
    stall: Duration,
) -> io::Result<Option<(Version, Sniffed)>> {
    let mut first = [0; PREFACE.len()];
    let mut filled = 0;
    loop {
        let read = match first.get_mut(filled..) {
            Some(rest) if !rest.is_empty() => stream.read(rest).await?,
            _ => 0,
        };
        filled += read;
        let seen = first.get(..filled).unwrap_or_default();
        let is_preface = PREFACE.starts_with(seen);
        if filled == 0 {
            return Ok(None);
        }
        if read > 0 && is_preface && filled < PREFACE.len() {
            continue;
        }
        let version = if is_preface && filled == PREFACE.len() {
            Version::Http2
        } else {
            Version::Http1
        };
        let sniffed = Sniffed {
            stream,
            first,
            read: 0,
            filled,
            stall: Stall {
                limit: stall,
                alarm: None,
            },
        };
        return Ok(Some((version, sniffed)));
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.first.get(this.read..this.filled).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(left.get(..count).unwrap_or_default());
        this.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.stall.check(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.stall.check(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        match flushed {
            // Nothing is held back here, so a flush says nothing of what the peer took.
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.stall.check(Poll::Pending, context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
