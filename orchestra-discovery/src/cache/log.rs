use std::collections::VecDeque;

use crate::source::{Change, Revision};

/// The most changes that a watch is given at once.
const PAGE: usize = 256;

/// What changed in one service, act by act.
///
/// Unlike the log of a registry it belongs to one service: a quiet service never falls behind what is
/// remembered because others are busy. Its revisions have gaps, as the services share one counter.
#[derive(Debug)]
pub(super) struct Log {
    acts: VecDeque<(Revision, Vec<Change>)>,
    most: usize,
    /// A watch may begin here and later.
    floor: Revision,
    latest: Revision,
}

pub(super) enum Page {
    /// Too old, or never given out.
    Forgotten,
    /// What follows, up to and with the revision.
    Changes(Revision, Vec<Change>),
}

impl Log {
    pub(super) fn new(floor: Revision, most: usize) -> Self {
        Self {
            acts: VecDeque::new(),
            most,
            floor,
            latest: floor,
        }
    }

    pub(super) fn push(&mut self, revision: Revision, changes: Vec<Change>) {
        if self.acts.len() >= self.most
            && let Some((dropped, _)) = self.acts.pop_front()
        {
            self.floor = dropped;
        }
        self.latest = revision;
        self.acts.push_back((revision, changes));
    }

    pub(super) fn after(&self, after: Revision) -> Page {
        if after < self.floor || after > self.latest {
            return Page::Forgotten;
        }
        let skip = self
            .acts
            .partition_point(|(revision, _)| *revision <= after);
        let (mut upto, mut page) = (after, Vec::new());
        for (revision, changes) in self.acts.iter().skip(skip) {
            upto = *revision;
            page.extend(changes.iter().cloned());
            if page.len() >= PAGE {
                break;
            }
        }
        Page::Changes(upto, page)
    }
}
