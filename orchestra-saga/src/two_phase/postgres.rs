//! Two-phase commit with PostgreSQL: `PREPARE TRANSACTION`, and what ends it.
//!
//! A [`Branch`] runs your work in a transaction and prepares it: from then on the transaction is no longer
//! of a connection, survives the server's crash, and ends only by `COMMIT PREPARED` or `ROLLBACK PREPARED`.
//! It is called `orchestra/<namespace>/<saga>/<iteration>/<step>`.
//!
//! **What is remembered.** Once a prepared transaction has ended, PostgreSQL does not know how. So the
//! transaction writes a row of its own, which is there exactly if it was committed. A rollback writes that row
//! with another word, which refuses whatever `prepare` comes after it; one that is still at work has the row
//! locked, and the rollback waits for it and rolls back what it has prepared. What the work returned is
//! committed in a second row before the transaction is prepared, on a connection with
//! `synchronous_commit = off`: the log is flushed in order, so what makes the transaction durable makes the row
//! durable, and no further flush is waited for. That row is what a repeated `prepare` is answered from.
//!
//! **Why it blocks.** A participant that has prepared gave away the right to decide. Until it is told, it keeps
//! all its locks, and keeps `VACUUM` from removing what was deleted since; if the coordinator's log is gone,
//! that is for ever. No protocol of two phases can do better (Skeen, "Nonblocking commit protocols", 1981).
//! Keep such sagas short, put nothing that waits or sleeps between the phases, and watch
//! [`Database::in_doubt`]. Where half done may be seen, a saga with compensations holds no locks.
//!
//! | what dies, and when | what happens |
//! |---|---|
//! | the coordinator, before `prepare` is heard | nothing is there; recovery asks again |
//! | the coordinator, while the work is done | the server rolls back what belongs to the connection; recovery asks again |
//! | the coordinator, after the transaction is prepared, before the log says so | recovery asks again and is answered from the second row; the work is not repeated |
//! | the coordinator, after all are prepared, before the decision | recovery decides; until then all are in doubt and hold their locks |
//! | the coordinator, after the decision, before a commit | recovery commits, or the [`Resolver`], whichever comes first |
//! | the coordinator for ever, its log is there | any executor that takes over its partition goes on |
//! | the log for ever | no saga is known: the resolver rolls back what is older than [`presumed_after`](resolver::Builder::presumed_after). What others committed before stays: a lost log cannot be made good |
//! | the connection, before `PREPARE TRANSACTION` is sent | the transaction is gone; tried again |
//! | the connection, during `PREPARE TRANSACTION` | unknown; asked again, and found prepared or not |
//! | the connection, during `COMMIT PREPARED` or `ROLLBACK PREPARED` | unknown; asked again, and found ended by the first row |
//! | the server, between the phases | the transaction is there when it is back; the second phase is repeated until then |
//! | the server's disk, after `prepare` was answered | the promise is broken: `commit` fails, the saga is parked, a person decides |
//! | somebody, who ends a prepared transaction by hand | the same end: nothing more happens. The other: the saga is parked |
//! | the rows, pruned too early | a late `prepare` is no longer refused, a repeated `commit` is no longer known; see [`Database::prune`] |
//!
//! Several things that PostgreSQL does not prepare are refused for good: transactions that used temporary
//! tables, `LISTEN` or `NOTIFY`, cursors `WITH HOLD` or exported snapshots. Only the role that prepared a
//! transaction, or a superuser, may end it. Identifiers are of the whole server: two databases of one server
//! that take part in one saga do so under different steps, or need different namespaces.

mod branch;
mod builder;
mod gid;
mod pool;
pub mod resolver;
mod rows;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use orchestra_core::Timestamp;
use tokio_postgres::{Client, GenericClient, Transaction};

pub use branch::Branch;
pub use builder::Builder;
pub use resolver::{Outcome, Resolver};

use self::gid::{Key, Namespace};
use self::pool::{Lease, Pool};
use self::rows::{Ended, Record, Rows, is_lock_timeout};
use super::Coordinator;
use crate::barrier;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{SagaId, StepName};
use crate::payload::Payload;
use crate::sql;
use crate::step::{Call, Failure};

/// Why the work of a branch did not happen.
pub type Abort = barrier::Abort<tokio_postgres::Error>;

/// The work of a branch, as it is done.
pub type Working<'a> = Pin<Box<dyn Future<Output = Result<Payload, Abort>> + Send + 'a>>;

type Work = dyn for<'a> Fn(&'a Transaction<'_>, &'a Call) -> Working<'a> + Send + Sync;

/// How often a phase looks again when somebody else is at the same transaction.
const ROUNDS: u32 = 5;
/// How long each look waits for whoever has the key.
const PATIENCE: &str = "SET LOCAL lock_timeout = '200ms'";
/// How soon a transaction that somebody is about to end is looked at again.
const SOON: Duration = Duration::from_millis(10);

/// What a server must be told that does not prepare transactions.
const DISABLED: &str = "the server does not prepare transactions: set max_prepared_transactions in its \
                        configuration to the most that may be prepared at a time, and restart it";

/// A PostgreSQL database that takes part in two-phase commits. A clone is the same one.
///
/// ```no_run
/// use orchestra_saga::two_phase::postgres::{Abort, Database, Resolver};
/// use orchestra_saga::{Definition, Executor, MemoryStore, Payload, Start};
///
/// # async fn transfer() -> Result<(), Box<dyn std::error::Error>> {
/// let bank = Database::builder("bank").connect("host=127.0.0.1 user=bank".parse()?).await?;
/// bank.install().await?;
///
/// let mut d = Definition::builder("transfer", "1");
/// let cents = d.input::<i64>();
/// let take = bank.branch(|tx, call| {
///     let cents = call.input.read::<i64>();
///     Box::pin(async move {
///         let cents = cents.map_err(|error| Abort::rejected(error.to_string()))?;
///         let sql = "UPDATE account SET cents = cents - $1 WHERE id = 7 RETURNING cents";
///         let left: i64 = tx.query_one(sql, &[&cents]).await?.get(0);
///         if left < 0 {
///             return Err(Abort::rejected("there is not so much"));
///         }
///         Ok(Payload::from(serde_json::json!(left)))
///     })
/// });
/// d.two_phase::<i64, _>("take", cents, take).end();
/// // … and a branch of another database
///
/// let executor = Executor::builder(MemoryStore::default()).definition(d.build()?).build().await?;
/// let resolver = Resolver::builder(bank, executor.clone()).start();
/// executor.run(Start::of("transfer").input(&100_i64)?).await?;
/// resolver.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    pool: Pool,
    namespace: Namespace,
}

impl Database {
    /// A database, whose transactions are told from those of other programs by this name: 1 to 64 letters,
    /// digits, `_`, `-` or `.`, the same in every process of the program.
    pub fn builder(namespace: impl Into<String>) -> Builder {
        Builder::new(namespace.into())
    }

    /// Creates the tables unless they are there.
    pub async fn install(&self) -> Result<()> {
        let lease = self.0.pool.lease().await?;
        let client = &lease.session.client;
        let installed = client.batch_execute(rows::TABLES).await;
        installed.map_err(|source| failed("installing the tables", source))?;
        lease.keep();
        Ok(())
    }

    /// A participant that does this work in this database, between the beginning of its transaction and
    /// `PREPARE TRANSACTION`. What it returns is the output of the step.
    ///
    /// Everything goes through the transaction, which is a savepoint of the one that is prepared. What must
    /// not fail later is checked here; constraints that are deferred are checked when it is prepared, and
    /// what is prepared can be committed.
    pub fn branch<F>(&self, work: F) -> Branch
    where
        F: for<'a> Fn(&'a Transaction<'_>, &'a Call) -> Working<'a> + Send + Sync + 'static,
    {
        Branch {
            database: self.clone(),
            work: Arc::new(work),
        }
    }

    /// The transactions of the namespace that are prepared in this database, the oldest first.
    pub async fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        let lease = self.0.pool.lease().await?;
        let listed = self.rows(&lease.session.client).list().await;
        let listed = listed.map_err(|source| failed("listing", source))?;
        lease.keep();
        let doubt = |listed: rows::Listed| InDoubt {
            saga: listed.key.saga,
            step: listed.key.step,
            iteration: listed.key.iteration,
            age: listed.age,
        };
        Ok(listed.into_iter().map(doubt).collect())
    }

    /// Looks once at what is in doubt. What is decided is committed or rolled back at once. What nobody
    /// knows is rolled back when it is that old. What is not decided waits.
    pub async fn resolve(
        &self,
        coordinator: &dyn Coordinator,
        presumed_after: Duration,
    ) -> Result<Outcome> {
        resolver::pass(self, coordinator, presumed_after).await
    }

    /// Forgets at most `limit` transactions that ended and were begun before that moment, by the clock of the
    /// database, and says how many. A `prepare` or `commit` of theirs that is still on its way is then taken
    /// for the first, so the moment must be longer ago than a saga can last, and than a call can be late.
    pub async fn prune(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let lease = self.0.pool.lease().await?;
        let pruned = self.rows(&lease.session.client).prune(before, limit).await;
        let pruned = pruned.map_err(|source| failed("pruning", source))?;
        lease.keep();
        Ok(pruned)
    }

    async fn check(&self) -> Result<()> {
        let lease = self.0.pool.lease().await?;
        let client = &lease.session.client;
        let sql = "SELECT current_setting('max_prepared_transactions')::int";
        let most = client.query_typed_one(sql, &[]).await;
        let most = most.and_then(|row| row.try_get::<_, i32>(0));
        if most.map_err(|source| failed("asking for its settings", source))? < 1 {
            let message = format!("two-phase commit: {DISABLED}");
            return Err(Error::new(ErrorKind::CannotPrepare, message));
        }
        lease.keep();
        Ok(())
    }

    fn rows<'a, C: GenericClient>(&'a self, db: &'a C) -> Rows<'a, C> {
        let namespace = &self.0.namespace;
        Rows { db, namespace }
    }

    async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let lease = self.0.pool.lease().await;
        lease.map_err(|error| Failure::retryable(reason(&error)))
    }

    /// What is to be said of a key without any work.
    async fn answer(&self, key: &Key) -> Result<Option<Payload>, Failure> {
        let lease = self.lease().await?;
        let rows = self.rows(&lease.session.client);
        // One after the other: a commit in between is seen by the second.
        let (prepared, record) = join(rows.prepared(key), rows.record(key)).await;
        let (prepared, record) = (
            prepared.map_err(|e| lost(&e))?,
            record.map_err(|e| lost(&e))?,
        );
        lease.keep();
        let output = match (prepared, record) {
            (Some(Some(output)), _) | (None, Some(Record::Committed(output))) => output,
            (Some(None), _) => {
                return Err(Failure::unknown(format!(
                    "what {key} returned is not there"
                )));
            }
            (None, Some(Record::RolledBack)) => {
                return Err(Failure::rejected(format!("{key} was rolled back before")));
            }
            (None, Some(Record::Refused(reason))) => return Err(Failure::rejected(reason)),
            (None, None) => return Ok(None),
        };
        let output = Payload::parse(&output);
        output.map(Some).map_err(|error| {
            Failure::unknown(format!("what {key} returned cannot be read: {error}"))
        })
    }

    /// Commits the last iteration of the key's step.
    async fn commit(&self, key: &Key) -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            let lease = self.lease().await?;
            let rows = self.rows(&lease.session.client);
            let Some(found) = rows.last_prepared(key).await.map_err(|e| lost(&e))? else {
                let record = rows.last_record(key).await.map_err(|e| lost(&e))?;
                lease.keep();
                return match record {
                    Some(Record::Committed(_)) => Ok(()),
                    Some(Record::RolledBack) => Err(broken(key, "was rolled back")),
                    Some(Record::Refused(_)) => Err(broken(key, "was refused")),
                    None => Err(broken(key, "is not prepared, and was not committed")),
                };
            };
            match rows.commit(&found).await.map_err(|e| lost(&e))? {
                Ended::Done => {
                    self.forget_outputs(lease, &found).await;
                    return Ok(());
                }
                Ended::Absent => {}
                Ended::Busy => tokio::time::sleep(SOON).await,
            }
            lease.keep();
        }
        Err(Failure::unknown(format!("somebody else is ending {key}")))
    }

    /// Rolls the key back and keeps it from being prepared again.
    async fn roll_back(&self, key: &Key) -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            let mut lease = self.lease().await?;
            let ended = self.rows(&lease.session.client).roll_back(key).await;
            if ended.map_err(|e| lost(&e))? == Ended::Busy {
                tokio::time::sleep(SOON).await;
                lease.keep();
                continue;
            }
            let buried = self.bury(&mut lease.session.client, key).await;
            match buried.map_err(|e| lost(&e))? {
                Some(Record::Committed(_)) => {
                    lease.keep();
                    return Err(Failure::rejected(format!("{key} is committed already")));
                }
                Some(_) => {
                    self.forget_outputs(lease, key).await;
                    return Ok(());
                }
                // Somebody was at it, and may have prepared it now.
                None => lease.keep(),
            }
        }
        Err(Failure::unknown(format!(
            "somebody else is preparing {key}"
        )))
    }

    /// Says in the key's row that it was rolled back, and returns what is there afterwards; none if
    /// somebody has it.
    async fn bury(
        &self,
        client: &mut Client,
        key: &Key,
    ) -> Result<Option<Record>, tokio_postgres::Error> {
        let tx = client.transaction().await?;
        tx.batch_execute(PATIENCE).await?;
        let rows = self.rows(&tx);
        match rows.take(key).await {
            Ok(Some(_xid)) => {
                rows.keep(key, &Record::RolledBack).await?;
                tx.commit().await?;
                Ok(Some(Record::RolledBack))
            }
            Ok(None) => {
                let record = rows.record(key).await?;
                tx.rollback().await?;
                Ok(record)
            }
            Err(error) if is_lock_timeout(&error) => {
                tx.rollback().await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What stays is pruned.
    async fn forget_outputs(&self, lease: Lease<'_>, key: &Key) {
        let forgotten = self.rows(&lease.session.client).drop_outputs(key).await;
        match forgotten {
            Ok(()) => lease.keep(),
            Err(error) => tracing::debug!(%error, %key, "an output stays until it is pruned"),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("namespace", &self.0.namespace.as_str())
            .finish_non_exhaustive()
    }
}

/// A transaction that is prepared and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InDoubt {
    /// The saga.
    pub saga: SagaId,
    /// The step.
    pub step: StepName,
    /// How often the saga had gone back past the step.
    pub iteration: u32,
    /// How long it has been prepared, by the clock of the database.
    pub age: Duration,
}

impl InDoubt {
    fn key(&self) -> Key {
        Key {
            saga: self.saga,
            step: self.step.clone(),
            iteration: self.iteration,
        }
    }
}

fn failed(what: &str, source: tokio_postgres::Error) -> Error {
    Error::new(
        sql::postgres_kind(&source),
        format!("two-phase commit: {what} failed"),
    )
    .caused_by(source)
}

/// A failure tells its reason as text, so the causes belong to it.
fn reason(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Before `PREPARE TRANSACTION` was sent, nothing can be left behind.
fn undone(error: &tokio_postgres::Error) -> Failure {
    Failure::retryable(reason(error))
}

/// What the server refused did not happen; without an answer nobody knows.
fn lost(error: &tokio_postgres::Error) -> Failure {
    if error.as_db_error().is_some() {
        Failure::retryable(reason(error))
    } else {
        Failure::unknown(reason(error))
    }
}

/// A promise that was not kept, which only a person can settle.
fn broken(key: &Key, what: &str) -> Failure {
    Failure::retryable(format!("{key} is to be committed, but it {what}"))
}
