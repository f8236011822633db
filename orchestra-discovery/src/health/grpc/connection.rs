//! One HTTP/2 connection, which is polled only while it is asked something.

use std::pin::Pin;

use bytes::Bytes;
use h2::client::{Builder, Connection as Driver, SendRequest};
use h2::{Error, RecvStream};
use http::response::Parts;
use http::{HeaderMap, Request};

use crate::health::dial::Stream;
use crate::health::idle::alongside;

/// The longest head and the longest trailers of an answer.
const MAX_HEAD: u32 = 16 * 1024;
/// How much of a body is read.
const MAX_BODY: usize = 64 * 1024;

pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    driver: Pin<Box<Driver<Stream>>>,
    is_open: bool,
    is_clean: bool,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Parts,
    /// Empty if it is longer than the limit.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Connection {
    pub(super) async fn open(stream: Stream) -> Result<Self, Error> {
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEAD);
        let (sender, driver) = builder.handshake(stream).await?;
        Ok(Self {
            sender,
            driver: Box::pin(driver),
            is_open: true,
            is_clean: true,
        })
    }

    pub(super) async fn ask(
        &mut self,
        request: Request<()>,
        message: Bytes,
    ) -> Result<Answer, Error> {
        self.is_clean = false;
        let sender = self.sender.clone();
        let call = async {
            let mut sender = sender.ready().await?;
            let (response, mut stream) = sender.send_request(request, false)?;
            stream.send_data(message, true)?;
            let (head, mut body) = response.await?.into_parts();
            let read = read(&mut body).await?;
            let trailers = body.trailers().await?;
            let body = read;
            Ok(Answer {
                head,
                body,
                trailers,
            })
        };
        let answer = alongside(call, self.driver.as_mut(), &mut self.is_open).await;
        self.is_clean = answer.is_ok();
        answer
    }

    pub(super) fn is_reusable(&self) -> bool {
        self.is_open && self.is_clean
    }
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Error> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if data.len() > MAX_BODY - read.len() {
            // Resets the stream by leaving it.
            return Err(h2::Reason::ENHANCE_YOUR_CALM.into());
        }
        body.flow_control().release_capacity(data.len())?;
        read.extend_from_slice(&data);
    }
    Ok(read)
}
