//! The unit of the log: a header of fixed size and a body.
//!
//! Numbers are little-endian, frames begin at multiples of eight.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | length of header and body with its padding; never zero, so zeros are no frame |
//! | 4..8 | CRC-32 of the header from byte 8 on, and of the length |
//! | 8..12 | CRC-32 of the body |
//! | 12, 13 | kind, status of the saga |
//! | 14..16 | zero |
//! | 16..24 | the frame's own place: bytes that lie where they do not belong are no frame |
//! | 24..32 | everything before this place was durable when the frame was written |
//! | 32..40 | place of the saga's frame before |
//! | 40..56 | the saga |
//! | 56..64 | its version before the frame |
//! | 64..68 | number of events |
//! | 68..72 | partition |
//! | 72..80 | epoch |
//! | 80..88 | when it was decided |
//! | 88..96 | when the saga wants to be woken, or all ones |
//!
//! The body's checksum stands in the header, so that whoever appends computes it before taking the lock,
//! under which the place becomes known.

use crc32fast::Hasher;
use orchestra_core::{IdempotencyKey, Timestamp};

use super::bytes::{Cursor, length, put_block};
use super::place::Place;
use crate::error::{Error, Result};
use crate::event::{Event, Recorded};
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::status::Status;
use crate::store::{Append, Blueprint, Claim, Snapshot};

/// The length of a header.
pub(super) const HEADER: u32 = 96;
const HEADER_BYTES: usize = HEADER as usize;
/// What frames are aligned to.
pub(super) const ALIGN: u32 = 8;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A batch of a saga.
    Append = 1,
    /// A snapshot of a saga.
    Snapshot = 2,
    /// A higher epoch of a partition.
    Claim = 3,
    /// A definition.
    Definition = 4,
    /// Sagas are forgotten.
    Purge = 5,
    /// The log goes on in the next segment.
    Seal = 6,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        let all = [
            Self::Append,
            Self::Snapshot,
            Self::Claim,
            Self::Definition,
            Self::Purge,
            Self::Seal,
        ];
        all.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// The number of a status in the log.
pub(super) fn status_code(status: Status) -> u8 {
    match status {
        Status::Started => 1,
        Status::Compensating => 2,
        Status::Parked => 3,
        Status::Completed => 4,
        Status::Compensated => 5,
        Status::Paused => 6,
    }
}

pub(super) fn status_of(code: u8) -> Option<Status> {
    Status::ALL
        .into_iter()
        .find(|status| status_code(*status) == code)
}

/// A moment, or none, as a number.
pub(super) fn wake_code(wake: Option<Timestamp>) -> u64 {
    wake.map_or(u64::MAX, |wake| wake.as_unix_nanos().min(u64::MAX - 1))
}

pub(super) fn wake_of(code: u64) -> Option<Timestamp> {
    (code != u64::MAX).then(|| Timestamp::from_unix_nanos(code))
}

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: u32,
    body_crc: u32,
    pub(super) kind: Kind,
    pub(super) status: Status,
    pub(super) place: Place,
    pub(super) synced: Place,
    pub(super) previous: Place,
    pub(super) saga: SagaId,
    pub(super) version: Version,
    pub(super) count: u32,
    pub(super) partition: Partition,
    pub(super) epoch: Epoch,
    pub(super) at: Timestamp,
    pub(super) wake: Option<Timestamp>,
}

impl Header {
    fn new(kind: Kind) -> Self {
        Self {
            length: HEADER,
            body_crc: 0,
            kind,
            status: Status::Started,
            place: Place::NONE,
            synced: Place::NONE,
            previous: Place::NONE,
            saga: SagaId::from_bytes([0; 16]),
            version: Version(0),
            count: 0,
            partition: Partition(0),
            epoch: Epoch(0),
            at: Timestamp::UNIX_EPOCH,
            wake: None,
        }
    }

    /// The version of the saga after the frame.
    pub(super) fn version_after(&self) -> Version {
        Version(self.version.0.saturating_add(u64::from(self.count)))
    }

    /// Where the next frame stands.
    pub(super) fn end(&self) -> Place {
        self.place.plus(self.length)
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        };
        put(&self.length.to_le_bytes());
        put(&[0; 4]);
        put(&self.body_crc.to_le_bytes());
        put(&[self.kind as u8, status_code(self.status), 0, 0]);
        put(&self.place.raw().to_le_bytes());
        put(&self.synced.raw().to_le_bytes());
        put(&self.previous.raw().to_le_bytes());
        put(&self.saga.to_bytes());
        put(&self.version.0.to_le_bytes());
        put(&self.count.to_le_bytes());
        put(&self.partition.0.to_le_bytes());
        put(&self.epoch.0.to_le_bytes());
        put(&self.at.as_unix_nanos().to_le_bytes());
        put(&wake_code(self.wake).to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that these bytes are, if they are one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let mut cursor = Cursor(bytes);
        let length = cursor.u32()?;
        if length < HEADER || !length.is_multiple_of(ALIGN) || cursor.u32()? != header_crc(bytes) {
            return None;
        }
        Some(Self {
            length,
            body_crc: cursor.u32()?,
            kind: Kind::of(cursor.u8()?)?,
            status: status_of(cursor.u8()?)?,
            place: {
                let _zero = cursor.u16()?;
                Place::from_raw(cursor.u64()?)
            },
            synced: Place::from_raw(cursor.u64()?),
            previous: Place::from_raw(cursor.u64()?),
            saga: SagaId::from_bytes(cursor.array()?),
            version: Version(cursor.u64()?),
            count: cursor.u32()?,
            partition: Partition(cursor.u32()?),
            epoch: Epoch(cursor.u64()?),
            at: Timestamp::from_unix_nanos(cursor.u64()?),
            wake: wake_of(cursor.u64()?),
        })
    }

    /// Whether this is the body that was written.
    pub(super) fn covers(&self, body: &[u8]) -> bool {
        body.len() + HEADER_BYTES == self.length as usize && crc32fast::hash(body) == self.body_crc
    }
}

fn header_crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..4]);
    hasher.update(&bytes[8..]);
    hasher.finalize()
}

/// A frame that has no place yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) header: Header,
    bytes: Vec<u8>,
}

impl Draft {
    fn new(header: Header, body: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Self> {
        let mut bytes = Vec::with_capacity(512);
        bytes.resize(HEADER_BYTES, 0);
        body(&mut bytes)?;
        bytes.resize(bytes.len().next_multiple_of(ALIGN as usize), 0);
        let header = Header {
            length: length(bytes.len()),
            body_crc: crc32fast::hash(&bytes[HEADER_BYTES..]),
            ..header
        };
        Ok(Self { header, bytes })
    }

    /// A batch under a claim.
    pub(super) fn append(claim: Claim, append: &Append) -> Result<Self> {
        let header = Header {
            status: append.status,
            saga: append.saga,
            version: append.expected,
            count: length(append.events.len()),
            partition: claim.partition,
            epoch: claim.epoch,
            at: append.at,
            wake: append.wake,
            ..Header::new(Kind::Append)
        };
        Self::new(header, |bytes| {
            if append.expected == Version(0) {
                let definition = match append.events.first() {
                    Some(Event::SagaStarted(started)) => &*started.definition,
                    _ => "",
                };
                let key = append.start_key.as_ref().map(IdempotencyKey::as_str);
                put_block(bytes, key.unwrap_or_default().as_bytes());
                put_block(bytes, definition.as_bytes());
            }
            for event in &append.events {
                put_event(bytes, event).map_err(|error| error.of(append.saga))?;
            }
            Ok(())
        })
    }

    pub(super) fn snapshot(saga: SagaId, snapshot: &Snapshot) -> Result<Self> {
        let header = Header {
            saga,
            version: snapshot.version,
            ..Header::new(Kind::Snapshot)
        };
        Self::new(header, |bytes| {
            bytes.extend_from_slice(&snapshot.hash);
            put_block(bytes, &snapshot.bytes);
            Ok(())
        })
    }

    pub(super) fn claim(claim: Claim, owner: &str) -> Result<Self> {
        let header = Header {
            partition: claim.partition,
            epoch: claim.epoch,
            ..Header::new(Kind::Claim)
        };
        Self::new(header, |bytes| {
            put_block(bytes, owner.as_bytes());
            Ok(())
        })
    }

    pub(super) fn definition(blueprint: &Blueprint) -> Result<Self> {
        Self::new(Header::new(Kind::Definition), |bytes| {
            put_block(bytes, blueprint.hash.as_bytes());
            put_block(bytes, blueprint.document.as_str().as_bytes());
            Ok(())
        })
    }

    pub(super) fn purge(claim: Claim, purge: &Purge) -> Result<Self> {
        let header = Header {
            partition: claim.partition,
            epoch: claim.epoch,
            ..Header::new(Kind::Purge)
        };
        Self::new(header, |bytes| {
            bytes.extend_from_slice(&length(purge.sagas.len()).to_le_bytes());
            for saga in &purge.sagas {
                bytes.extend_from_slice(&saga.to_bytes());
            }
            bytes.extend_from_slice(&length(purge.freed.len()).to_le_bytes());
            for (segment, freed) in &purge.freed {
                bytes.extend_from_slice(&segment.to_le_bytes());
                bytes.extend_from_slice(&freed.to_le_bytes());
            }
            Ok(())
        })
    }

    pub(super) fn seal() -> Self {
        Self {
            header: Header::new(Kind::Seal),
            bytes: vec![0; HEADER_BYTES],
        }
    }

    /// What stands behind the header.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// Puts the frame where it belongs.
    pub(super) fn stamp(&mut self, place: Place, synced: Place, previous: Place) -> &[u8] {
        self.header = Header {
            place,
            synced,
            previous,
            ..self.header
        };
        let header = self.header.encode();
        if let Some(front) = self.bytes.first_chunk_mut::<HEADER_BYTES>() {
            *front = header;
        }
        &self.bytes
    }
}

fn put_event(bytes: &mut Vec<u8>, event: &Event) -> Result<()> {
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *bytes, event).map_err(|source| {
        let message = format!("{} cannot be written", event.name());
        Error::corrupt(message).caused_by(source)
    })?;
    let count = length(bytes.len() - begin - 4).to_le_bytes();
    if let Some(place) = bytes.get_mut(begin..begin + 4) {
        place.copy_from_slice(&count);
    }
    Ok(())
}

/// What a purge forgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Purge {
    pub(super) sagas: Vec<SagaId>,
    /// Bytes that nothing needs any more, by segment.
    pub(super) freed: Vec<(u32, u64)>,
}

impl Purge {
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(body);
        let mut purge = Self::default();
        for _ in 0..cursor.u32()? {
            purge.sagas.push(SagaId::from_bytes(cursor.array()?));
        }
        for _ in 0..cursor.u32()? {
            purge.freed.push((cursor.u32()?, cursor.u64()?));
        }
        Some(purge)
    }
}

/// What a first batch says besides its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Birth<'a> {
    /// Empty without a key.
    pub(super) key: &'a str,
    pub(super) definition: &'a str,
}

fn birth<'a>(cursor: &mut Cursor<'a>) -> Option<Birth<'a>> {
    let (key, definition) = (cursor.text()?, cursor.text()?);
    Some(Birth { key, definition })
}

/// What a first batch says besides its events.
pub(super) fn read_birth(body: &[u8]) -> Option<Birth<'_>> {
    birth(&mut Cursor(body))
}

/// The events of a batch, from the given number on.
pub(super) fn read_events(header: &Header, body: &[u8], skip: u64) -> Result<Vec<Recorded>> {
    let broken = || Error::corrupt("a batch of the journal makes no sense").of(header.saga);
    let mut cursor = Cursor(body);
    if header.version == Version(0) {
        let _birth = birth(&mut cursor).ok_or_else(broken)?;
    }
    let mut events = Vec::with_capacity((header.count as usize).min(body.len() / 4));
    for number in 0..u64::from(header.count) {
        let text = cursor.block().ok_or_else(broken)?;
        if number < skip {
            continue;
        }
        let version = Version(header.version.0 + number + 1);
        let event = serde_json::from_slice(text).map_err(|source| {
            Error::corrupt(format!("event {version} cannot be read"))
                .of(header.saga)
                .caused_by(source)
        })?;
        events.push(Recorded::new(version, header.epoch, header.at, event));
    }
    Ok(events)
}

pub(super) fn read_snapshot(header: &Header, body: &[u8]) -> Option<Snapshot> {
    let mut cursor = Cursor(body);
    Some(Snapshot {
        version: header.version,
        hash: cursor.array()?,
        bytes: cursor.block()?.to_vec(),
    })
}

/// The hash and the document of a definition.
pub(super) fn read_definition(body: &[u8]) -> Option<(&str, &str)> {
    let mut cursor = Cursor(body);
    Some((cursor.text()?, cursor.text()?))
}
