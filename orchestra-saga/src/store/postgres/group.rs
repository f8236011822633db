//! A group of appends as the columns of one statement, and what the server says of each.

use std::sync::Arc;

use orchestra_core::IdempotencyKey;
use tokio::sync::oneshot;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::link::Session;
use super::queue::Waiting;
use super::schema::Statements;
use super::values::{partition_key, partition_of, saga_of, signed, status_code, unsigned, uuid_of};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::store::{Append, Claim};

/// The longest body of one append; the protocol ends at twice that.
const MAX_BODY: usize = 1 << 29;

/// An append as it will be written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) claim: Claim,
    saga: SagaId,
    expected: Version,
    version: Version,
    at: i64,
    status: i16,
    ended: Option<i64>,
    wake: Option<i64>,
    /// Nothing if a first append does not begin as one should.
    definition: Option<Arc<str>>,
    key: Option<IdempotencyKey>,
    body: String,
}

impl Draft {
    pub(super) fn new(claim: Claim, append: &Append) -> Result<Self> {
        let refuse = |kind, message: String| Err(Error::new(kind, message).of(append.saga));
        if append.events.is_empty() {
            return refuse(
                ErrorKind::InvalidInput,
                "an append has no events".to_owned(),
            );
        }
        let body = serde_json::to_string(&append.events).map_err(|source| {
            let error = Error::corrupt("events cannot be written").of(append.saga);
            error.caused_by(source)
        })?;
        if body.len() > MAX_BODY {
            let message = format!("an append of {} bytes is over {MAX_BODY}", body.len());
            return refuse(ErrorKind::InvalidInput, message);
        }
        let at = signed(append.at.as_unix_nanos());
        let (definition, key) = match append.events.first() {
            Some(Event::SagaStarted(started)) if append.expected == Version(0) => {
                if started.definition.contains('\0') {
                    let message = "the name of a definition has a zero byte".to_owned();
                    return refuse(ErrorKind::InvalidInput, message);
                }
                (
                    Some(Arc::clone(&started.definition)),
                    append.start_key.clone(),
                )
            }
            _ => (None, append.start_key.clone()),
        };
        Ok(Self {
            claim,
            saga: append.saga,
            expected: append.expected,
            version: append.version(),
            at,
            status: status_code(append.status),
            ended: append.status.is_terminal().then_some(at),
            wake: append.wake.map(|wake| signed(wake.as_unix_nanos())),
            definition,
            key,
            body,
        })
    }

    fn is_start(&self) -> bool {
        self.expected == Version(0)
    }
}

/// An append that waits for its turn, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) draft: Draft,
    pub(super) reply: oneshot::Sender<Result<Version>>,
}

impl Pending {
    pub(super) fn answer(self, result: Result<()>) {
        let Draft { version, saga, .. } = self.draft;
        let result = result.map(|()| version);
        // Whoever gave up reads the log.
        let _gone = self.reply.send(result.map_err(|error| match error.saga() {
            Some(_) => error,
            None => error.of(saga),
        }));
    }
}

impl Waiting for Pending {
    fn saga(&self) -> SagaId {
        self.draft.saga
    }

    fn weight(&self) -> usize {
        self.draft.body.len()
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Why an append was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Stale(Version),
    Foreign(Partition),
    Duplicate(SagaId),
    /// Whatever was in the way is gone by now.
    Again,
    NoStart,
}

impl Verdict {
    pub(super) fn error(&self, draft: &Draft) -> Error {
        match *self {
            Self::Stale(found) => {
                let message = format!("version {found} where {} was expected", draft.expected);
                Error::new(ErrorKind::StaleVersion, message).of(draft.saga)
            }
            Self::Foreign(home) => {
                let own = draft.claim.partition;
                let message = format!("partition {home} has the saga, not {own}");
                Error::new(ErrorKind::ForeignPartition, message).of(draft.saga)
            }
            Self::Duplicate(saga) => {
                let message = "the start key belongs to an earlier start";
                Error::new(ErrorKind::DuplicateStart, message).of(saga)
            }
            Self::Again => {
                let message = "saga store: what was in the way of a start changes too fast";
                Error::new(ErrorKind::Busy, message).of(draft.saga)
            }
            Self::NoStart => Error::corrupt("a log begins with saga_started").of(draft.saga),
        }
    }
}

/// What became of a group.
#[derive(Debug)]
pub(super) enum Written {
    /// All but these, by their place in the group.
    Except(Vec<(usize, Verdict)>),
    /// Nothing, since these claims have ended, with the epochs that did it.
    Fenced(Vec<(Claim, Epoch)>),
}

/// Puts a group in the order in which it takes locks: by key, then by saga.
pub(super) fn sort(group: &mut [Pending]) {
    group.sort_unstable_by(|one, other| {
        let rank = |draft: &Draft| (!draft.is_start(), draft.key.is_none());
        let (one, other) = (&one.draft, &other.draft);
        rank(one)
            .cmp(&rank(other))
            .then_with(|| one.key.cmp(&other.key))
            .then_with(|| one.saga.cmp(&other.saga))
    });
}

/// Writes a sorted group in one round trip, which is one transaction.
pub(super) async fn write(
    session: &Session,
    statements: &Statements,
    space: i32,
    group: &[Pending],
) -> std::result::Result<Result<Written>, tokio_postgres::Error> {
    let claims = claims(group);
    let statement = session.prepare(&statements.append).await?;
    let rows = query(session, &statement, space, &claims, group).await?;
    Ok(read(&rows, &claims))
}

/// The claims of the group by partition.
fn claims(group: &[Pending]) -> Vec<Claim> {
    let mut claims: Vec<_> = group.iter().map(|pending| pending.draft.claim).collect();
    claims.sort_unstable_by_key(|claim| (claim.partition, claim.epoch));
    claims.dedup();
    claims
}

async fn query(
    session: &Session,
    statement: &Statement,
    space: i32,
    claims: &[Claim],
    group: &[Pending],
) -> std::result::Result<Vec<Row>, tokio_postgres::Error> {
    let starts = group.partition_point(|pending| pending.draft.is_start());
    let (starts, moves) = group.split_at(starts);
    let (starts, moves) = (Columns::new(starts, 0), Columns::new(moves, starts.len()));
    let partitions: Vec<_> = claims
        .iter()
        .map(|claim| partition_key(claim.partition))
        .collect();
    let epochs: Vec<_> = claims.iter().map(|claim| signed(claim.epoch.0)).collect();
    let values: [&(dyn ToSql + Sync); 26] = [
        &space,
        &partitions,
        &epochs,
        &starts.place,
        &starts.partition,
        &starts.epoch,
        &starts.saga,
        &starts.version,
        &starts.at,
        &starts.status,
        &starts.ended,
        &starts.wake,
        &starts.definition,
        &starts.key,
        &starts.body,
        &moves.place,
        &moves.partition,
        &moves.epoch,
        &moves.saga,
        &moves.expected,
        &moves.version,
        &moves.at,
        &moves.status,
        &moves.ended,
        &moves.wake,
        &moves.body,
    ];
    session.client.query(statement, &values).await
}

#[derive(Default)]
struct Columns<'a> {
    place: Vec<i32>,
    partition: Vec<i32>,
    epoch: Vec<i64>,
    saga: Vec<Uuid>,
    expected: Vec<i64>,
    version: Vec<i64>,
    at: Vec<i64>,
    status: Vec<i16>,
    ended: Vec<Option<i64>>,
    wake: Vec<Option<i64>>,
    definition: Vec<Option<&'a str>>,
    key: Vec<Option<&'a str>>,
    body: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn new(rows: &'a [Pending], first: usize) -> Self {
        let mut columns = Self::default();
        let first = i32::try_from(first).unwrap_or(i32::MAX);
        for (place, Pending { draft, .. }) in (first..).zip(rows) {
            columns.place.push(place);
            columns.partition.push(partition_key(draft.claim.partition));
            columns.epoch.push(signed(draft.claim.epoch.0));
            columns.saga.push(uuid_of(draft.saga));
            columns.expected.push(signed(draft.expected.0));
            columns.version.push(signed(draft.version.0));
            columns.at.push(draft.at);
            columns.status.push(draft.status);
            columns.ended.push(draft.ended);
            columns.wake.push(draft.wake);
            columns.definition.push(draft.definition.as_deref());
            columns
                .key
                .push(draft.key.as_ref().map(IdempotencyKey::as_str));
            columns.body.push(&draft.body);
        }
        columns
    }
}

const FENCED: i16 = 1;

fn read(rows: &[Row], claims: &[Claim]) -> Result<Written> {
    let strange = |source| {
        Error::corrupt("saga store: the answer to an append makes no sense").caused_by(source)
    };
    let (mut fenced, mut refused) = (Vec::new(), Vec::new());
    for row in rows {
        let (place, verdict): (i32, i16) = (
            row.try_get(0).map_err(strange)?,
            row.try_get(1).map_err(strange)?,
        );
        let number: i64 = row.try_get(2).map_err(strange)?;
        let other: Option<Uuid> = row.try_get(3).map_err(strange)?;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if verdict == FENCED {
            let claim = claims.get(place).copied();
            fenced.extend(claim.map(|claim| (claim, Epoch(unsigned(number)))));
            continue;
        }
        let verdict = match (verdict, other) {
            (3, _) => Verdict::Foreign(partition_of(i32::try_from(number).unwrap_or_default())),
            (4, Some(other)) => Verdict::Duplicate(saga_of(other)),
            (5, _) => Verdict::Again,
            (6, _) => Verdict::NoStart,
            _ => Verdict::Stale(Version(unsigned(number))),
        };
        refused.push((place, verdict));
    }
    Ok(if fenced.is_empty() {
        Written::Except(refused)
    } else {
        Written::Fenced(fenced)
    })
}
