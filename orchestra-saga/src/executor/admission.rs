//! How many sagas run at a time, and who is next.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// Room for so many sagas. When it is taken, those of the highest priority come first, and among equals
/// those that came first.
#[derive(Debug)]
pub(super) struct Admission {
    max_waiting: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    tickets: u64,
    waiting: BTreeMap<(Reverse<u8>, u64), oneshot::Sender<Permit>>,
}

/// A place, which is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Option<Arc<Admission>>);

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(admission) = self.0.take() else {
            return;
        };
        let mut queue = admission.queue.lock();
        while let Some((_, next)) = queue.waiting.pop_first() {
            match next.send(Self(Some(Arc::clone(&admission)))) {
                Ok(()) => return,
                // Nobody waits for it; it must not come back to the queue that is locked here.
                Err(mut unclaimed) => drop(unclaimed.0.take()),
            }
        }
        queue.free += 1;
    }
}

impl Admission {
    pub(super) fn new(max_running: usize, max_waiting: usize) -> Arc<Self> {
        let queue = Mutex::new(Queue {
            free: max_running,
            tickets: 0,
            waiting: BTreeMap::new(),
        });
        Arc::new(Self { max_waiting, queue })
    }

    /// A place for a new saga, now or after some waiting; refused if too many wait already.
    ///
    /// Cancel: the place in the queue is given up.
    pub(super) async fn enter(self: &Arc<Self>, priority: u8) -> Result<Permit> {
        match self.line_up(priority, self.max_waiting) {
            Some(Ok(permit)) => Ok(permit),
            Some(Err(turn)) => turn.await.map_err(|_gone| full()),
            None => Err(full()),
        }
    }

    /// A place for a saga that exists, however many wait.
    ///
    /// Cancel: the place in the queue is given up.
    pub(super) async fn enter_again(self: &Arc<Self>, priority: u8) -> Result<Permit> {
        match self.line_up(priority, usize::MAX) {
            Some(Ok(permit)) => Ok(permit),
            Some(Err(turn)) => turn.await.map_err(|_gone| full()),
            None => Err(full()),
        }
    }

    fn line_up(
        self: &Arc<Self>,
        priority: u8,
        most: usize,
    ) -> Option<std::result::Result<Permit, oneshot::Receiver<Permit>>> {
        let mut queue = self.queue.lock();
        if queue.free > 0 {
            queue.free -= 1;
            return Some(Ok(Permit(Some(Arc::clone(self)))));
        }
        queue.waiting.retain(|_, turn| !turn.is_closed());
        if queue.waiting.len() >= most {
            return None;
        }
        let (sender, turn) = oneshot::channel();
        queue.tickets += 1;
        let ticket = (Reverse(priority), queue.tickets);
        queue.waiting.insert(ticket, sender);
        Some(Err(turn))
    }
}

fn full() -> Error {
    let message = "as many sagas as allowed are running";
    Error::new(ErrorKind::Overloaded, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_goes_to_the_highest_priority_that_came_first() {
        let room = Admission::new(1, 3);
        let held = room.enter(0).await.unwrap();
        let mut order = Vec::new();
        let turn = |priority| room.line_up(priority, 3).unwrap().unwrap_err();
        let (mut low, mut first, mut second) = (turn(0), turn(7), turn(7));
        assert_eq!(
            room.enter(9).await.unwrap_err().kind(),
            ErrorKind::Overloaded
        );
        let mut held = Some(held);
        for _ in 0..3 {
            drop(held.take());
            for (name, turn) in [
                ("low", &mut low),
                ("first", &mut first),
                ("second", &mut second),
            ] {
                if let Ok(permit) = turn.try_recv() {
                    order.push(name);
                    held = Some(permit);
                }
            }
        }
        assert_eq!(order, ["first", "second", "low"]);
    }

    #[tokio::test]
    async fn whoever_stopped_waiting_keeps_no_place() {
        let room = Admission::new(1, 2);
        let held = room.enter(0).await.unwrap();
        drop(room.line_up(1, 2));
        let mut waits = room.line_up(0, 2).unwrap().unwrap_err();
        drop(held);
        drop(waits.try_recv().unwrap());
        let again = room.enter(0).await.unwrap();
        assert!(room.line_up(0, 0).is_none());
        drop(again);
        assert!(room.line_up(0, 0).is_some());
    }
}
