use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use orchestra_core::{Listener, Silent};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cgroup::Cgroups;
use super::lock::DirectoryLock;
use super::slots::Slots;
use super::{Inner, ProcessRuntime, leftover};
use crate::error::{Error, Result};
use crate::event::Event;

/// How a [`ProcessRuntime`] is opened.
#[derive(Clone)]
pub struct Options {
    listener: Arc<dyn Listener<Event>>,
    output_lines: usize,
    max_running: usize,
    cgroup_parent: Option<PathBuf>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("output_lines", &self.output_lines)
            .field("max_running", &self.max_running)
            .field("cgroup_parent", &self.cgroup_parent)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    /// Nobody listens, 512 lines are kept, 1024 containers may run, cgroups are made below our own.
    fn default() -> Self {
        Self {
            listener: Arc::new(Silent),
            output_lines: 512,
            max_running: 1_024,
            cgroup_parent: None,
        }
    }
}

impl Options {
    /// Reports lines of output, leftovers and unenforced limits to this listener.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.listener = listener;
        self
    }

    /// Keeps this many lines of output for each container.
    #[must_use]
    pub fn output_lines(mut self, lines: usize) -> Self {
        self.output_lines = lines;
        self
    }

    /// Runs at most this many containers at a time.
    #[must_use]
    pub fn max_running(mut self, containers: usize) -> Self {
        self.max_running = containers;
        self
    }

    /// Makes cgroups below this one, a path from the root of the hierarchy, instead of below our own. It
    /// must exist; with cgroups v2 it must be delegated to us and hold no process itself.
    #[must_use]
    pub fn cgroup_parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.cgroup_parent = Some(path.into());
        self
    }

    /// Opens the directory; see [`ProcessRuntime::open`].
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<ProcessRuntime> {
        let directory = directory.as_ref().to_owned();
        let context = format!("state directory {} cannot be opened", directory.display());
        let opened = tokio::task::spawn_blocking(move || self.open_blocking(directory));
        let inner = opened.await.map_err(|error| Error::io(context, error))??;
        Ok(ProcessRuntime {
            inner: Arc::new(inner),
        })
    }

    fn open_blocking(self, directory: PathBuf) -> Result<Inner> {
        let lock = DirectoryLock::acquire(&directory)?;
        leftover::clear(&directory, &*self.listener)?;
        Ok(Inner {
            directory,
            _lock: lock,
            cgroups: Cgroups::find(self.cgroup_parent.as_deref()),
            warned: AtomicBool::new(false),
            listener: self.listener,
            output_lines: self.output_lines,
            slots: Mutex::new(Slots::new(self.max_running)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }
}
