use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};

use crate::error::{BoxError, Error, Kind};

/// The body of a request or a response: known bytes, or a stream of frames.
///
/// It implements [`http_body::Body`], the trait that hyper, axum and tonic take.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use orchestra_mesh::Body;
///
/// let body = Body::from("hello");
/// assert_eq!(body.collect(1024).await?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Stream(UnsyncBoxBody<Bytes, Error>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Any other body; its errors become those of kind [`Kind::Body`], unless they are ours already.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        // A body of ours stays what it is: known bytes stay known.
        if let Some(ours) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return ours.take().unwrap_or_default();
        }
        body.map_or_else(Self::empty, |body| {
            let body = body.map_err(|error| from_source(error.into()));
            Self(Inner::Stream(body.boxed_unsync()))
        })
    }

    /// All bytes; more than `limit` are an error of kind [`Kind::BodyTooLarge`], and trailers are dropped.
    pub async fn collect(self, limit: usize) -> Result<Bytes, Error> {
        match self.0 {
            Inner::Empty => Ok(Bytes::new()),
            Inner::Full(bytes) if bytes.len() <= limit => Ok(bytes),
            Inner::Full(_) => Err(too_large(limit)),
            Inner::Stream(mut stream) => {
                let mut collected = BytesMut::new();
                while let Some(frame) = stream.frame().await.transpose()? {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if collected.len() + data.len() > limit {
                        return Err(too_large(limit));
                    }
                    collected.extend_from_slice(&data);
                }
                Ok(collected.freeze())
            }
        }
    }

    /// The same body, ending with an error after `limit` bytes, once `exceeded` has been called.
    pub(crate) fn limited(self, limit: usize, exceeded: impl Fn() + Send + 'static) -> Self {
        match &self.0 {
            Inner::Empty => self,
            Inner::Full(bytes) if bytes.len() <= limit => self,
            _ => Self(Inner::Stream(
                Limited::new(self, limit)
                    .map_err(move |error| {
                        error.downcast::<Error>().map_or_else(
                            |_length| {
                                exceeded();
                                too_large(limit)
                            },
                            |ours| *ours,
                        )
                    })
                    .boxed_unsync(),
            )),
        }
    }

    /// The bytes, if they are known without waiting.
    pub(crate) fn as_known(&self) -> Option<Bytes> {
        match &self.0 {
            Inner::Empty => Some(Bytes::new()),
            Inner::Full(bytes) => Some(bytes.clone()),
            Inner::Stream(_) => None,
        }
    }
}

pub(crate) fn too_large(limit: usize) -> Error {
    Error::new(
        Kind::BodyTooLarge,
        format!("the body is longer than {limit} bytes"),
    )
}

fn from_source(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(other) => Error::new(Kind::Body, "the body could not be read").with_source(other),
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Inner::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Inner::Full(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

/// Without the content, which may be a secret.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body(empty)"),
            Inner::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}
