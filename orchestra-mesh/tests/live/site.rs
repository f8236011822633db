//! A gateway in front of nginx.

use orchestra_core::Endpoint;
use orchestra_mesh::connect::Protocol;
use orchestra_mesh::gateway::{Limits, Serving};
use orchestra_mesh::route::{PathPattern, Route};
use orchestra_mesh::{Client, Gateway};

use crate::{Failure, GRACE, client};

pub(crate) struct Site {
    serving: Serving,
    client: Client,
}

impl Site {
    pub(crate) async fn open(
        listen: Endpoint,
        behind: Endpoint,
        protocol: Protocol,
    ) -> Result<Self, Failure> {
        let client = client(behind, protocol)?;
        let limits = Limits::default().header_bytes(8192).body(5 << 20);
        let mut gateway = Gateway::builder().limits(limits).client(client.clone());
        for path in ["/ok", "/seen", "/fail", "/files"] {
            let route = Route::to(path, "nginx".parse()?);
            gateway = gateway.route(route.path(PathPattern::prefix(path)?));
        }
        let serving = gateway.build()?.serve([listen]).await?;
        Ok(Self { serving, client })
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.serving.endpoints()[0].clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.endpoint())
    }

    /// Nothing is cut: whoever asked has been answered.
    pub(crate) async fn close(self) {
        assert_eq!(self.serving.shutdown(GRACE).await.cut, 0);
        self.client.shutdown().await;
    }
}

pub(crate) fn any_port() -> Endpoint {
    Endpoint::Tcp(([127, 0, 0, 1], 0).into())
}
