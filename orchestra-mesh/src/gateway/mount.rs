//! A service in this process as a destination.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use orchestra_core::ServiceName;
use parking_lot::Mutex;
use tower_service::Service;

use crate::Body;
use crate::error::{BoxError, Error, Kind};
use crate::request::headers;

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

pub(super) struct Mounted(Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>);

impl Mounted {
    pub(super) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Many services are `Clone` and not `Sync`: the lock is held for the clone alone.
        let service = Mutex::new(service);
        Self(Box::new(move |request| {
            let mut service = service.lock().clone();
            Box::pin(async move {
                poll_fn(|context| service.poll_ready(context))
                    .await
                    .map_err(Into::into)?;
                let response = service.call(request).await.map_err(Into::into)?;
                Ok(response.map(Body::wrap))
            })
        }))
    }

    pub(super) async fn call(
        &self,
        name: &ServiceName,
        mut request: Request<Body>,
        left: Option<Duration>,
    ) -> Result<Response<Body>, Error> {
        headers::strip_hop_by_hop(request.headers_mut());
        let answering = (self.0)(request);
        let result = match left {
            None => answering.await,
            Some(left) => tokio::time::timeout(left, answering)
                .await
                .map_err(|elapsed| {
                    let late = "the deadline has passed";
                    Error::new(Kind::DeadlineExceeded, late)
                        .with_service(name)
                        .with_source(elapsed)
                })?,
        };
        result.map_err(|source| {
            let failed = Error::new(Kind::Service, "the mounted service failed");
            failed.with_service(name).with_source(source)
        })
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mounted")
    }
}
