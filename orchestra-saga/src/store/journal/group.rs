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
    number: u64,
    /// Where its first frame stands.
    begin: Place,
    /// Almost always one; a group that fills a segment goes on in the next.
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    waiters: Vec<Waker>,
}

impl Group {
    /// This group, and the next in its stead.
    pub(super) fn take(&mut self) -> Self {
        let next = Self {
            number: self.number + 1,
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

/// A place among those who wait for a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    group: u64,
    seat: usize,
}

/// Those who wait for one group.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    group: u64,
    /// Behind its last frame.
    pub(super) end: Place,
    wakers: Vec<Waker>,
}

impl Waiters {
    pub(super) fn of(group: &mut Group, end: Place) -> Self {
        Self {
            group: group.number,
            end,
            wakers: std::mem::take(&mut group.waiters),
        }
    }

    pub(super) fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }
}

/// Takes a seat, or the seat that was taken before: however often a future is polled, it is woken once.
fn seat(wakers: &mut Vec<Waker>, group: u64, ticket: &mut Option<Ticket>, waker: &Waker) {
    if let Some(held) = ticket.filter(|held| held.group == group)
        && let Some(known) = wakers.get_mut(held.seat)
    {
        known.clone_from(waker);
        return;
    }
    *ticket = Some(Ticket {
        group,
        seat: wakers.len(),
    });
    wakers.push(waker.clone());
}

impl Group {
    pub(super) fn seat(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        seat(&mut self.waiters, self.number, ticket, waker);
    }
}

impl Waiters {
    pub(super) fn seat(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        seat(&mut self.wakers, self.group, ticket, waker);
    }
}
