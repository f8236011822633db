//! The fold of the journal: what every frame of it does to what is known.

use std::collections::HashMap;
use std::sync::Arc;

use super::frame::{self, Header, Kind, Purge};
use super::index::{Entry, Index};
use super::place::Place;
use super::segment::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::store::memory::{foreign, stale};
use crate::store::{Append, Claim};

/// Where a definition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) length: u32,
}

/// Everything that is known without reading the segments.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) index: Index,
    pub(super) epochs: HashMap<Partition, Epoch>,
    pub(super) definitions: HashMap<Arc<str>, Kept>,
    pub(super) table: Table,
}

impl Log {
    pub(super) fn check_claim(&self, claim: Claim) -> Result<()> {
        let Claim { partition, epoch } = claim;
        let current = self.epoch(partition);
        if epoch == current {
            return Ok(());
        }
        let message = format!("epoch {epoch} of partition {partition} ended with epoch {current}");
        Err(Error::new(ErrorKind::Fenced, message).at_epoch(current))
    }

    pub(super) fn epoch(&self, partition: Partition) -> Epoch {
        self.epochs.get(&partition).copied().unwrap_or_default()
    }

    /// Whether the batch may be appended, and the place of the one before it.
    pub(super) fn check_append(&self, claim: Claim, append: &Append) -> Result<Place> {
        self.check_claim(claim)?;
        match self.index.find(append.saga) {
            None if append.expected == Version(0) => {
                let key = append.start_key.as_ref();
                if let Some(existing) = key.and_then(|key| self.index.find_key(key)) {
                    let message = "the start key belongs to an earlier start";
                    return Err(Error::new(ErrorKind::DuplicateStart, message).of(existing));
                }
                let Some(Event::SagaStarted(_)) = append.events.first() else {
                    return Err(Error::corrupt("a log begins with saga_started").of(append.saga));
                };
                Ok(Place::NONE)
            }
            None => Err(stale(append, Version(0))),
            Some(entry) if entry.partition != claim.partition => {
                Err(foreign(append, claim, entry.partition))
            }
            Some(entry) if entry.version != append.expected => Err(stale(append, entry.version)),
            Some(entry) => Ok(entry.last),
        }
    }

    /// Follows a batch that was checked, or is found to fit.
    pub(super) fn append(&mut self, header: &Header, body: &[u8]) -> Option<()> {
        if header.version == Version(0) {
            self.index.begin(header, frame::read_birth(body)?);
        } else {
            self.index.advance(header);
        }
        self.table.add_live(header.place, header.length);
        Some(())
    }

    pub(super) fn claim(&mut self, header: &Header) {
        self.epochs.insert(header.partition, header.epoch);
    }

    pub(super) fn snapshot(&mut self, header: &Header) {
        if self.index.find(header.saga).is_none() {
            return;
        }
        self.table.add_live(header.place, header.length);
        if let Some((place, length)) = self.index.keep_snapshot(header) {
            self.table.free(place.segment(), u64::from(length));
        }
    }

    pub(super) fn define(&mut self, header: &Header, hash: &str) {
        let kept = Kept {
            place: header.place,
            length: header.length,
        };
        self.table.add_live(header.place, header.length);
        self.definitions.insert(Arc::from(hash), kept);
    }

    pub(super) fn purge(&mut self, purge: &Purge) {
        for saga in &purge.sagas {
            let _known = self.index.forget(*saga);
        }
        for &(segment, freed) in &purge.freed {
            self.table.free(segment, freed);
        }
    }

    /// Follows a frame that was read; nothing if it makes no sense here.
    pub(super) fn replay(&mut self, header: &Header, body: &[u8]) -> Option<()> {
        match header.kind {
            Kind::Append => {
                let entry = self.index.find(header.saga);
                fits(entry, header).then_some(())?;
                self.append(header, body)?;
            }
            Kind::Snapshot => self.snapshot(header),
            Kind::Claim => self.claim(header),
            Kind::Definition => {
                let (hash, _document) = frame::read_definition(body)?;
                self.define(header, hash);
            }
            Kind::Purge => self.purge(&Purge::decode(body)?),
            Kind::Seal => {}
        }
        Some(())
    }

    /// Whether anybody still needs a frame.
    pub(super) fn is_live(&self, header: &Header, hash: Option<&str>) -> bool {
        let entry = |saga: SagaId| self.index.find(saga);
        match header.kind {
            Kind::Append => entry(header.saga).is_some_and(|entry| entry.first <= header.place),
            Kind::Snapshot => {
                entry(header.saga).is_some_and(|entry| entry.snapshot == header.place)
            }
            Kind::Definition => hash
                .and_then(|hash| self.definitions.get(hash))
                .is_some_and(|kept| kept.place == header.place),
            Kind::Claim | Kind::Purge | Kind::Seal => false,
        }
    }
}

/// Whether a batch follows what is known of its saga.
fn fits(entry: Option<&Entry>, header: &Header) -> bool {
    match entry {
        None => header.version == Version(0) && header.count > 0,
        Some(entry) => {
            header.version == entry.version
                && header.previous == entry.last
                && header.partition == entry.partition
        }
    }
}
