//! How long claims last, for stores that belong to one process.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Claim;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Epoch, Partition};

/// Who has which partition, and until when. Not durable: with the process go its owners.
#[derive(Debug, Default)]
pub(super) struct Terms(Mutex<HashMap<Partition, Term>>);

#[derive(Debug, Clone, Copy)]
struct Term {
    epoch: Epoch,
    /// For ever, if none.
    until: Option<Instant>,
}

impl Terms {
    /// Whether a lease may begin.
    pub(super) fn is_free(&self, partition: Partition) -> bool {
        let terms = self.0.lock();
        let until = terms.get(&partition).map(|term| term.until);
        until.is_none_or(|until| until.is_some_and(|until| until <= Instant::now()))
    }

    /// The claim lasts that long; for ever without a term.
    pub(super) fn begin(&self, claim: Claim, term: Option<Duration>) {
        let until = term.map(|term| Instant::now() + term);
        let epoch = claim.epoch;
        let mut terms = self.0.lock();
        // Of two that began at once the later has it.
        let found = terms
            .entry(claim.partition)
            .or_insert(Term { epoch, until });
        if epoch >= found.epoch {
            *found = Term { epoch, until };
        }
    }

    pub(super) fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        let mut terms = self.0.lock();
        let held = terms.get_mut(&claim.partition);
        match held.filter(|held| held.epoch == claim.epoch) {
            Some(held) => held.until = Some(Instant::now() + term),
            None => return Err(lost(claim)),
        }
        Ok(())
    }

    pub(super) fn release(&self, claim: Claim) {
        let mut terms = self.0.lock();
        if terms
            .get(&claim.partition)
            .is_some_and(|term| term.epoch == claim.epoch)
        {
            terms.remove(&claim.partition);
        }
    }
}

/// The claim is somebody else's by now, or was given up.
pub(super) fn lost(claim: Claim) -> Error {
    let Claim { partition, epoch } = claim;
    let message = format!("epoch {epoch} of partition {partition} has ended");
    Error::new(ErrorKind::Fenced, message)
}
