//! A body that can be sent again.
//!
//! The first attempt streams: what passes is kept up to a limit, so a later attempt gets what was read
//! already and then the rest of the source. Past the limit nothing more is kept, and the body can only be
//! sent once (the `ReplayBody` of linkerd2-proxy). An attempt that was given up may still be polled by its
//! connection for a while; it has lost the source and gets an error.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::Body;
use crate::error::{Error, Kind};

/// The source of the bodies of all attempts of a call.
#[derive(Debug)]
pub(crate) enum Replay {
    /// Bytes that are in memory anyway.
    Known(Bytes),
    /// Too long to be kept: sent once.
    Once(Option<Body>),
    Stream(Arc<Mutex<Shared>>),
}

#[derive(Debug)]
pub(crate) struct Shared {
    source: Body,
    limit: usize,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    is_ended: bool,
    is_spoilt: bool,
    /// The attempt that may read the source.
    reader: u32,
}

impl Replay {
    pub(crate) fn new(body: Body, limit: usize) -> Self {
        match body.as_known() {
            Some(bytes) if bytes.len() <= limit || bytes.is_empty() => Self::Known(bytes),
            _ if limit == 0 || body.size_hint().lower() > limit as u64 => Self::Once(Some(body)),
            _ => Self::Stream(Arc::new(Mutex::new(Shared {
                source: body,
                limit,
                kept: Vec::new(),
                kept_bytes: 0,
                trailers: None,
                is_ended: false,
                is_spoilt: false,
                reader: 0,
            }))),
        }
    }

    /// Gives back a body that was handed out and never read.
    pub(crate) fn restore(&mut self, body: Body) {
        if let Self::Once(slot @ None) = self {
            *slot = Some(body);
        }
    }

    /// Whether the body can still be sent from its start.
    pub(crate) fn is_left(&self) -> bool {
        match self {
            Self::Known(_) => true,
            Self::Once(body) => body.is_some(),
            Self::Stream(shared) => !shared.lock().is_spoilt,
        }
    }

    /// The body of the next attempt; `None` if it can no longer be sent from the start.
    pub(crate) fn next(&mut self) -> Option<Body> {
        match self {
            Self::Known(bytes) if bytes.is_empty() => Some(Body::empty()),
            Self::Known(bytes) => Some(Body::from(bytes.clone())),
            Self::Once(body) => body.take(),
            Self::Stream(shared) => {
                let mut state = shared.lock();
                if state.is_spoilt {
                    return None;
                }
                state.reader += 1;
                Some(Body::wrap(Attempt {
                    number: state.reader,
                    waiting: state.kept.iter().cloned().collect(),
                    trailers: state.trailers.clone(),
                    size: state.total_hint(),
                    shared: Arc::clone(shared),
                }))
            }
        }
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.kept_bytes += data.len();
            if self.kept_bytes > self.limit {
                self.is_spoilt = true;
                self.kept.clear();
            } else if !self.is_spoilt {
                self.kept.push(data.clone());
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    /// The size of the whole body, seen from its start.
    fn total_hint(&self) -> SizeHint {
        let rest = self.source.size_hint();
        let kept = self.kept_bytes as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint.set_lower(rest.lower() + kept);
        hint
    }
}

fn less(hint: &SizeHint, read: usize) -> SizeHint {
    let read = read as u64;
    let mut left = SizeHint::new();
    if let Some(upper) = hint.upper() {
        left.set_upper(upper.saturating_sub(read));
    }
    left.set_lower(hint.lower().saturating_sub(read));
    left
}

/// What one attempt reads.
struct Attempt {
    shared: Arc<Mutex<Shared>>,
    number: u32,
    waiting: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    size: SizeHint,
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(data) = this.waiting.pop_front() {
            this.size = less(&this.size, data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let mut shared = this.shared.lock();
        if shared.reader != this.number {
            let error = Error::new(Kind::Body, "the body went to a later attempt");
            return Poll::Ready(Some(Err(error)));
        }
        if shared.is_ended {
            return Poll::Ready(this.trailers.take().map(|map| Ok(Frame::trailers(map))));
        }
        let polled = Pin::new(&mut shared.source).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                shared.keep(frame);
                this.size = less(&this.size, frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(Some(Err(_))) => shared.is_spoilt = true,
            Poll::Ready(None) => shared.is_ended = true,
            Poll::Pending => {}
        }
        if polled.is_ready() && shared.source.is_end_stream() {
            shared.is_ended = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if !self.waiting.is_empty() || self.trailers.is_some() {
            return false;
        }
        let shared = self.shared.lock();
        shared.is_ended || shared.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body as _, Frame};
    use http_body_util::BodyExt;

    use super::Replay;
    use crate::{Body, Error};

    /// Frames that are there at once.
    struct Frames(Vec<&'static str>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        }
    }

    #[tokio::test]
    async fn an_attempt_that_was_given_up_cannot_take_from_the_next() -> Result<(), Error> {
        let body = Body::wrap(Frames(vec!["one,", "two,", "three"]));
        let mut replay = Replay::new(body, 100);
        let mut given_up = replay.next().unwrap_or_default();
        assert!(given_up.frame().await.transpose()?.is_some());
        let next = replay.next().unwrap_or_default();
        assert!(given_up.frame().await.is_some_and(|frame| frame.is_err()));
        assert_eq!(Body::collect(next, 100).await?, "one,two,three");
        Ok(())
    }

    #[tokio::test]
    async fn past_the_limit_the_first_attempt_goes_on_and_there_is_no_other() -> Result<(), Error> {
        let mut replay = Replay::new(Body::wrap(Frames(vec!["one,", "two,", "three"])), 7);
        let first = replay.next().unwrap_or_default();
        assert_eq!(first.size_hint().exact(), None);
        assert_eq!(Body::collect(first, 100).await?, "one,two,three");
        assert!(!replay.is_left() && replay.next().is_none());
        Ok(())
    }
}
