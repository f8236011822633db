//! Reading on after a refusal.
//!
//! A connection that is closed while bytes wait unread is reset, and the reset overtakes the answer: a
//! peer that writes its whole body before it reads would see a broken pipe in place of the refusal. So
//! what was announced is read and dropped for a while (`lingering_close` of nginx).

use std::time::Duration;

use http::{Request, Version, header};
use http_body_util::BodyExt as _;

use crate::Body;

/// What is read of a refused body at most.
const MOST: usize = 16 * 1024 * 1024;
/// For how long at most.
const LONGEST: Duration = Duration::from_secs(2);

/// Reads what a peer of HTTP/1.1 is writing, within bounds. HTTP/2 ends a stream without a reset of the
/// connection, and a peer that expects to be told to continue has written nothing.
pub(super) async fn read_on(request: Request<Body>) {
    if request.version() > Version::HTTP_11 || request.headers().contains_key(header::EXPECT) {
        return;
    }
    let drained = drop_all(request.into_body());
    // Whether it was enough or not, the refusal follows.
    let _elapsed = tokio::time::timeout(LONGEST, drained).await;
}

async fn drop_all(mut body: Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > MOST {
            return;
        }
    }
}
