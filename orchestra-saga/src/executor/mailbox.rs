use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::drive::Letter;

/// How many letters may wait for a saga whose store is slow.
const CAPACITY: usize = 16;

/// What a saga is told while it runs. Its task alone reads.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    letters: VecDeque<Letter>,
    reader: Option<Waker>,
}

impl Mailbox {
    pub(super) fn of(letter: Letter) -> Self {
        let letters = VecDeque::from([letter]);
        let reader = None;
        Self(Mutex::new(Inner { letters, reader }))
    }

    /// Gives the letter back when as many wait already as may.
    pub(super) fn put(&self, letter: Letter) -> Result<(), Letter> {
        let mut inner = self.0.lock();
        if inner.letters.len() >= CAPACITY {
            return Err(letter);
        }
        inner.letters.push_back(letter);
        let reader = inner.reader.take();
        drop(inner);
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().letters.is_empty()
    }

    /// The next letter, if there is one.
    pub(super) fn take(&self) -> Option<Letter> {
        self.0.lock().letters.pop_front()
    }

    /// The next letter. Whoever has to wait for it is woken by [`Mailbox::rouse`] too.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Letter> {
        let mut inner = self.0.lock();
        if let Some(letter) = inner.letters.pop_front() {
            return Poll::Ready(letter);
        }
        match &mut inner.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Wakes the reader, who sees for himself why.
    pub(super) fn rouse(&self) {
        let reader = self.0.lock().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }

    /// All letters that wait.
    pub(super) fn drain(&self) -> VecDeque<Letter> {
        std::mem::take(&mut self.0.lock().letters)
    }
}
