use async_trait::async_trait;

use super::log::Page;
use super::shared::{Pin, closed};
use crate::error::Result;
use crate::source::{Revision, WatchEvent, WatchStream};

/// Reads the log of one service.
#[derive(Debug)]
pub(super) struct CacheWatch {
    pin: Pin,
    after: Revision,
    lost: bool,
}

impl CacheWatch {
    pub(super) fn new(pin: Pin, after: Revision) -> Self {
        Self {
            pin,
            after,
            lost: false,
        }
    }
}

#[async_trait]
impl WatchStream for CacheWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        while !self.lost {
            if self.pin.progress.has_changed().is_err() {
                return Err(closed());
            }
            self.pin.progress.borrow_and_update();
            let service = &self.pin.service;
            let page = self
                .pin
                .shared
                .act(|table, _| table.page(service, self.after));
            match page {
                Page::Forgotten => self.lost = true,
                Page::Changes(revision, changes) if !changes.is_empty() => {
                    self.after = revision;
                    return Ok(WatchEvent::Changes { revision, changes });
                }
                // Whatever was published since the look into the log is noticed here.
                Page::Changes(..) => {
                    if self.pin.progress.changed().await.is_err() {
                        return Err(closed());
                    }
                }
            }
        }
        Ok(WatchEvent::Resync)
    }

    fn revision(&self) -> Revision {
        self.after
    }
}
