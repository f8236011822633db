//! One connection, which is polled only while it is asked something.

use std::pin::Pin;

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::health::dial::Stream;
use crate::health::idle::alongside;

/// The longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// How much of a body is read.
const MAX_BODY: usize = 64 * 1024;

pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<Stream>, Empty<Bytes>>>>,
    is_open: bool,
    /// Everything that was asked for has been read.
    is_clean: bool,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Parts,
    /// What fits into the limit.
    pub(super) body: Vec<u8>,
    is_whole: bool,
}

impl Connection {
    pub(super) async fn open(stream: Stream) -> hyper::Result<Self> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD).max_headers(100);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            driver: Box::pin(driver),
            is_open: true,
            is_clean: true,
        })
    }

    pub(super) async fn ask(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Answer> {
        self.is_clean = false;
        let sender = &mut self.sender;
        let call = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let (body, is_whole) = read(body).await?;
            Ok(Answer {
                head,
                body,
                is_whole,
            })
        };
        let answer: hyper::Result<Answer> =
            alongside(call, self.driver.as_mut(), &mut self.is_open).await;
        self.is_clean = answer.as_ref().is_ok_and(|answer| answer.is_whole);
        answer
    }

    pub(super) fn is_reusable(&self) -> bool {
        self.is_open && self.is_clean && !self.sender.is_closed()
    }
}

async fn read(mut body: Incoming) -> hyper::Result<(Vec<u8>, bool)> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = MAX_BODY - read.len();
        read.extend(data.iter().take(room));
        if data.len() > room {
            return Ok((read, false));
        }
    }
    Ok((read, true))
}
