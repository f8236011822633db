use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use super::gid::Key;
use super::rows::{Record, is_lock_timeout};
use super::{Abort, DISABLED, Database, PATIENCE, ROUNDS, Work, lost, reason, undone};
use crate::definition::CONFIRM;
use crate::id::StepName;
use crate::payload::Payload;
use crate::step::{Call, Failure};
use crate::two_phase::Participant;

/// Back to what the session has.
const IMPATIENCE_OVER: &str = "SET LOCAL lock_timeout TO DEFAULT";
/// The part of a saga's transaction that one database does (*branch*, as X/Open's XA calls it).
#[derive(Clone)]
pub struct Branch {
    pub(super) database: Database,
    pub(super) work: Arc<Work>,
}

impl Branch {
    /// Does the work and prepares it; none if somebody else has the key.
    async fn attempt(&self, key: &Key, call: &Call) -> Result<Option<Payload>, Failure> {
        let mut lease = self.database.lease().await?;
        let begun = lease.session.client.transaction().await;
        // After `PREPARE TRANSACTION` there is nothing to end. Before, it ends with its connection.
        let mut tx = ManuallyDrop::new(begun.map_err(|e| undone(&e))?);
        tx.batch_execute(PATIENCE).await.map_err(|e| undone(&e))?;
        let xid = match self.database.rows(&*tx).take(key).await {
            Ok(Some(xid)) => xid,
            Err(error) if !is_lock_timeout(&error) => return Err(undone(&error)),
            Ok(None) | Err(_) => {
                let ended = ManuallyDrop::into_inner(tx).rollback().await;
                ended.map_err(|e| undone(&e))?;
                lease.keep();
                return Ok(None);
            }
        };
        let eased = tx.batch_execute(IMPATIENCE_OVER).await;
        eased.map_err(|e| undone(&e))?;
        let inner = tx.savepoint("orchestra_two_phase").await;
        let inner = inner.map_err(|e| undone(&e))?;
        let output = match (self.work)(&inner, call).await {
            Ok(output) => output,
            Err(Abort::Rejected(reason)) => {
                inner.rollback().await.map_err(|e| undone(&e))?;
                let refused = Record::Refused(reason.clone());
                let kept = self.database.rows(&*tx).keep(key, &refused).await;
                kept.map_err(|e| undone(&e))?;
                let ended = ManuallyDrop::into_inner(tx).commit().await;
                ended.map_err(|e| lost(&e))?;
                lease.keep();
                return Err(Failure::rejected(reason));
            }
            Err(undo) => {
                drop(inner);
                if ManuallyDrop::into_inner(tx).rollback().await.is_ok() {
                    lease.keep();
                }
                return Err(match undo {
                    Abort::Database(error) => undone(&error),
                    Abort::Rejected(reason) | Abort::Retryable(reason) => {
                        Failure::retryable(reason)
                    }
                });
            }
        };
        inner.commit().await.map_err(|e| undone(&e))?;
        self.keep(&tx, key, &xid, &output).await?;
        let gid = self.database.0.namespace.gid(key);
        let prepared = tx
            .batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))
            .await;
        prepared.map_err(|error| unprepared(key, &error))?;
        lease.keep();
        Ok(Some(output))
    }

    /// Writes down what the work returned: for those who ask when it is committed, and for those before.
    async fn keep(
        &self,
        tx: &Transaction<'_>,
        key: &Key,
        xid: &str,
        output: &Payload,
    ) -> Result<(), Failure> {
        let record = Record::Committed(output.as_str().to_owned());
        let kept = self.database.rows(tx).keep(key, &record).await;
        kept.map_err(|e| undone(&e))?;
        let aside = self.database.0.pool.aside().await;
        let aside = aside.map_err(|error| Failure::retryable(reason(&error)))?;
        let rows = self.database.rows(&aside.client);
        let put = rows.put_output(key, xid, output.as_str()).await;
        put.map_err(|e| undone(&e))
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Participant for Branch {
    async fn prepare(&self, call: &Call) -> Result<Payload, Failure> {
        let key = Key::of(call);
        for _ in 0..ROUNDS {
            if let Some(output) = self.database.answer(&key).await? {
                return Ok(output);
            }
            if let Some(output) = self.attempt(&key, call).await? {
                return Ok(output);
            }
        }
        Err(Failure::unknown(format!(
            "somebody else is preparing {key}"
        )))
    }

    async fn commit(&self, call: &Call) -> Result<(), Failure> {
        let mut key = Key::of(call);
        // The second phase is a step of its own, with a name of its own.
        if let Some(step) = call.step.as_str().strip_suffix(CONFIRM)
            && let Ok(step) = StepName::new(step)
        {
            key.step = step;
        }
        self.database.commit(&key).await
    }

    async fn rollback(&self, call: &Call) -> Result<(), Failure> {
        self.database.roll_back(&Key::of(call)).await
    }
}

/// Why a transaction is not prepared.
fn unprepared(key: &Key, error: &tokio_postgres::Error) -> Failure {
    match error.code() {
        Some(code) if *code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            Failure::retryable(DISABLED)
        }
        // It used what cannot be prepared, and will again.
        Some(code) if *code == SqlState::FEATURE_NOT_SUPPORTED => Failure::rejected(reason(error)),
        Some(code) if *code == SqlState::DUPLICATE_OBJECT => Failure::unknown(format!(
            "{key} is prepared in another database of this server: give each a namespace of its own"
        )),
        _ => lost(error),
    }
}
