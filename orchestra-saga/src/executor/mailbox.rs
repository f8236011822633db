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
    letters: Vec<Letter>,
    reader: Option<Waker>,
    /// Whether the saga needs no place of its own any more.
    seated: bool,
}

impl Inner {
    fn take(&mut self) -> Option<Letter> {
        // There are few.
        (!self.letters.is_empty()).then(|| self.letters.remove(0))
    }

    fn wait(&mut self, context: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Mailbox {
    pub(super) fn of(letter: Letter) -> Self {
        Self(Mutex::new(Inner {
            letters: vec![letter],
            ..Inner::default()
        }))
    }

    /// Gives the letter back when as many wait already as may.
    pub(super) fn put(&self, letter: Letter) -> Result<(), Letter> {
        let mut inner = self.0.lock();
        if inner.letters.len() >= CAPACITY {
            return Err(letter);
        }
        inner.letters.push(letter);
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
        self.0.lock().take()
    }

    /// The next letter. Whoever has to wait for it is woken by [`Mailbox::rouse`] too.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Letter> {
        let mut inner = self.0.lock();
        if let Some(letter) = inner.take() {
            return Poll::Ready(letter);
        }
        inner.wait(context);
        Poll::Pending
    }

    /// The saga runs in the place of another.
    pub(super) fn seat(&self) {
        let mut inner = self.0.lock();
        inner.seated = true;
        let reader = inner.reader.take();
        drop(inner);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Until somebody says so.
    pub(super) fn poll_seated(&self, context: &Context<'_>) -> Poll<()> {
        let mut inner = self.0.lock();
        if inner.seated {
            return Poll::Ready(());
        }
        inner.wait(context);
        Poll::Pending
    }

    /// Wakes the reader, who sees for himself why.
    pub(super) fn rouse(&self) {
        let reader = self.0.lock().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }

    /// All letters that wait.
    pub(super) fn drain(&self) -> Vec<Letter> {
        std::mem::take(&mut self.0.lock().letters)
    }
}
