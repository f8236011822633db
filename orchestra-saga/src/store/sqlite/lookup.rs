use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{failed, schema};
use crate::error::{Error, ErrorKind, Result};

/// Idle connections that are kept.
const IDLE: usize = 4;

/// Threads that answer look-ups at a time.
const SERVERS: usize = 2;

/// Look-ups that share a transaction.
const GROUP: usize = 64;

/// The connections that only read.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    lookups: Mutex<Lookups>,
}

/// Look-ups that wait. Those that come while a thread is at it are answered by the same thread in the
/// same transaction: a hundred thousand sagas that are read again are not as many threads to be woken.
#[derive(Default)]
struct Lookups {
    waiting: VecDeque<Lookup>,
    servers: usize,
}

type Lookup = Box<dyn FnOnce(&Connection) + Send>;

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            lookups: Mutex::default(),
        }
    }

    /// A query that may take its time.
    pub(super) async fn query<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let readers = Arc::clone(self);
        super::blocking(move || readers.with(query)).await
    }

    /// A query for little, of which there may be many.
    pub(super) async fn look_up<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let lookup = move |connection: &Connection| {
            let _gone = reply.send(query(connection));
        };
        let is_served = {
            let mut lookups = self.lookups.lock();
            lookups.waiting.push_back(Box::new(lookup));
            let is_served = lookups.servers >= SERVERS;
            lookups.servers += usize::from(!is_served);
            is_served
        };
        if !is_served {
            let server = Server::new(self);
            // It ends by itself when nobody waits any more.
            drop(tokio::task::spawn_blocking(move || server.serve()));
        }
        answer
            .await
            .map_err(|_dropped| Error::new(ErrorKind::Store, "a read of the saga store was lost"))?
    }

    fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let result = query(&connection);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        result
    }

    /// What waits, up to a group; the server is off duty when there is nothing.
    fn take(&self) -> Vec<Lookup> {
        let mut lookups = self.lookups.lock();
        let count = lookups.waiting.len().min(GROUP);
        lookups.servers -= usize::from(count == 0);
        lookups.waiting.drain(..count).collect()
    }
}

/// Someone who answers look-ups until nobody waits.
struct Server {
    readers: Arc<Readers>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Called,
    Serving,
    Done,
}

impl Server {
    fn new(readers: &Arc<Readers>) -> Self {
        Self {
            readers: Arc::clone(readers),
            stage: Stage::Called,
        }
    }

    fn serve(mut self) {
        self.stage = Stage::Serving;
        let readers = Arc::clone(&self.readers);
        let served = readers.with(|connection| {
            loop {
                let lookups = readers.take();
                if lookups.is_empty() {
                    self.stage = Stage::Done;
                    return Ok(());
                }
                answer(connection, lookups)?;
            }
        });
        if let Err(error) = served {
            tracing::warn!(%error, "saga store cannot be read");
        }
    }

    /// Has a thread of its own do the work.
    fn hand_over(&self) -> std::io::Result<()> {
        let readers = Arc::clone(&self.readers);
        let thread = std::thread::Builder::new().name("saga-reader".to_owned());
        // It ends by itself when nobody waits any more.
        thread.spawn(move || Self::new(&readers).serve()).map(drop)
    }
}

/// A server whose runtime has ended before it began leaves its work to another: those who wait may be of
/// a runtime that goes on. One that fails leaves nobody waiting for it.
impl Drop for Server {
    fn drop(&mut self) {
        match self.stage {
            Stage::Done => {}
            Stage::Called if self.hand_over().is_ok() => {}
            Stage::Called | Stage::Serving => {
                let mut lookups = self.readers.lookups.lock();
                lookups.servers = lookups.servers.saturating_sub(1);
                let lost = match lookups.servers {
                    0 => std::mem::take(&mut lookups.waiting),
                    _ => VecDeque::new(),
                };
                drop(lookups);
                // Whoever waits for these sees that there is no answer.
                drop(lost);
            }
        }
    }
}

/// All see the same state of the file.
fn answer(connection: &Connection, lookups: Vec<Lookup>) -> Result<()> {
    let begun = connection.unchecked_transaction();
    let transaction = begun.map_err(|source| failed("reading", source))?;
    for lookup in lookups {
        lookup(&transaction);
    }
    // There is nothing to keep.
    let _ended = transaction.finish();
    Ok(())
}
