use tokio::sync::oneshot;

use super::failed;
use super::ledger::Ledger;
use crate::error::{Error, ErrorKind, Result};

/// Why something was not written.
#[derive(Debug)]
pub(super) enum Stop {
    /// A law forbids it; nothing of it was written.
    Refused(Error),
    /// A statement failed; the transaction has to be taken back.
    Failed(Error),
}

impl Stop {
    /// A statement failed.
    pub(super) fn failed(what: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Failed(failed(what, source))
    }
}

/// What the work of a job comes to.
pub(super) type Written<T> = std::result::Result<T, Stop>;

/// A transaction that did not become durable.
#[derive(Debug)]
pub(super) struct Lost {
    kind: ErrorKind,
    cause: String,
}

impl Lost {
    /// Nothing was begun.
    pub(super) fn begin(source: rusqlite::Error) -> Self {
        let error = failed("a transaction", source);
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Self {
            kind: error.kind(),
            cause: cause.unwrap_or_default(),
        }
    }

    /// The end failed; whether it is durable is not known.
    pub(super) fn commit(source: &rusqlite::Error) -> Self {
        let kind = match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::Full,
            _ => ErrorKind::Store,
        };
        Self {
            kind,
            cause: source.to_string(),
        }
    }

    /// For each of those that shared it.
    fn error(&self) -> Error {
        Error::new(self.kind, "saga store: the transaction failed").caused_by(self.cause.clone())
    }
}

/// Something to write, and who waits for it.
pub(super) trait Job: Send {
    /// Writes, inside a transaction. After an error that is taken back, and this may be run again.
    fn run(&mut self, ledger: &mut Ledger<'_>) -> std::result::Result<(), Error>;

    /// Says what became of it, once that is durable, or lost with its transaction.
    fn answer(self: Box<Self>, lost: Option<&Lost>);

    /// Says that it failed by itself.
    fn fail(self: Box<Self>, error: Error);
}

struct Request<T, W> {
    work: W,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

/// A job that does this work, and its answer.
pub(super) fn job<T, W>(work: W) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    W: Fn(&mut Ledger<'_>) -> Written<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let request = Request {
        work,
        result: None,
        reply,
    };
    (Box::new(request), answer)
}

impl<T, W> Job for Request<T, W>
where
    T: Send,
    W: Fn(&mut Ledger<'_>) -> Written<T> + Send,
{
    fn run(&mut self, ledger: &mut Ledger<'_>) -> std::result::Result<(), Error> {
        self.result = match (self.work)(ledger) {
            Ok(value) => Some(Ok(value)),
            Err(Stop::Refused(error)) => Some(Err(error)),
            Err(Stop::Failed(error)) => return Err(error),
        };
        Ok(())
    }

    fn answer(self: Box<Self>, lost: Option<&Lost>) {
        // A refusal may rest on what others wrote in the same transaction, so it is void as well.
        let result = match (lost, self.result) {
            (Some(lost), _) => Some(Err(lost.error())),
            (None, result) => result,
        };
        if let Some(result) = result {
            // A waiter who went away reads the log later.
            let _gone = self.reply.send(result);
        }
    }

    fn fail(self: Box<Self>, error: Error) {
        let _gone = self.reply.send(Err(error));
    }
}
