use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::drive::Letter;

/// Letters to one saga that may wait.
const CAPACITY: usize = 16;

/// What a running saga is told from outside. Empty, it is a few words: there is one for each saga.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    come: Notify,
}

impl Mailbox {
    /// Leaves a letter; returns it if too many are there.
    pub(super) fn put(&self, letter: Letter) -> Result<(), Letter> {
        let mut letters = self.letters.lock();
        if letters.len() >= CAPACITY {
            return Err(letter);
        }
        letters.push_back(letter);
        drop(letters);
        self.come.notify_one();
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.lock().is_empty()
    }

    /// The next letter.
    ///
    /// Cancel: no letter is lost.
    pub(super) async fn take(&self) -> Letter {
        loop {
            let come = self.come.notified();
            let letter = self.letters.lock().pop_front();
            if let Some(letter) = letter {
                return letter;
            }
            come.await;
        }
    }

    /// All letters, for one who leaves.
    pub(super) fn drain(&self) -> VecDeque<Letter> {
        std::mem::take(&mut *self.letters.lock())
    }
}
