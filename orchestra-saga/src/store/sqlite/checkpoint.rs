//! Copies the write-ahead log into the file, beside the writer.
//!
//! SQLite would let the commit that makes the log long enough do it, and everyone waits meanwhile. Here a
//! thread of its own copies what is there while the writer goes on, and the writer, between two groups,
//! only what has come since: then nothing is left to copy, and the log is written from its beginning
//! again. So it stays about as long as it was laid out to be, and what the disk does for a commit stays
//! the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

/// Pages to copy that are worth beginning.
const ENOUGH: i64 = 1024;

/// Commits between two looks at the length of the log.
const OFTEN: u32 = 8;

/// The writer's side of it.
pub(super) struct Checkpoint {
    commits: u32,
    copy: Option<SyncSender<()>>,
    copier: Option<JoinHandle<()>>,
    is_copied: Arc<AtomicBool>,
    is_copying: bool,
}

/// How long the log is, and how much of it is in the file, in pages.
struct Length {
    log: i64,
    copied: i64,
}

impl Checkpoint {
    /// Begins the thread that copies on this connection.
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (copy, asked) = sync_channel(1);
        let is_copied = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_copied);
        let copier = std::thread::Builder::new()
            .name("saga-checkpoint".to_owned())
            .spawn(move || run(&connection, &asked, &done))?;
        Ok(Self {
            commits: 0,
            copy: Some(copy),
            copier: Some(copier),
            is_copied,
            is_copying: false,
        })
    }

    /// Sees to it that the log does not grow for ever.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        if self.is_copying {
            if self.is_copied.swap(false, Ordering::Acquire) {
                self.is_copying = false;
                checkpoint(writer, "PRAGMA wal_checkpoint(PASSIVE)");
            }
            return;
        }
        self.commits += 1;
        if self.commits < OFTEN {
            return;
        }
        self.commits = 0;
        let length = checkpoint(writer, "PRAGMA wal_checkpoint(NOOP)");
        if length.is_some_and(|length| length.log - length.copied >= ENOUGH) {
            let asked = self.copy.as_ref().map(|copy| copy.try_send(()));
            self.is_copying = matches!(asked, Some(Ok(())));
        }
    }

    /// Ends the thread, and leaves a log without content unless someone reads it.
    pub(super) fn finish(mut self, writer: &Connection) {
        drop(self.copy.take());
        if let Some(Err(_panic)) = self.copier.take().map(JoinHandle::join) {
            tracing::error!("the thread that copies the log of a saga store panicked");
        }
        if writer.busy_timeout(Duration::ZERO).is_ok() {
            checkpoint(writer, "PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }
}

fn run(connection: &Connection, asked: &Receiver<()>, is_copied: &AtomicBool) {
    while asked.recv().is_ok() {
        checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)");
        is_copied.store(true, Ordering::Release);
    }
}

fn checkpoint(connection: &Connection, sql: &str) -> Option<Length> {
    let length = connection.prepare_cached(sql).and_then(|mut sql| {
        sql.query_row([], |row| {
            Ok(Length {
                log: row.get(1)?,
                copied: row.get(2)?,
            })
        })
    });
    match length {
        Ok(length) => Some(length),
        // Nothing is lost: it is in the log, which grows until it can be copied.
        Err(error) => {
            tracing::warn!(%error, "the log of a saga store cannot be copied into its file");
            None
        }
    }
}
