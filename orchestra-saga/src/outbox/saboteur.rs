//! Publishers and backlogs that break one law each, to prove that the suites notice.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Backlog, Batch, Lane, Message, MessageId, Next, Parked, Publisher, Settled};
use crate::error::{Error, ErrorKind, Result};

/// What a [`BadPublisher`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublisherFault {
    /// Says that the broker has what it never got.
    Forgets,
    /// Leaves the headers away.
    StripsHeaders,
    /// Sends every second message after the next.
    Swaps,
    /// Calls a repetition an error.
    RefusesRepetitions,
    /// Shows a repetition as another message.
    DoublesRepetitions,
    /// Loses what is published while something else is.
    LosesSomeAtOnce,
}

impl PublisherFault {
    /// Every fault, and the law that it breaks.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Forgets, "an_accepted_message_is_there_whole"),
        (Self::StripsHeaders, "an_accepted_message_is_there_whole"),
        (Self::Swaps, "messages_keep_their_order"),
        (
            Self::RefusesRepetitions,
            "a_repetition_is_no_error_and_shown_once",
        ),
        (
            Self::DoublesRepetitions,
            "a_repetition_is_no_error_and_shown_once",
        ),
        (Self::LosesSomeAtOnce, "messages_at_once_all_arrive"),
    ];
}

/// A publisher that does one thing wrong and all else right.
#[derive(Debug)]
pub struct BadPublisher<P> {
    publisher: P,
    fault: PublisherFault,
    seen: Mutex<HashSet<MessageId>>,
    kept_back: Mutex<Option<Message>>,
    busy: AtomicU32,
}

impl<P: Publisher> BadPublisher<P> {
    /// This publisher with this fault.
    pub fn new(publisher: P, fault: PublisherFault) -> Self {
        Self {
            publisher,
            fault,
            seen: Mutex::default(),
            kept_back: Mutex::default(),
            busy: AtomicU32::new(0),
        }
    }

    /// Whether it is new, and how many there were.
    fn note(&self, message: &Message) -> (bool, usize) {
        let mut seen = self.seen.lock();
        (seen.insert(message.id().clone()), seen.len())
    }

    async fn swap(&self, message: &Message, number: usize) -> Result<()> {
        // Of the messages of one key, so that those published at once all arrive.
        if message.key() == "key" && number == 5 {
            *self.kept_back.lock() = Some(message.clone());
            return Ok(());
        }
        self.publisher.publish(message).await?;
        let kept = self.kept_back.lock().take();
        match kept {
            Some(kept) => self.publisher.publish(&kept).await,
            None => Ok(()),
        }
    }

    async fn publish_one(&self, message: &Message) -> Result<()> {
        let (is_new, number) = self.note(message);
        match self.fault {
            PublisherFault::Forgets => Ok(()),
            PublisherFault::StripsHeaders => {
                let bare = Message::new(message.topic(), message.key(), message.payload().clone())?;
                self.publisher
                    .publish(&bare.with_id(message.id().clone()))
                    .await
            }
            PublisherFault::Swaps => self.swap(message, number).await,
            PublisherFault::RefusesRepetitions if !is_new => {
                let text = format!("message {} was published before", message.id());
                Err(Error::new(ErrorKind::Undelivered, text))
            }
            PublisherFault::DoublesRepetitions if !is_new => {
                let other = message.clone().with_id(MessageId::random());
                self.publisher.publish(&other).await
            }
            PublisherFault::LosesSomeAtOnce if self.busy.load(Ordering::Relaxed) > 1 => Ok(()),
            _ => self.publisher.publish(message).await,
        }
    }
}

#[async_trait]
impl<P: Publisher> Publisher for BadPublisher<P> {
    async fn publish(&self, message: &Message) -> Result<()> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        // Others may begin meanwhile.
        tokio::task::yield_now().await;
        let answer = self.publish_one(message).await;
        self.busy.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    fn deduplicates(&self) -> bool {
        self.publisher.deduplicates()
    }
}

/// What a [`BadBacklog`] does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BacklogFault {
    /// Lends a key for no time at all.
    LendsTwice,
    /// Lends the messages of a key in the wrong order.
    Reorders,
    /// Sees the last of several messages of a key, and not the one before.
    LeavesGaps,
    /// Takes the bytes of a batch for a suggestion.
    IgnoresTheBytes,
    /// Does not say that a loan was over.
    HidesLostLoans,
    /// Forgets with what was sent what came after it.
    ForgetsTooMuch,
    /// Lends a key again at once, however long it is to wait.
    DoesNotWait,
    /// Does not count failures.
    ForgetsFailures,
    /// Shows no parked message.
    HidesTheParked,
    /// Lets a key go on although it is held.
    DoesNotHold,
}

impl BacklogFault {
    /// Every fault, and the law that it breaks.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::LendsTwice, "a_key_is_lent_to_one_at_a_time"),
        (Self::Reorders, "messages_are_lent_in_their_order"),
        (Self::LeavesGaps, "messages_are_lent_in_their_order"),
        (Self::IgnoresTheBytes, "a_batch_ends_at_its_bytes"),
        (Self::HidesLostLoans, "a_loan_that_is_over_changes_nothing"),
        (Self::ForgetsTooMuch, "messages_are_lent_in_their_order"),
        (Self::DoesNotWait, "a_key_waits_as_long_as_it_is_told"),
        (Self::ForgetsFailures, "a_key_waits_as_long_as_it_is_told"),
        (
            Self::HidesTheParked,
            "a_parked_message_steps_aside_until_somebody_decides",
        ),
        (
            Self::DoesNotHold,
            "a_key_that_is_held_waits_for_the_decision",
        ),
    ];
}

/// A backlog that does one thing wrong and all else right.
#[derive(Debug)]
pub struct BadBacklog<B> {
    backlog: B,
    fault: BacklogFault,
    lent: Mutex<Vec<Lane>>,
}

impl<B: Backlog> BadBacklog<B> {
    /// This backlog with this fault.
    pub const fn new(backlog: B, fault: BacklogFault) -> Self {
        let lent = Mutex::new(Vec::new());
        Self {
            backlog,
            fault,
            lent,
        }
    }

    fn spoil(&self, lane: &mut Lane) {
        match self.fault {
            BacklogFault::Reorders => lane.messages.reverse(),
            BacklogFault::LeavesGaps if lane.messages.len() > 2 => {
                lane.messages.remove(1);
            }
            BacklogFault::ForgetsFailures => lane.failures = 0,
            _ => {}
        }
    }

    fn twist(&self, mut settled: Settled) -> Settled {
        match (self.fault, &mut settled.next) {
            (BacklogFault::DoesNotWait, Next::After { delay, .. }) => *delay = Duration::ZERO,
            (BacklogFault::DoesNotHold, Next::Park { holds, .. }) => *holds = false,
            (BacklogFault::ForgetsTooMuch, _) if !settled.sent.is_empty() => {
                let lent = self.lent.lock();
                let lane = lent.iter().rev().find(|lane| lane.token == settled.token);
                let all = lane.into_iter().flat_map(|lane| &lane.messages);
                settled.sent = all.map(|message| message.id().clone()).collect();
            }
            _ => {}
        }
        settled
    }
}

#[async_trait]
impl<B: Backlog> Backlog for BadBacklog<B> {
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
        let mut batch = batch.clone();
        match self.fault {
            BacklogFault::LendsTwice => batch.term = Duration::ZERO,
            BacklogFault::IgnoresTheBytes => batch.bytes = u32::MAX,
            _ => {}
        }
        let mut lanes = self.backlog.claim(&batch).await?;
        for lane in &mut lanes {
            self.spoil(lane);
        }
        self.lent.lock().extend(lanes.iter().cloned());
        Ok(lanes)
    }

    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
        let settled: Vec<_> = settled.iter().map(|one| self.twist(one.clone())).collect();
        let lost = self.backlog.settle(&settled).await?;
        Ok(if self.fault == BacklogFault::HidesLostLoans {
            Vec::new()
        } else {
            lost
        })
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        let hidden = self.fault == BacklogFault::HidesTheParked;
        self.backlog.parked(if hidden { 0 } else { limit }).await
    }

    async fn retry(&self, id: &MessageId) -> Result<bool> {
        self.backlog.retry(id).await
    }

    async fn discard(&self, id: &MessageId) -> Result<bool> {
        self.backlog.discard(id).await
    }
}
