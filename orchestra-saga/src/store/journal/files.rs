//! The segments that are open for reading.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::Disk;
use super::front::JournalId;
use super::segment::{Name, Opened};
use crate::error::Result;

/// Open files that are kept, whoever reads from them. A read holds one more at most.
pub(super) const OPEN: usize = 64;

/// Keeps the files open that were read last.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    journal: JournalId,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// How often one was asked for.
    asked: u64,
    /// And when each was, in that count.
    files: HashMap<Name, (u64, Arc<Opened>)>,
}

impl Open {
    fn find(&mut self, name: Name) -> Option<Arc<Opened>> {
        self.asked += 1;
        let (asked, found) = self.files.get_mut(&name)?;
        *asked = self.asked;
        Some(Arc::clone(found))
    }

    fn keep(&mut self, name: Name, opened: &Arc<Opened>) {
        let oldest = self.files.iter().min_by_key(|(_, (asked, _))| *asked);
        let oldest = oldest.map(|(name, _)| *name);
        if self.files.len() >= OPEN
            && let Some(oldest) = oldest
        {
            self.files.remove(&oldest);
        }
        self.files.insert(name, (self.asked, Arc::clone(opened)));
    }
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, journal: JournalId) -> Self {
        Self {
            disk,
            dir,
            journal,
            open: Mutex::default(),
        }
    }

    pub(super) fn open(&self, name: Name) -> Result<Arc<Opened>> {
        if let Some(found) = self.open.lock().find(name) {
            return Ok(found);
        }
        let opened = Opened::open(&*self.disk, &self.dir, name, Some(self.journal))?;
        let opened = Arc::new(opened);
        let mut open = self.open.lock();
        // Somebody else may have been quicker.
        if let Some(found) = open.find(name) {
            return Ok(found);
        }
        open.keep(name, &opened);
        Ok(opened)
    }

    pub(super) fn forget(&self, name: Name) {
        let _closed = self.open.lock().files.remove(&name);
    }
}
