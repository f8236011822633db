//! How long claims last, for stores that belong to one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Claim, Holder};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Epoch, Partition};

/// Who has which partition, and until when. Not durable: with the process go its owners.
#[derive(Debug, Default)]
pub(super) struct Terms(Mutex<HashMap<Partition, Term>>);

#[derive(Debug, Clone)]
struct Term {
    owner: Arc<str>,
    epoch: Epoch,
    /// For ever, if none.
    until: Option<Instant>,
}

/// When a term from now ends; none if that is later than the clock counts, which is never.
fn end_of(term: Duration) -> Option<Instant> {
    Instant::now().checked_add(term)
}

impl Terms {
    /// Whether a lease may begin.
    pub(super) fn is_free(&self, partition: Partition) -> bool {
        let terms = self.0.lock();
        let until = terms.get(&partition).map(|term| term.until);
        until.is_none_or(|until| until.is_some_and(|until| until <= Instant::now()))
    }

    /// The claim lasts that long; for ever without a term.
    pub(super) fn begin(&self, claim: Claim, owner: &str, term: Option<Duration>) {
        let term = Term {
            owner: Arc::from(owner),
            epoch: claim.epoch,
            until: term.and_then(end_of),
        };
        let mut terms = self.0.lock();
        // Of two that began at once the later has it.
        let before = terms.get(&claim.partition).map(|term| term.epoch);
        if before.is_none_or(|before| before < claim.epoch) {
            terms.insert(claim.partition, term);
        }
    }

    /// Who has which partition now, in their order.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let now = Instant::now();
        let terms = self.0.lock();
        let lasts = |term: &Term| term.until.is_none_or(|until| until > now);
        let held = terms.iter().filter(|(_, term)| lasts(term));
        let mut holders: Vec<_> = held
            .map(|(&partition, term)| {
                let claim = Claim::new(partition, term.epoch);
                Holder::new(claim, Arc::clone(&term.owner))
            })
            .collect();
        holders.sort_unstable_by_key(|holder| holder.claim.partition);
        holders
    }

    pub(super) fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        let mut terms = self.0.lock();
        let held = terms.get_mut(&claim.partition);
        match held.filter(|held| held.epoch == claim.epoch) {
            Some(held) => held.until = end_of(term),
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
