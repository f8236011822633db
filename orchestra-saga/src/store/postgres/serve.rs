use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::PostgresStore;
use super::failure::closed;
use super::group::{Draft, Pending};
use super::reader::{self, What, Wish};
use super::values::{
    Place, column, entries, holder, partition_key, saga_of, signed, snapshot, status_code, summary,
    timer, unsigned, uuid_of,
};
use super::writer::fenced;
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::payload::Payload;
use crate::status::Status;
use crate::store::term::lost;
use crate::store::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Open, Position, SagaStore, Snapshot, Summary,
    Timer,
};

/// Sagas that are forgotten in one transaction.
const PIECE: usize = 500;
/// The longest term, a century; much beyond it dates end.
const LONGEST: Duration = Duration::from_secs(3_155_760_000);

fn seconds(term: Duration) -> f64 {
    term.min(LONGEST).as_secs_f64()
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The first column of the only row.
fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<Option<T>> {
    let found = rows.first().map(|row| column::<Option<T>>(row, 0));
    Ok(found.transpose()?.flatten())
}

impl PostgresStore {
    async fn take(
        &self,
        partition: Partition,
        owner: &str,
        term: Option<f64>,
    ) -> Result<Option<Claim>> {
        let inner = &self.inner;
        let owner = owner.replace('\0', "");
        let values: [&(dyn ToSql + Sync); 4] =
            [&inner.space, &partition_key(partition), &owner, &term];
        let sql = &inner.statements.take;
        let rows = self
            .query(&inner.control, "taking a partition", sql, &values)
            .await?;
        let epoch: Option<i64> = only(&rows)?;
        Ok(epoch.map(|epoch| Claim::new(partition, Epoch(unsigned(epoch)))))
    }

    async fn wish(&self, what: What, saga: SagaId, after: Version) -> Result<Vec<Row>> {
        let (reply, answer) = oneshot::channel();
        let wish = Wish {
            what,
            saga,
            after,
            reply,
        };
        if !self.inner.wishes.push(wish) {
            return Err(closed());
        }
        self.answer("reading a log", answer).await
    }

    /// Forgets one piece.
    async fn forget(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        let inner = &self.inner;
        let values: [&(dyn ToSql + Sync); 5] = [
            &inner.space,
            &partition_key(claim.partition),
            &signed(claim.epoch.0),
            &signed(before.as_unix_nanos()),
            &limit_of(limit),
        ];
        let sql = &inner.statements.purge;
        let rows = self.query(&inner.general, "a purge", sql, &values).await?;
        let gone: Option<i64> = only(&rows)?;
        let gone = gone.unwrap_or_default();
        usize::try_from(gone).map_err(|_negative| fenced(claim, Epoch(unsigned(-1 - gone))))
    }
}

/// The query of a filter, and its values. What is not asked for is not in it, so that each has its index.
fn listing<'a>(
    schema: &str,
    filter: &Filter,
    values: &'a mut Vec<Box<dyn ToSql + Sync + Send>>,
) -> (Arc<str>, Vec<&'a (dyn ToSql + Sync)>) {
    let mut conditions = String::from("TRUE");
    let mut add = |condition: &str, value: Box<dyn ToSql + Sync + Send>| {
        values.push(value);
        let number = values.len();
        conditions.extend([" AND ", condition, " $", &number.to_string()]);
    };
    if let Some(after) = filter.after {
        add("id >", Box::new(uuid_of(after)));
    }
    if let Some(status) = filter.status {
        add("status =", Box::new(status_code(status)));
    }
    if let Some(partition) = filter.partition {
        add("partition =", Box::new(partition_key(partition)));
    }
    if let Some(definition) = &filter.definition {
        add("definition =", Box::new(definition.to_string()));
    }
    let ends = filter.status.is_some_and(Status::is_terminal);
    let open = filter.open == Open::Only || (filter.status.is_some() && !ends);
    if open {
        conditions.push_str(" AND ended IS NULL");
    }
    values.push(Box::new(limit_of(filter.limit)));
    let page = format!("ORDER BY id LIMIT ${}", values.len());
    let rows = |own: &str| {
        format!(
            "SELECT id, definition, status, version, wake, updated, partition FROM {schema}.saga
             WHERE {conditions}{own} {page}"
        )
    };
    let sql = if open && filter.partition.is_none() {
        // The open ones of each partition are in order, and few beside all that ended.
        let rows = rows(" AND partition = p.id");
        format!("SELECT s.* FROM {schema}.partition p CROSS JOIN LATERAL ({rows}) s {page}")
    } else {
        rows("")
    };
    let values = values.iter().map(|value| {
        let value: &(dyn ToSql + Sync) = &**value;
        value
    });
    (Arc::from(sql), values.collect())
}

#[async_trait]
impl SagaStore for PostgresStore {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        let claim = self.take(partition, owner, None).await?;
        claim.ok_or_else(|| Error::corrupt("saga store: a claim has no epoch"))
    }

    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>> {
        self.take(partition, owner, Some(seconds(term))).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        let inner = &self.inner;
        let values: [&(dyn ToSql + Sync); 3] = [
            &partition_key(claim.partition),
            &signed(claim.epoch.0),
            &seconds(term),
        ];
        let sql = &inner.statements.renew;
        let rows = self
            .query(&inner.control, "renewing a lease", sql, &values)
            .await?;
        if rows.is_empty() {
            return Err(lost(claim));
        }
        Ok(())
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        let inner = &self.inner;
        let values: [&(dyn ToSql + Sync); 2] =
            [&partition_key(claim.partition), &signed(claim.epoch.0)];
        let sql = &inner.statements.release;
        let released = self
            .query(&inner.control, "giving a partition up", sql, &values)
            .await;
        released.map(drop)
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        let inner = &self.inner;
        let sql = &inner.statements.holders;
        let rows = self
            .query(&inner.control, "reading who has what", sql, &[])
            .await?;
        let mut holders: Vec<_> = rows.iter().map(holder).collect::<Result<_>>()?;
        holders.sort_unstable_by_key(|holder| holder.claim.partition);
        Ok(holders)
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let draft = Draft::new(claim, append)?;
        let (reply, answer) = oneshot::channel();
        if !self.inner.appends.push(Pending { draft, reply }) {
            return Err(closed().of(append.saga));
        }
        let answered = self.answer("an append", answer).await;
        answered.map_err(|error| match error.saga() {
            Some(_) => error,
            None => error.of(append.saga),
        })
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        let rows = self.wish(What::Log, saga, after).await?;
        reader::log(saga, after, &rows)
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        let inner = &self.inner;
        let sql = &inner.statements.find_start;
        let rows = self
            .query(
                &inner.general,
                "looking a start key up",
                sql,
                &[&key.as_str()],
            )
            .await?;
        Ok(only(&rows)?.map(saga_of))
    }

    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>> {
        let inner = &self.inner;
        let values: [&(dyn ToSql + Sync); 3] = [
            &partition_key(partition),
            &signed(now.as_unix_nanos()),
            &limit_of(limit),
        ];
        let sql = &inner.statements.timers;
        let rows = self
            .query(&inner.general, "reading timers", sql, &values)
            .await?;
        rows.iter().map(timer).collect()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let inner = &self.inner;
        let mut values = Vec::new();
        let (sql, values) = listing(&inner.site.config.schema, filter, &mut values);
        let rows = self
            .query(&inner.general, "listing sagas", &sql, &values)
            .await?;
        rows.iter().map(summary).collect()
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        let inner = &self.inner;
        let values: [&(dyn ToSql + Sync); 4] = [
            &uuid_of(saga),
            &signed(snapshot.version.0),
            &snapshot.hash.as_slice(),
            &snapshot.bytes,
        ];
        let sql = &inner.statements.save_snapshot;
        let saved = self.query(&inner.general, "a snapshot", sql, &values).await;
        saved.map(drop).map_err(|error| error.of(saga))
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        let rows = self.wish(What::Snapshot, saga, Version(0)).await?;
        rows.first().map(snapshot).transpose()
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        let inner = &self.inner;
        let Place { tx, append } = Place::of(after);
        // Of the first row everything may have been read before.
        let rows = limit_of(limit).saturating_add(1);
        let sql = &inner.statements.read;
        let rows = self
            .query(
                &inner.general,
                "reading the stream",
                sql,
                &[&tx, &append, &rows],
            )
            .await?;
        let mut found = Vec::new();
        for row in &rows {
            let left = limit - found.len();
            let new = entries(row)?.filter(|entry| entry.position > after);
            found.extend(new.take(left));
        }
        Ok(found)
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        let inner = &self.inner;
        let values: [&(dyn ToSql + Sync); 2] = [&&*blueprint.hash, &blueprint.document.as_str()];
        let sql = &inner.statements.define;
        let kept = self
            .query(&inner.general, "keeping a definition", sql, &values)
            .await;
        kept.map(drop)
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        let inner = &self.inner;
        let sql = &inner.statements.definition;
        let rows = self
            .query(&inner.general, "reading a definition", sql, &[&hash])
            .await?;
        let document: Option<&str> = only(&rows)?;
        let parsed = document.map(Payload::parse).transpose();
        let document = parsed.map_err(|source| {
            Error::corrupt(format!("definition {hash} is not JSON")).caused_by(source)
        })?;
        Ok(document.map(|document| Blueprint::new(Arc::from(hash), document)))
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        let mut gone = 0;
        while gone < limit {
            let piece = PIECE.min(limit - gone);
            let found = self.forget(claim, before, piece).await?;
            gone += found;
            if found < piece {
                break;
            }
        }
        Ok(gone)
    }
}
