//! The writer thread.

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::checkpoint::Checkpoint;
use super::job::{Job, Lost};
use super::ledger::Ledger;

/// The most jobs of one transaction.
const GROUP: usize = 2048;

/// How often an idle writer looks for the next job before it sleeps: being woken takes longer than a step
/// that does little, and a lone saga has one append after the other.
const LOOKS: u32 = 300;

pub(super) type Queue = mpsc::Receiver<Box<dyn Job>>;

/// Writes until every sender is gone or the store is closed.
pub(super) fn run(connection: &Connection, mut checkpoint: Checkpoint, mut queue: Queue) {
    let mut ledger = match Ledger::of(connection) {
        Ok(ledger) => ledger,
        Err(error) => return refuse_all(error, queue),
    };
    let mut jobs = Vec::with_capacity(GROUP);
    while take(&mut queue, &mut jobs) {
        group(&mut ledger, &mut jobs);
        if ledger.is_closed() {
            queue.close();
        }
        checkpoint.after_commit(connection);
    }
    drop(ledger);
    checkpoint.finish(connection);
}

/// Whether there was something.
fn take(queue: &mut Queue, jobs: &mut Vec<Box<dyn Job>>) -> bool {
    for _ in 0..LOOKS {
        if let Ok(job) = queue.try_recv() {
            jobs.push(job);
            break;
        }
        std::thread::yield_now();
    }
    if jobs.is_empty() {
        return queue.blocking_recv_many(jobs, GROUP) > 0;
    }
    while jobs.len() < GROUP
        && let Ok(job) = queue.try_recv()
    {
        jobs.push(job);
    }
    true
}

/// One transaction for all; nobody hears of success before it is durable.
fn group(ledger: &mut Ledger<'_>, jobs: &mut Vec<Box<dyn Job>>) {
    match attempt(ledger, jobs) {
        Ok(()) => jobs.drain(..).for_each(|job| job.answer(None)),
        Err(Broken::Transaction(lost)) => {
            jobs.drain(..).for_each(|job| job.answer(Some(&lost)));
        }
        Err(Broken::Statement(error)) if jobs.len() == 1 => {
            let failed = jobs.pop().into_iter().zip([error]);
            failed.for_each(|(job, error)| job.fail(error));
        }
        // The one that cannot be written must not take the others with it.
        Err(Broken::Statement(_)) => {
            for job in jobs.drain(..) {
                group(ledger, &mut vec![job]);
            }
        }
    }
}

enum Broken {
    /// None of the group is durable.
    Transaction(Lost),
    /// One of the group cannot be written.
    Statement(crate::error::Error),
}

fn attempt(ledger: &mut Ledger<'_>, jobs: &mut [Box<dyn Job>]) -> Result<(), Broken> {
    let begun = ledger.begin();
    begun.map_err(|source| Broken::Transaction(Lost::begin(source)))?;
    for job in jobs {
        if let Err(error) = job.run(ledger) {
            ledger.roll_back();
            return Err(Broken::Statement(error));
        }
    }
    ledger.commit().map_err(|source| {
        ledger.roll_back();
        Broken::Transaction(Lost::commit(&source))
    })
}

/// A file that cannot be read takes nothing.
fn refuse_all(source: rusqlite::Error, mut queue: Queue) {
    let lost = Lost::begin(source);
    while let Some(job) = queue.blocking_recv() {
        job.answer(Some(&lost));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orchestra_core::{IdempotencyKey, Timestamp};
    use tokio::sync::oneshot;

    use super::*;
    use crate::error::{ErrorKind, Result};
    use crate::event::{Event, Started};
    use crate::id::{Partition, SagaId, Version};
    use crate::store::sqlite::batch::Batch;
    use crate::store::sqlite::job::{Stop, job};
    use crate::store::sqlite::{read, schema};
    use crate::store::{Append, Claim};

    type Answer<T> = oneshot::Receiver<Result<T>>;

    fn saga(number: u8) -> SagaId {
        SagaId::from_bytes([number; 16])
    }

    fn append(claim: Claim, append: &Append) -> (Box<dyn Job>, Answer<Version>) {
        let batch = Batch::of(claim, append).unwrap();
        job(move |ledger| ledger.append(&batch))
    }

    fn started(number: u8) -> Append {
        let started = Started::new("d", "1", "h", crate::Payload::default());
        let started = Event::SagaStarted(Arc::new(started));
        Append::new(
            saga(number),
            Version(0),
            Timestamp::UNIX_EPOCH,
            vec![started],
        )
    }

    fn more(number: u8, expected: u64) -> Append {
        let events = vec![Event::SagaRecovered];
        Append::new(
            saga(number),
            Version(expected),
            Timestamp::UNIX_EPOCH,
            events,
        )
    }

    fn claimed(ledger: &mut Ledger<'_>) -> Claim {
        ledger.claim(Partition(0), "test").unwrap()
    }

    fn heard<T>(answer: Answer<T>) -> std::result::Result<T, ErrorKind> {
        answer
            .blocking_recv()
            .unwrap()
            .map_err(|error| error.kind())
    }

    #[test]
    fn a_group_that_is_not_durable_refuses_nobody_by_its_own_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sagas.db");
        let connection = schema::open(&path).unwrap();
        // In this mode a reader keeps a writer from committing.
        connection
            .pragma_update(None, "journal_mode", "DELETE")
            .unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let mut ledger = Ledger::of(&connection).unwrap();
        let claim = claimed(&mut ledger);
        let (before, zeroth) = append(claim, &started(0));
        group(&mut ledger, &mut vec![before]);
        assert_eq!(heard(zeroth), Ok(Version(1)));
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM saga").unwrap();

        let key = Some(IdempotencyKey::new("key").unwrap());
        let (first, one) = append(claim, &started(1).start_key(key.clone()));
        let (second, two) = append(claim, &started(2).start_key(key));
        let (third, three) = append(claim, &more(0, 1));
        group(&mut ledger, &mut vec![first, second, third]);
        for answer in [one, two, three] {
            assert_eq!(heard(answer), Err(ErrorKind::Store));
        }
        // What was written in vain is not remembered either.
        reader.execute_batch("COMMIT").unwrap();
        let (again, answer) = append(claim, &more(0, 1));
        let (none, nothing) = append(claim, &more(1, 1));
        group(&mut ledger, &mut vec![again, none]);
        assert_eq!(heard(answer), Ok(Version(2)));
        assert_eq!(heard(nothing), Err(ErrorKind::StaleVersion));
    }

    #[test]
    fn a_store_whose_lock_another_holds_is_busy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sagas.db");
        let connection = schema::open(&path).unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let mut ledger = Ledger::of(&connection).unwrap();
        let claim = claimed(&mut ledger);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (job, answer) = append(claim, &started(1));
        group(&mut ledger, &mut vec![job]);
        assert_eq!(heard(answer), Err(ErrorKind::Busy));
        other.execute_batch("COMMIT").unwrap();
        let (job, answer) = append(claim, &started(1));
        group(&mut ledger, &mut vec![job]);
        assert_eq!(heard(answer), Ok(Version(1)));
    }

    #[test]
    fn a_batch_that_has_no_room_leaves_nothing_and_room_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let connection = schema::open(&directory.path().join("sagas.db")).unwrap();
        let mut ledger = Ledger::of(&connection).unwrap();
        let claim = claimed(&mut ledger);
        connection
            .pragma_update(None, "max_page_count", 100)
            .unwrap();
        let mut large = more(1, 1);
        let reason = "x".repeat(1 << 20);
        large.events = vec![Event::SagaCancelRequested { reason }];
        let (first, one) = append(claim, &started(1));
        let (second, two) = append(claim, &large);
        let (third, three) = append(claim, &more(1, 1));
        group(&mut ledger, &mut vec![first, second, third]);
        assert_eq!(heard(one), Ok(Version(1)));
        assert_eq!(heard(two), Err(ErrorKind::Full));
        assert_eq!(heard(three), Ok(Version(2)));
        assert_eq!(
            read::load(&connection, saga(1), Version(0)).unwrap().len(),
            2
        );
    }

    #[test]
    fn a_job_that_cannot_be_written_takes_no_other_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let connection = schema::open(&directory.path().join("sagas.db")).unwrap();
        let mut ledger = Ledger::of(&connection).unwrap();
        let claim = claimed(&mut ledger);
        let (first, one) = append(claim, &started(1));
        let (broken, failed) = job(move |ledger: &mut Ledger<'_>| {
            // It fails when half of it is written.
            let batch = Batch::of(claim, &started(2)).unwrap();
            ledger.append(&batch)?;
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            let full = rusqlite::Error::SqliteFailure(full, None);
            Err::<(), _>(Stop::failed("a test")(full))
        });
        let (last, two) = append(claim, &more(1, 1));
        group(&mut ledger, &mut vec![first, broken, last]);
        assert_eq!(heard(one), Ok(Version(1)));
        assert_eq!(heard(failed), Err(ErrorKind::Full));
        assert_eq!(heard(two), Ok(Version(2)));
        assert_eq!(read::load(&connection, saga(2), Version(0)).unwrap(), []);
    }
}
