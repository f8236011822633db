//! The connections that append: each takes all that waits, and writes it as one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Jitter};

use super::failure::{Outage, Remedy, late, remedy};
use super::group::{self, Pending, Verdict, Written};
use super::link::{Link, Session, Site};
use super::queue::Queue;
use super::schema::Statements;
use crate::error::{Error, ErrorKind};
use crate::id::Epoch;
use crate::store::Claim;

/// Members of a group. More of them make the transaction longer and no cheaper.
const MOST: usize = 512;
/// Bytes of a group.
const HEAVIEST: usize = 4 << 20;
/// How often a group that lost a conflict is written again.
const REPEATS: u32 = 5;
const WHAT: &str = "an append";
const REPEAT: Backoff = Backoff::exponential(Duration::from_millis(2), 2.0)
    .cap(Duration::from_millis(50))
    .jitter(Jitter::Full);

pub(super) fn queue() -> Queue<Pending> {
    Queue::new(MOST, HEAVIEST)
}

/// One connection for appends.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue<Pending>>,
    pub(super) site: Arc<Site>,
    pub(super) statements: Arc<Statements>,
    pub(super) space: i32,
}

/// What became of a group that could not be written.
enum Failed {
    /// Nobody knows whether it was.
    Broken(Outage),
    /// It was not.
    Refused(Outage),
}

impl Writer {
    /// Until the queue is closed and empty.
    pub(super) async fn run(self) {
        let link = Link::new(Arc::clone(&self.site));
        while self.queue.ready().await {
            match link.session().await {
                Ok(Some(session)) => self.serve(&link, &session).await,
                Ok(None) => return,
                Err(error) => self.wait_out(&error),
            }
        }
    }

    /// While there is no connection what waits goes on waiting, as long as its callers do.
    fn wait_out(&self, error: &Error) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(%error, cause, "the saga store cannot be reached");
        self.queue.sweep();
        if !error.is_retryable() {
            break_off(self.queue.clear(), &Outage::from(error));
        }
    }

    async fn serve(&self, link: &Link, session: &Arc<Session>) {
        let mut group = self.queue.take();
        group::sort(&mut group);
        let mut rounds = 0;
        while !group.is_empty() {
            rounds += 1;
            group = match self.write(session, &group).await {
                Ok(Written::Except(refused)) => settle(group, &refused, rounds),
                Ok(Written::Fenced(claims)) => fence(group, &claims),
                Err(Failed::Refused(outage)) => self.one_by_one(session, group, &outage).await,
                Err(Failed::Broken(outage)) => {
                    link.discard(session).await;
                    break_off(group, &outage);
                    return;
                }
            };
        }
    }

    /// Writes a group, again if it lost a conflict.
    async fn write(&self, session: &Session, group: &[Pending]) -> Result<Written, Failed> {
        let mut repeats = 0;
        loop {
            let writing = group::write(session, &self.statements, self.space, group);
            let answer = tokio::time::timeout(self.site.config.timeout, writing).await;
            let error = match answer {
                Ok(Ok(Ok(written))) => return Ok(written),
                Ok(Ok(Err(strange))) => return Err(Failed::Broken(Outage::from(&strange))),
                Err(_elapsed) => return Err(Failed::Broken(Outage::from(&late(WHAT)))),
                Ok(Err(error)) => error,
            };
            match remedy(&error) {
                Remedy::Repeat if repeats < REPEATS => {}
                Remedy::Reconnect => return Err(Failed::Broken(Outage::of(WHAT, &error))),
                Remedy::Repeat | Remedy::Report => {
                    return Err(Failed::Refused(Outage::of(WHAT, &error)));
                }
            }
            repeats += 1;
            let delay = REPEAT.delay(repeats, Duration::ZERO, fastrand::u64(..));
            tokio::time::sleep(delay).await;
        }
    }

    /// A group that is refused as a whole may be so because of one of its members. Returns what is left
    /// when the connection is of no more use.
    async fn one_by_one(
        &self,
        session: &Session,
        group: Vec<Pending>,
        outage: &Outage,
    ) -> Vec<Pending> {
        let mut members = group.into_iter();
        if members.len() == 1 {
            break_off(members, outage);
            return Vec::new();
        }
        while let Some(pending) = members.next() {
            let alone = vec![pending];
            match self.write(session, &alone).await {
                // Those that are to be tried once more are few: their callers do it.
                Ok(Written::Except(refused)) => drop(settle(alone, &refused, u32::MAX)),
                Ok(Written::Fenced(claims)) => drop(fence(alone, &claims)),
                Err(Failed::Refused(outage)) => break_off(alone, &outage),
                Err(Failed::Broken(outage)) => {
                    break_off(alone, &outage);
                    return members.collect();
                }
            }
        }
        Vec::new()
    }
}

/// Answers a group that was written but for the refused. Returns those to write again.
fn settle(group: Vec<Pending>, refused: &[(usize, Verdict)], rounds: u32) -> Vec<Pending> {
    if refused.is_empty() {
        for pending in group {
            pending.answer(Ok(()));
        }
        return Vec::new();
    }
    let refused: HashMap<_, _> = refused
        .iter()
        .map(|(place, verdict)| (*place, verdict))
        .collect();
    let mut again = Vec::new();
    for (place, pending) in group.into_iter().enumerate() {
        match refused.get(&place) {
            None => pending.answer(Ok(())),
            Some(Verdict::Again) if rounds < REPEATS => again.push(pending),
            Some(verdict) => {
                let error = verdict.error(&pending.draft);
                pending.answer(Err(error));
            }
        }
    }
    again
}

/// Answers those whose claim has ended. Nothing was written: the others are left.
fn fence(group: Vec<Pending>, claims: &[(Claim, Epoch)]) -> Vec<Pending> {
    let mut left = Vec::new();
    for pending in group {
        let claim = pending.draft.claim;
        match claims.iter().find(|(ended, _)| *ended == claim) {
            Some((_, current)) => pending.answer(Err(fenced(claim, *current))),
            None => left.push(pending),
        }
    }
    left
}

pub(super) fn fenced(claim: Claim, current: Epoch) -> Error {
    let Claim { partition, epoch } = claim;
    let message = format!("epoch {epoch} of partition {partition} ended with epoch {current}");
    Error::new(ErrorKind::Fenced, message).at_epoch(current)
}

/// Whether these were written nobody may know; their callers read the log.
fn break_off(group: impl IntoIterator<Item = Pending>, outage: &Outage) {
    for pending in group {
        pending.answer(Err(outage.error()));
    }
}
