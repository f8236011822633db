//! The worker's client of the ledger.

use std::path::PathBuf;
use std::sync::Arc;

use orchestra_saga::{Call, Failure, Operation};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::fuse::Fuse;
use crate::ledger::{Answer, Order, Request, Trouble};

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) socket: Arc<PathBuf>,
    pub(crate) fuse: Arc<Fuse>,
}

/// What goes wrong on the way, on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Upset {
    #[default]
    Nothing,
    /// The ledger refuses.
    Refused,
    /// The ledger has no time.
    Busy,
    /// The answer is not heard.
    Lost,
    /// The ledger hears of it when nobody waits for the answer any more.
    Late,
}

impl Client {
    /// Moves money as the call says; what it moved, or nothing if there was nothing to undo.
    pub(crate) async fn book(
        &self,
        call: &Call,
        (from, to, amount): (&str, &str, i64),
        upset: Upset,
    ) -> Result<i64, Failure> {
        let name = match call.op {
            Operation::Compensation => "the compensation",
            Operation::Probe => "the probe",
            _ => "the action",
        };
        let headers = call.headers();
        let headers = headers.iter().map(|(name, value)| {
            let value = value.to_str().expect("visible ASCII");
            (name.to_string(), value.to_owned())
        });
        let order = Order {
            headers: headers.collect(),
            from: from.to_owned(),
            to: to.to_owned(),
            amount,
            whim: match upset {
                Upset::Refused => Some(Trouble::Refuse),
                Upset::Busy => Some(Trouble::Busy),
                Upset::Late => Some(Trouble::Late),
                Upset::Nothing | Upset::Lost => None,
            },
        };
        let mut line = serde_json::to_string(&Request::Book(order)).expect("JSON");
        line.push('\n');

        self.fuse.at("before sending", name);
        let stream = UnixStream::connect(&*self.socket).await;
        let mut stream = BufReader::new(stream.map_err(unsent)?);
        stream.write_all(line.as_bytes()).await.map_err(unheard)?;
        self.fuse.at("before reading the answer of", name);
        if matches!(upset, Upset::Lost | Upset::Late) {
            return Err(Failure::unknown("the answer was not heard"));
        }
        line.clear();
        stream.read_line(&mut line).await.map_err(unheard)?;
        let answer = serde_json::from_str(&line).map_err(unheard)?;
        self.fuse.at("after", name);
        match answer {
            Answer::Done(amount) => Ok(amount),
            Answer::Null => Ok(0),
            Answer::Rejected(reason) => Err(Failure::rejected(reason)),
            Answer::TooLate => Err(Failure::rejected("too late")),
            Answer::Busy(reason) => Err(Failure::retryable(reason)),
            Answer::Armed => Err(Failure::unknown("another question's answer")),
        }
    }
}

fn unsent(error: impl std::fmt::Display) -> Failure {
    Failure::retryable(error.to_string())
}

fn unheard(error: impl std::fmt::Display) -> Failure {
    Failure::unknown(error.to_string())
}
