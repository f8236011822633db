//! A probe over TCP, or a Unix socket.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::dial;
use super::{Probe, Reach, Verdict};
use crate::instance::Instance;

/// How much of an answer is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Passes when the instance accepts a connection and, if so told, answers what it should.
///
/// Every probe opens a connection of its own: whether that can be done is what is asked.
///
/// ```
/// use orchestra_discovery::TcpProbe;
///
/// let redis = TcpProbe::default().send(*b"PING\r\n").expect(*b"+PONG");
/// # _ = redis;
/// ```
#[derive(Debug, Clone, Default)]
pub struct TcpProbe {
    send: Option<Arc<[u8]>>,
    expect: Option<Arc<[u8]>>,
    reach: Reach,
}

impl TcpProbe {
    /// Sends these bytes once connected.
    #[must_use]
    pub fn send(mut self, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.send = Some(bytes.into());
        self
    }

    /// Passes only if these bytes occur within the first 64 KiB that the instance sends.
    #[must_use]
    pub fn expect(mut self, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.expect = Some(bytes.into());
        self
    }

    /// Goes no further than this.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    async fn ask(&self, instance: &Instance) -> Result<(), Verdict> {
        let broken = |error| Verdict::Fail(format!("the connection broke: {error}"));
        let mut stream = dial(&self.reach, instance).await?;
        if let Some(bytes) = &self.send {
            stream.write_all(bytes).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
        }
        let Some(wanted) = self.expect.as_deref().filter(|it| !it.is_empty()) else {
            return Ok(());
        };
        let (mut answer, mut searched) = (Vec::with_capacity(1_024), 0);
        let mut stream = stream.take(MAX_ANSWER as u64);
        while stream.read_buf(&mut answer).await.map_err(broken)? > 0 {
            let unsearched = answer.get(searched..).unwrap_or_default();
            if unsearched.windows(wanted.len()).any(|it| it == wanted) {
                return Ok(());
            }
            // A beginning of what is wanted may be at the end.
            searched = answer.len().saturating_sub(wanted.len() - 1);
        }
        let length = answer.len();
        let message = format!("what was expected is not in the {length} bytes of the answer");
        Err(Verdict::Fail(message))
    }
}

#[async_trait]
impl Probe for TcpProbe {
    async fn probe(&self, instance: &Instance) -> Verdict {
        self.ask(instance).await.err().unwrap_or(Verdict::Pass)
    }
}
