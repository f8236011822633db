use std::collections::HashMap;

use orchestra_core::IdempotencyKey;
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::batch::{Batch, code};
use super::cache::{Cache, Known};
use super::job::{Stop, Written};
use super::{signed, unsigned};
use crate::error::{Error, ErrorKind};
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::store::{Blueprint, Claim, Snapshot};

/// What the writer's connection writes, inside a transaction.
///
/// Laws are checked against what it remembers before anything is written, so what is refused leaves
/// nothing behind and needs no savepoint.
pub(super) struct Ledger<'db> {
    db: &'db Connection,
    statements: Statements<'db>,
    cache: Cache,
    epochs: HashMap<Partition, Epoch>,
    /// The position of the next frame. One that was given is never given again.
    next: i64,
    is_closed: bool,
}

/// The statements of every append.
struct Statements<'db> {
    begin: Statement<'db>,
    commit: Statement<'db>,
    start: Statement<'db>,
    /// Changes no column that is in an index.
    go_on: Statement<'db>,
    change: Statement<'db>,
    frame: Statement<'db>,
}

impl<'db> Statements<'db> {
    fn of(db: &'db Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: db.prepare("BEGIN IMMEDIATE")?,
            commit: db.prepare("COMMIT")?,
            start: db.prepare(
                "INSERT INTO saga (uuid, partition, status, version, frame, updated, wake, ended,
                                   definition, start_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            )?,
            go_on: db.prepare(
                "UPDATE saga SET status = ?2, version = ?3, frame = ?4, updated = ?5
                 WHERE id = ?1",
            )?,
            change: db.prepare(
                "UPDATE saga SET status = ?2, version = ?3, frame = ?4, updated = ?5, wake = ?6,
                                 ended = ?7
                 WHERE id = ?1",
            )?,
            frame: db.prepare(
                "INSERT INTO frame (position, saga, previous, version, epoch, at, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
        })
    }
}

impl<'db> Ledger<'db> {
    pub(super) fn of(db: &'db Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT max((SELECT coalesce(max(position), 0) + 1 FROM frame),
                              (SELECT coalesce(max(next), 1) FROM stream))";
        Ok(Self {
            db,
            statements: Statements::of(db)?,
            cache: Cache::default(),
            epochs: HashMap::new(),
            next: db.query_row(sql, [], |row| row.get(0))?,
            is_closed: false,
        })
    }

    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.statements.begin.execute([]).map(drop)
    }

    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        self.statements.commit.execute([]).map(drop)
    }

    /// Takes the transaction back, if that has not happened by itself, and forgets what it wrote.
    pub(super) fn roll_back(&mut self) {
        self.cache.clear();
        self.epochs.clear();
        if !self.db.is_autocommit() {
            // What cannot be taken back keeps the next transaction from beginning, which says so.
            let _begun = self.db.execute_batch("ROLLBACK");
        }
    }

    /// Nothing more will be asked for.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn claim(&mut self, partition: Partition, owner: &str) -> Written<Claim> {
        let sql = "INSERT INTO partition (id, epoch, owner) VALUES (?1, 1, ?2)
                   ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1, owner = excluded.owner
                   RETURNING epoch";
        let epoch = self
            .db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row(params![partition.0, owner], |row| row.get(0)))
            .map_err(Stop::failed("a claim"))?;
        let epoch = Epoch(unsigned(epoch));
        self.epochs.insert(partition, epoch);
        Ok(Claim::new(partition, epoch))
    }

    pub(super) fn append(&mut self, batch: &Batch) -> Written<Version> {
        self.check_claim(batch.claim)?;
        match self.cache.find(batch.saga) {
            None if batch.expected == Version(0) => self.start(batch)?,
            None => match self.look_up(batch.saga)? {
                None => return Err(stale(batch, Version(0))),
                Some(known) => self.go_on(batch, known)?,
            },
            Some(known) => self.go_on(batch, known)?,
        }
        Ok(batch.version)
    }

    fn check_claim(&mut self, claim: Claim) -> Written<()> {
        let current = match self.epochs.get(&claim.partition) {
            Some(&epoch) => epoch,
            None => self.look_epoch_up(claim.partition)?,
        };
        if current == claim.epoch {
            return Ok(());
        }
        let Claim { partition, epoch } = claim;
        let message = format!("epoch {epoch} of partition {partition} ended with epoch {current}");
        let error = Error::new(ErrorKind::Fenced, message).at_epoch(current);
        Err(Stop::Refused(error))
    }

    fn look_epoch_up(&mut self, partition: Partition) -> Written<Epoch> {
        let sql = "SELECT epoch FROM partition WHERE id = ?1";
        let found: Option<i64> = self
            .db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row([partition.0], |row| row.get(0)).optional())
            .map_err(Stop::failed("looking an epoch up"))?;
        let epoch = Epoch(found.map(unsigned).unwrap_or_default());
        if found.is_some() {
            self.epochs.insert(partition, epoch);
        }
        Ok(epoch)
    }

    fn look_up(&self, saga: SagaId) -> Written<Option<Known>> {
        let sql = "SELECT id, partition, version, frame, wake, ended FROM saga WHERE uuid = ?1";
        let known = |row: &Row<'_>| {
            Ok(Known {
                row: row.get(0)?,
                partition: Partition(row.get(1)?),
                version: Version(unsigned(row.get(2)?)),
                frame: row.get(3)?,
                wake: row.get(4)?,
                ended: row.get(5)?,
            })
        };
        self.db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row([saga.to_bytes()], known).optional())
            .map_err(Stop::failed("looking a saga up"))
    }

    fn start(&mut self, batch: &Batch) -> Written<()> {
        let Some(definition) = &batch.definition else {
            return Err(self.why_not(batch)?);
        };
        let inserted = self.statements.start.execute(params![
            batch.saga.to_bytes(),
            batch.claim.partition.0,
            code(batch.status),
            signed(batch.version.0),
            self.next,
            batch.at,
            batch.wake,
            batch.ended(),
            &**definition,
            batch.start_key.as_ref().map(IdempotencyKey::as_str),
        ]);
        let inserted = inserted.map_err(Stop::failed("a start"))?;
        if inserted == 0 {
            return Err(self.why_not(batch)?);
        }
        let row = self.db.last_insert_rowid();
        self.add(batch, row, 0)
    }

    /// Why a saga cannot be started by this.
    fn why_not(&self, batch: &Batch) -> Written<Stop> {
        if let Some(known) = self.look_up(batch.saga)? {
            return Ok(match check(batch, &known) {
                Err(stop) => stop,
                // Versions begin at one.
                Ok(()) => stale(batch, known.version),
            });
        }
        let existing = match &batch.start_key {
            Some(key) => self.named(key)?,
            None => None,
        };
        Ok(Stop::Refused(match existing {
            Some(existing) => {
                let message = "the start key belongs to an earlier start";
                Error::new(ErrorKind::DuplicateStart, message).of(existing)
            }
            None => Error::corrupt("a log begins with saga_started").of(batch.saga),
        }))
    }

    fn named(&self, key: &IdempotencyKey) -> Written<Option<SagaId>> {
        let sql = "SELECT uuid FROM saga WHERE start_key = ?1";
        let found: Option<[u8; 16]> = self
            .db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row([key.as_str()], |row| row.get(0)).optional())
            .map_err(Stop::failed("looking a start key up"))?;
        Ok(found.map(SagaId::from_bytes))
    }

    fn go_on(&mut self, batch: &Batch, known: Known) -> Written<()> {
        check(batch, &known)?;
        let (ended, status) = (batch.ended(), code(batch.status));
        let version = signed(batch.version.0);
        let updated = if (known.wake, known.ended) == (batch.wake, ended) {
            let values = params![known.row, status, version, self.next, batch.at];
            self.statements.go_on.execute(values)
        } else {
            self.statements.change.execute(params![
                known.row, status, version, self.next, batch.at, batch.wake, ended,
            ])
        };
        updated.map_err(Stop::failed("an append"))?;
        self.add(batch, known.row, known.frame)
    }

    /// Adds the frame of a batch whose saga's row names it already.
    fn add(&mut self, batch: &Batch, row: i64, previous: i64) -> Written<()> {
        let position = self.next;
        let added = self.statements.frame.execute(params![
            position,
            row,
            previous,
            signed(batch.expected.0 + 1),
            signed(batch.claim.epoch.0),
            batch.at,
            batch.body,
        ]);
        added.map_err(Stop::failed("an append"))?;
        self.next += 1;
        let known = Known {
            row,
            partition: batch.claim.partition,
            version: batch.version,
            frame: position,
            wake: batch.wake,
            ended: batch.ended(),
        };
        if known.ended.is_some() {
            self.cache.forget(batch.saga);
        } else {
            self.cache.keep(batch.saga, known);
        }
        Ok(())
    }

    pub(super) fn save(&mut self, saga: SagaId, snapshot: &Snapshot) -> Written<()> {
        let sql = "INSERT INTO snapshot (saga, version, hash, body)
                   SELECT id, ?2, ?3, ?4 FROM saga WHERE uuid = ?1
                   ON CONFLICT (saga) DO UPDATE SET
                   version = excluded.version, hash = excluded.hash, body = excluded.body";
        let version = signed(snapshot.version.0);
        let values = params![saga.to_bytes(), version, snapshot.hash, snapshot.bytes];
        self.db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.execute(values))
            .map_err(Stop::failed("a snapshot"))?;
        Ok(())
    }

    pub(super) fn define(&mut self, blueprint: &Blueprint) -> Written<()> {
        let sql = "INSERT INTO definition (hash, document) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.execute([&*blueprint.hash, blueprint.document.as_str()]))
            .map_err(Stop::failed("keeping a definition"))?;
        Ok(())
    }

    /// Forgets these sagas, as far as they ended before that moment, until so many frames are gone. Returns
    /// how many sagas.
    pub(super) fn purge(
        &mut self,
        claim: Claim,
        sagas: &[SagaId],
        before: i64,
        frames: usize,
    ) -> Written<usize> {
        self.check_claim(claim)?;
        if sagas.is_empty() {
            return Ok(0);
        }
        self.keep_place()?;
        let (mut purged, mut gone) = (0, 0);
        for &saga in sagas {
            if gone >= frames {
                break;
            }
            if let Some(dropped) = self.forget(claim.partition, saga, before)? {
                purged += 1;
                gone += dropped;
            }
        }
        Ok(purged)
    }

    /// Positions are not given again although the frames at the end may be gone.
    fn keep_place(&self) -> Written<()> {
        let sql = "INSERT INTO stream (id, next) VALUES (1, ?1)
                   ON CONFLICT (id) DO UPDATE SET next = excluded.next";
        self.db
            .prepare_cached(sql)
            .and_then(|mut sql| sql.execute([self.next]))
            .map_err(Stop::failed("a purge"))?;
        Ok(())
    }

    /// Forgets a saga and returns how many frames it had, if it ended before that moment.
    fn forget(&mut self, of: Partition, saga: SagaId, before: i64) -> Written<Option<usize>> {
        let fail = Stop::failed("a purge");
        let sql = "DELETE FROM saga WHERE uuid = ?1 AND partition = ?2 AND ended < ?3
                   RETURNING id, frame";
        let found: Option<(i64, i64)> = self
            .db
            .prepare_cached(sql)
            .and_then(|mut sql| {
                let values = params![saga.to_bytes(), of.0, before];
                let row = sql.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)));
                row.optional()
            })
            .map_err(&fail)?;
        let Some((row, last)) = found else {
            return Ok(None);
        };
        self.cache.forget(saga);
        let mut snapshot = self
            .db
            .prepare_cached("DELETE FROM snapshot WHERE saga = ?1")
            .map_err(&fail)?;
        snapshot.execute([row]).map_err(&fail)?;
        self.forget_frames(last).map(Some)
    }

    fn forget_frames(&self, last: i64) -> Written<usize> {
        let fail = Stop::failed("a purge");
        let sql = "DELETE FROM frame WHERE position = ?1 RETURNING previous";
        let mut sql = self.db.prepare_cached(sql).map_err(&fail)?;
        let (mut position, mut dropped) = (last, 0);
        while position > 0 {
            let previous = sql.query_row([position], |row| row.get(0)).optional();
            dropped += 1;
            // A chain that is broken ends where it breaks; what is left of it nobody finds.
            position = previous.map_err(&fail)?.unwrap_or_default();
        }
        Ok(dropped)
    }
}

/// Whether a batch may follow what is known of its saga.
fn check(batch: &Batch, known: &Known) -> Written<()> {
    if known.partition != batch.claim.partition {
        let (home, other) = (known.partition, batch.claim.partition);
        let message = format!("partition {home} has the saga, not {other}");
        let error = Error::new(ErrorKind::ForeignPartition, message).of(batch.saga);
        return Err(Stop::Refused(error));
    }
    if known.version != batch.expected {
        return Err(stale(batch, known.version));
    }
    Ok(())
}

fn stale(batch: &Batch, found: Version) -> Stop {
    let expected = batch.expected;
    let message = format!("version {found} where {expected} was expected");
    Stop::Refused(Error::new(ErrorKind::StaleVersion, message).of(batch.saga))
}
