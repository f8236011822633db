//! Frames that wait for the writer, and who waits for them.

use std::sync::Arc;
use std::task::Waker;

use super::disk::DiskFile;
use super::place::Place;

/// Bytes for one file, side by side.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offset: u32,
    pub(super) bytes: Vec<u8>,
}

/// What is written and synced together.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Where its first frame stands.
    begin: Place,
    /// Almost always one; a group that fills a segment goes on in the next.
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    pub(super) waiters: Queue,
}

/// Those who wait for the group that is being written.
#[derive(Debug)]
pub(super) struct Flying {
    /// Behind its last frame.
    pub(super) end: Place,
    pub(super) waiters: Queue,
}

impl Group {
    /// This group, and the next in its stead.
    pub(super) fn take(&mut self) -> Self {
        let next = Self {
            waiters: self.waiters.next(),
            ..Self::default()
        };
        std::mem::replace(self, next)
    }

    /// The place of its first frame, which is this one if there is none yet.
    pub(super) fn begin(&mut self, place: Place) -> Place {
        if self.parts.is_empty() {
            self.begin = place;
        }
        self.begin
    }

    pub(super) fn push(
        &mut self,
        file: &Arc<dyn DiskFile>,
        place: Place,
        frame: &[u8],
        buffer: impl FnOnce() -> Vec<u8>,
    ) {
        self.bytes += frame.len();
        match self.parts.last_mut() {
            Some(part) if Arc::ptr_eq(&part.file, file) => part.bytes.extend_from_slice(frame),
            _ => {
                let mut bytes = buffer();
                bytes.extend_from_slice(frame);
                self.parts.push(Part {
                    file: Arc::clone(file),
                    offset: place.offset(),
                    bytes,
                });
            }
        }
    }
}

/// A place among those who wait for one thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    round: u64,
    seat: usize,
}

/// Those who wait for one thing that happens again and again: who comes after it waits for the next.
///
/// There are as many seats as there have been futures at once: one that is dropped leaves its seat.
#[derive(Debug, Default)]
pub(super) struct Queue {
    round: u64,
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Queue {
    /// Takes a seat, or the seat that was taken before: however often a future is polled, it is woken once.
    pub(super) fn seat(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        if let Some(held) = ticket.filter(|held| held.round == self.round)
            && let Some(Some(known)) = self.seats.get_mut(held.seat)
        {
            known.clone_from(waker);
            return;
        }
        let seat = self.free.pop().unwrap_or(self.seats.len());
        match self.seats.get_mut(seat) {
            Some(empty) => *empty = Some(waker.clone()),
            None => self.seats.push(Some(waker.clone())),
        }
        let round = self.round;
        *ticket = Some(Ticket { round, seat });
    }

    /// Gives a seat back. One of an earlier round is gone already.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if ticket.round == self.round
            && let Some(seat) = self.seats.get_mut(ticket.seat)
            && seat.take().is_some()
        {
            self.free.push(ticket.seat);
        }
    }

    /// An empty one for the next round.
    fn next(&self) -> Self {
        Self {
            round: self.round + 1,
            ..Self::default()
        }
    }

    /// Everybody of this round, who is to be woken.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let next = self.next();
        std::mem::replace(self, next).seats.into_iter().flatten()
    }

    #[cfg(test)]
    pub(super) fn seats(&self) -> usize {
        self.seats.len()
    }
}
