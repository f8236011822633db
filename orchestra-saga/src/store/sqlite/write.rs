//! The writer thread.

use orchestra_core::IdempotencyKey;
use rusqlite::{Connection, OptionalExtension, Savepoint, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{failed, signed, unsigned};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::store::memory::{foreign, stale};
use crate::store::{Append, Claim, Snapshot};

/// The most jobs of one transaction.
const GROUP: usize = 512;

/// Something to write, and who waits for it.
pub(super) enum Job {
    Claim {
        partition: Partition,
        owner: String,
        reply: oneshot::Sender<Result<Claim>>,
    },
    Append {
        claim: Claim,
        append: Box<Append>,
        reply: oneshot::Sender<Result<Version>>,
    },
    Snapshot {
        saga: SagaId,
        snapshot: Snapshot,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// What to tell a waiter once the transaction is durable, or not.
type Answer = Box<dyn FnOnce(Option<&rusqlite::Error>)>;

/// Writes until every sender is gone.
pub(super) fn run(mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < GROUP
            && let Ok(next) = queue.try_recv()
        {
            jobs.push(next);
        }
        group(&mut connection, jobs);
    }
}

/// One transaction for all; nobody hears of success before it is durable.
fn group(connection: &mut Connection, jobs: Vec<Job>) {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let mut transaction = match begun {
        Ok(transaction) => transaction,
        Err(source) => return jobs.into_iter().for_each(|job| job.refuse(&source)),
    };
    let mut answers: Vec<Answer> = Vec::with_capacity(jobs.len());
    for job in jobs {
        match transaction.savepoint() {
            Ok(savepoint) => answers.push(job.run(savepoint)),
            Err(source) => job.refuse(&source),
        }
    }
    let outcome = transaction.commit();
    for answer in answers {
        answer(outcome.as_ref().err());
    }
}

impl Job {
    fn run(self, savepoint: Savepoint<'_>) -> Answer {
        match self {
            Self::Claim {
                partition,
                owner,
                reply,
            } => answer(reply, keep(savepoint, |db| claim(db, partition, &owner))),
            Self::Append {
                claim,
                append: batch,
                reply,
            } => answer(reply, keep(savepoint, |db| append(db, claim, &batch))),
            Self::Snapshot {
                saga,
                snapshot,
                reply,
            } => answer(reply, keep(savepoint, |db| save(db, saga, &snapshot))),
        }
    }

    /// Says that nothing was written.
    fn refuse(self, source: &rusqlite::Error) {
        let error = not_durable(source);
        // A waiter who went away reads the log later.
        let _gone = match self {
            Self::Claim { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Append { reply, .. } => reply.send(Err(error)).is_ok(),
            Self::Snapshot { reply, .. } => reply.send(Err(error)).is_ok(),
        };
    }
}

/// Keeps what the work wrote if it succeeds, and nothing of it otherwise.
fn keep<T>(savepoint: Savepoint<'_>, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let value = work(&savepoint)?;
    let released = savepoint.commit();
    released.map_err(|source| failed("a write", source))?;
    Ok(value)
}

fn answer<T: 'static>(reply: oneshot::Sender<Result<T>>, result: Result<T>) -> Answer {
    Box::new(move |lost| {
        // A refusal may rest on what others wrote in the same transaction, so it is void as well.
        let result = match lost {
            Some(source) => Err(not_durable(source)),
            None => result,
        };
        // A waiter who went away reads the log later.
        let _gone = reply.send(result);
    })
}

/// The error of a transaction, for each of those that shared it.
fn not_durable(source: &rusqlite::Error) -> Error {
    let kind = match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::Full,
        _ => ErrorKind::Store,
    };
    Error::new(kind, "saga store: the transaction failed").caused_by(source.to_string())
}

fn claim(db: &Connection, partition: Partition, owner: &str) -> Result<Claim> {
    let sql = "INSERT INTO partition (id, epoch, owner) VALUES (?1, 1, ?2)
               ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1, owner = excluded.owner
               RETURNING epoch";
    let epoch = db
        .prepare_cached(sql)
        .and_then(|mut sql| sql.query_row(params![partition.0, owner], |row| row.get(0)))
        .map_err(|source| failed("a claim", source))?;
    Ok(Claim::new(partition, Epoch(unsigned(epoch))))
}

fn append(db: &Connection, claim: Claim, append: &Append) -> Result<Version> {
    check_claim(db, claim)?;
    let fail = |source| failed("an append", source).of(append.saga);
    let sql = "SELECT id, version, partition FROM saga WHERE uuid = ?1";
    let found: Option<(i64, i64, u32)> = db
        .prepare_cached(sql)
        .and_then(|mut sql| {
            let row = sql.query_row([append.saga.to_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            });
            row.optional()
        })
        .map_err(fail)?;
    let row = match found {
        None if append.expected == Version(0) => start(db, claim, append)?,
        None => return Err(stale(append, Version(0))),
        Some((_, _, home)) if home != claim.partition.0 => {
            return Err(foreign(append, claim, Partition(home)));
        }
        Some((_, version, _)) if unsigned(version) != append.expected.0 => {
            return Err(stale(append, Version(unsigned(version))));
        }
        Some((row, ..)) => {
            update(db, row, append).map_err(fail)?;
            row
        }
    };
    events(db, row, claim, append)?;
    Ok(append.version())
}

fn check_claim(db: &Connection, claim: Claim) -> Result<()> {
    let sql = "SELECT epoch FROM partition WHERE id = ?1";
    let current: Option<i64> = db
        .prepare_cached(sql)
        .and_then(|mut sql| {
            sql.query_row([claim.partition.0], |row| row.get(0))
                .optional()
        })
        .map_err(|source| failed("an append", source))?;
    let current = Epoch(current.map(unsigned).unwrap_or_default());
    if current == claim.epoch {
        return Ok(());
    }
    let Claim { partition, epoch } = claim;
    let message = format!("epoch {epoch} of partition {partition} ended with epoch {current}");
    Err(Error::new(ErrorKind::Fenced, message).at_epoch(current))
}

fn start(db: &Connection, claim: Claim, append: &Append) -> Result<i64> {
    let fail = |source| failed("a start", source).of(append.saga);
    let key = append.start_key.as_ref().map(IdempotencyKey::as_str);
    if let Some(key) = key {
        let existing: Option<[u8; 16]> = db
            .prepare_cached("SELECT uuid FROM saga WHERE start_key = ?1")
            .and_then(|mut sql| sql.query_row([key], |row| row.get(0)).optional())
            .map_err(fail)?;
        if let Some(existing) = existing {
            let message = "the start key belongs to an earlier start";
            let existing = SagaId::from_bytes(existing);
            return Err(Error::new(ErrorKind::DuplicateStart, message).of(existing));
        }
    }
    let Some(Event::SagaStarted { definition, .. }) = append.events.first() else {
        return Err(Error::corrupt("a log begins with saga_started").of(append.saga));
    };
    let sql = "INSERT INTO saga
               (uuid, partition, definition, status, ended, version, wake, updated, start_key)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    db.prepare_cached(sql)
        .and_then(|mut sql| {
            sql.insert(params![
                append.saga.to_bytes(),
                claim.partition.0,
                &**definition,
                append.status.as_str(),
                append.status.is_terminal(),
                signed(append.version().0),
                append.wake.map(|wake| signed(wake.as_unix_nanos())),
                signed(append.at.as_unix_nanos()),
                key,
            ])
        })
        .map_err(fail)
}

fn update(db: &Connection, row: i64, append: &Append) -> rusqlite::Result<()> {
    let sql = "UPDATE saga SET status = ?2, ended = ?3, version = ?4, wake = ?5, updated = ?6
               WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![
        row,
        append.status.as_str(),
        append.status.is_terminal(),
        signed(append.version().0),
        append.wake.map(|wake| signed(wake.as_unix_nanos())),
        signed(append.at.as_unix_nanos()),
    ])?;
    Ok(())
}

fn events(db: &Connection, row: i64, claim: Claim, append: &Append) -> Result<()> {
    let fail = |source| failed("an append", source).of(append.saga);
    let sql = "INSERT INTO event (saga, version, epoch, at, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = db.prepare_cached(sql).map_err(fail)?;
    for (number, event) in (append.expected.0 + 1..).zip(&append.events) {
        let body = serde_json::to_string(event).map_err(|source| {
            let message = format!("{} cannot be written", event.name());
            Error::corrupt(message).of(append.saga).caused_by(source)
        })?;
        let at = signed(append.at.as_unix_nanos());
        insert
            .execute(params![
                row,
                signed(number),
                signed(claim.epoch.0),
                at,
                body
            ])
            .map_err(fail)?;
    }
    Ok(())
}

fn save(db: &Connection, saga: SagaId, snapshot: &Snapshot) -> Result<()> {
    let sql = "INSERT INTO snapshot (saga, version, hash, body)
               SELECT id, ?2, ?3, ?4 FROM saga WHERE uuid = ?1
               ON CONFLICT (saga) DO UPDATE SET
               version = excluded.version, hash = excluded.hash, body = excluded.body";
    let version = signed(snapshot.version.0);
    let values = params![saga.to_bytes(), version, snapshot.hash, snapshot.bytes];
    db.prepare_cached(sql)
        .and_then(|mut sql| sql.execute(values))
        .map_err(|source| failed("a snapshot", source).of(saga))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orchestra_core::Timestamp;

    use super::*;
    use crate::store::sqlite::schema;

    fn start(number: u8, claim: Claim) -> (Job, oneshot::Receiver<Result<Version>>) {
        let started = Event::SagaStarted {
            definition: Arc::from("d"),
            version: Arc::from("1"),
            hash: Arc::from("h"),
            input: crate::Payload::default(),
            deadline: None,
            trace: None,
        };
        let saga = SagaId::from_bytes([number; 16]);
        let append = Append::new(saga, Version(0), Timestamp::UNIX_EPOCH, vec![started]);
        let append = append.start_key(Some(IdempotencyKey::new("key").unwrap()));
        let (reply, answer) = oneshot::channel();
        let append = Box::new(append);
        let job = Job::Append {
            claim,
            append,
            reply,
        };
        (job, answer)
    }

    #[test]
    fn a_group_that_is_not_durable_refuses_nobody_by_its_own_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sagas.db");
        let mut connection = schema::open(&path).unwrap();
        let claim = claim(&connection, Partition(0), "test").unwrap();
        // In this mode a reader keeps a writer from committing.
        connection
            .pragma_update(None, "journal_mode", "DELETE")
            .unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM saga").unwrap();

        let ((first, one), (second, two)) = (start(1, claim), start(2, claim));
        group(&mut connection, vec![first, second]);
        for answer in [one, two] {
            let error = answer.blocking_recv().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Store);
        }
    }
}
