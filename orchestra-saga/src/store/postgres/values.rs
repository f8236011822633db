//! How values of this crate stand in columns.

use std::sync::Arc;

use orchestra_core::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::event::{Event, Recorded};
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::status::Status;
use crate::store::{Entry, Position, Snapshot, Summary, Timer};

/// The server's integers have a sign; all numbers of ours are far below their limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Version 7 UUIDs grow with time as integers do, so that new rows come to the end of every index; and the
/// server orders them as we do.
pub(super) fn uuid_of(saga: SagaId) -> Uuid {
    Uuid::from_bytes(saga.to_bytes())
}

pub(super) fn saga_of(uuid: Uuid) -> SagaId {
    SagaId::from_bytes(uuid.into_bytes())
}

pub(super) fn partition_key(partition: Partition) -> i32 {
    partition.0.cast_signed()
}

pub(super) fn partition_of(key: i32) -> Partition {
    Partition(key.cast_unsigned())
}

pub(super) fn status_code(status: Status) -> i16 {
    match status {
        Status::Started => 0,
        Status::Compensating => 1,
        Status::Parked => 2,
        Status::Completed => 3,
        Status::Compensated => 4,
    }
}

fn status_of(code: i16) -> Result<Status> {
    let mut known = Status::ALL.into_iter();
    let found = known.find(|status| status_code(*status) == code);
    found.ok_or_else(|| Error::corrupt(format!("saga store: status {code} is unknown")))
}

fn time_of(nanos: i64) -> Timestamp {
    Timestamp::from_unix_nanos(unsigned(nanos))
}

/// A column that must be what it was written as.
pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    number: usize,
) -> Result<T> {
    row.try_get(number).map_err(|source| {
        let message = format!("saga store: column {number} of a row makes no sense");
        Error::corrupt(message).caused_by(source)
    })
}

/// Which of several that were asked for a row answers; their numbers begin with one.
pub(super) fn asked(row: &Row) -> Option<usize> {
    let number: i64 = row.try_get(0).ok()?;
    usize::try_from(number - 1).ok()
}

/// The row of one append.
pub(super) struct Frame {
    saga: SagaId,
    version: u64,
    epoch: Epoch,
    at: Timestamp,
    events: Vec<Event>,
}

impl Frame {
    /// Version, epoch, time and body are in the columns from `first` on.
    pub(super) fn of(row: &Row, first: usize, saga: SagaId) -> Result<Self> {
        let version = unsigned(column(row, first)?);
        let epoch = Epoch(unsigned(column(row, first + 1)?));
        let at = time_of(column(row, first + 2)?);
        let body: &str = column(row, first + 3)?;
        let events: Vec<Event> = serde_json::from_str(body).map_err(|source| {
            let message = format!("the events up to version {version} cannot be read");
            Error::corrupt(message).of(saga).caused_by(source)
        })?;
        if events.len() as u64 > version {
            let message = format!("more events than version {version} counts");
            return Err(Error::corrupt(message).of(saga));
        }
        Ok(Self {
            saga,
            version,
            epoch,
            at,
            events,
        })
    }

    pub(super) fn recorded(self) -> impl Iterator<Item = Recorded> {
        let first = self.version - self.events.len() as u64 + 1;
        let (epoch, at) = (self.epoch, self.at);
        let numbered = (first..).zip(self.events);
        numbered.map(move |(number, event)| Recorded::new(Version(number), epoch, at, event))
    }
}

/// Where the row of an append stands in the stream. The events of it follow each other in the 32 bits below.
pub(super) struct Place {
    pub(super) tx: i64,
    pub(super) append: i32,
}

impl Place {
    pub(super) fn of(position: Position) -> Self {
        let number = position.as_u128();
        Self {
            tx: i64::try_from(number >> 64).unwrap_or(i64::MAX),
            append: i32::try_from((number >> 32) & 0xFFFF_FFFF).unwrap_or(i32::MAX),
        }
    }

    /// The first event is one.
    fn position(&self, event: u32) -> Position {
        let (tx, append) = (unsigned(self.tx), unsigned(self.append.into()));
        Position::from_u128(u128::from(tx) << 64 | u128::from(append << 32) | u128::from(event))
    }
}

/// The entries of a row of the stream.
pub(super) fn entries(row: &Row) -> Result<impl Iterator<Item = Entry> + use<>> {
    let place = Place {
        tx: column(row, 0)?,
        append: column(row, 1)?,
    };
    let frame = Frame::of(row, 3, saga_of(column(row, 2)?))?;
    let saga = frame.saga;
    let numbered = (1..).zip(frame.recorded());
    Ok(numbered.map(move |(event, recorded)| Entry::new(place.position(event), saga, recorded)))
}

/// Version, hash and bytes are in the columns from the second on.
pub(super) fn snapshot(row: &Row) -> Result<Snapshot> {
    let hash: &[u8] = column(row, 2)?;
    let bytes: &[u8] = column(row, 3)?;
    Ok(Snapshot {
        version: Version(unsigned(column(row, 1)?)),
        // One of another length is no hash of anything, and its reader finds that out.
        hash: hash.try_into().unwrap_or_default(),
        bytes: bytes.to_vec(),
    })
}

pub(super) fn timer(row: &Row) -> Result<Timer> {
    Ok(Timer {
        at: time_of(column(row, 0)?),
        saga: saga_of(column(row, 1)?),
    })
}

pub(super) fn summary(row: &Row) -> Result<Summary> {
    let saga = saga_of(column(row, 0)?);
    let definition: &str = column(row, 1)?;
    let wake: Option<i64> = column(row, 4)?;
    Ok(Summary {
        saga,
        definition: Arc::from(definition),
        status: status_of(column(row, 2)?).map_err(|error| error.of(saga))?,
        version: Version(unsigned(column(row, 3)?)),
        wake: wake.map(time_of),
        updated: time_of(column(row, 5)?),
    })
}
