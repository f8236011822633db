//! What waits for a connection: whoever has one takes all of it.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::id::SagaId;

/// Something that waits.
pub(super) trait Waiting {
    /// One group has one of each saga.
    fn saga(&self) -> SagaId;
    /// Its share of a group, in bytes.
    fn weight(&self) -> usize;
    /// Whether nobody wants the answer any more.
    fn is_abandoned(&self) -> bool;
}

pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    come: Notify,
    most: usize,
    heaviest: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T: Waiting> Queue<T> {
    /// Groups have at most that many members, and weigh no more than that unless one alone does.
    pub(super) fn new(most: usize, heaviest: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
            }),
            come: Notify::new(),
            most,
            heaviest,
        }
    }

    /// Whether it will be taken: not once the queue is closed.
    pub(super) fn push(&self, item: T) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.waiting.push_back(item);
        drop(state);
        self.come.notify_one();
        true
    }

    /// Returns once something waits; false if nothing ever will.
    pub(super) async fn ready(&self) -> bool {
        loop {
            let come = self.come.notified();
            {
                let state = self.state.lock();
                if !state.waiting.is_empty() {
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            come.await;
        }
    }

    /// The first of those that wait, as many as make a group.
    pub(super) fn take(&self) -> Vec<T> {
        let mut state = self.state.lock();
        let mut group = Vec::with_capacity(state.waiting.len().min(self.most));
        let (mut sagas, mut later, mut weight) = (HashSet::new(), Vec::new(), 0_usize);
        while group.len() < self.most {
            let Some(item) = state.waiting.pop_front() else {
                break;
            };
            let heavier = weight.saturating_add(item.weight());
            if heavier > self.heaviest && !group.is_empty() {
                later.push(item);
                break;
            }
            if item.is_abandoned() {
                continue;
            }
            if sagas.insert(item.saga()) {
                weight = heavier;
                group.push(item);
            } else {
                later.push(item);
            }
        }
        for item in later.into_iter().rev() {
            state.waiting.push_front(item);
        }
        if !state.waiting.is_empty() {
            // For the next connection that is idle.
            self.come.notify_one();
        }
        group
    }

    /// Forgets those whose answer nobody wants.
    pub(super) fn sweep(&self) {
        let mut state = self.state.lock();
        state.waiting.retain(|item| !item.is_abandoned());
    }

    /// What waits is still taken, but nothing more comes.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.come.notify_waiters();
    }

    /// Gives up what waits.
    pub(super) fn clear(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state.lock().waiting)
    }
}
