//! A durable store in a directory: an append-only log, and nothing else to keep in step with it.
//!
//! One writer thread takes every batch that waits, writes them side by side with one write, makes them
//! durable with one `fdatasync`, and then answers all (group commit). The segments of the log were filled
//! with zeros beforehand, so that a sync writes no metadata. Which batch is accepted is decided in memory,
//! under one lock, when it is handed in: the order in the file is the order of the decisions. The task
//! that appends writes the JSON; a refusal, which may rest on batches that are not durable yet, is told
//! once they are.
//!
//! In memory is one entry of 96 bytes for each saga, a few tens more for its id, timer, start key and end,
//! and nothing for its events: the last frame of a saga names the place of the one before, and reading a saga
//! walks back along them. Beside it are at most 1.5 MiB of the log that were read last.
//!
//! # What happens when
//!
//! | what fails | what happens |
//! |---|---|
//! | the process, or the power | what was acknowledged is there. The end of the log may be torn: it is cut off and reported ([`JournalStore::recovered`]). A batch that was not acknowledged is there or not, whole |
//! | a write or a sync | nobody knows what of it lasts, and a sync that is repeated may lie. All who wait get [`ErrorKind::Store`] and the store takes nothing more until it is opened again, which writes the last group anew. What is durable can be read |
//! | the disk is full | segments take their room before they are used. When there is none for the next, appends get [`ErrorKind::Full`], reads go on, purges find a reserve, and appends go on soon after there is room. On file systems that need room to overwrite, a full disk is a failed write |
//! | bytes in the midst of the log change | opening, or reading the saga, is refused as [`ErrorKind::Corrupt`] with file and offset. Such a segment gives no room back, the others do |
//! | the newest checkpoint is damaged | the one before it is read, and more of the log. Where both are and the log was rewritten, [`ErrorKind::Corrupt`]: what was purged from it would come back |
//! | a segment is missing | [`ErrorKind::Corrupt`], unless nothing in it was needed |
//! | bytes of the last group change and the store was not closed | not to be told from a torn end: it is cut off. A store that was closed has a checkpoint behind it |
//! | a segment was copied from another journal | it is refused as [`ErrorKind::Corrupt`], with both ids |
//! | a newer version wrote the files | [`ErrorKind::UnknownFormat`], and they are left as they are |
//! | a batch is longer than a segment | it is refused as [`ErrorKind::InvalidInput`] |
//! | another process has the directory | [`ErrorKind::Locked`] names it |
//!
//! What this stands on: the disk keeps what `fdatasync` said it has, and writing the same bytes to a
//! sector again does not harm them.

mod blocks;
mod bytes;
mod checkpoint;
mod compact;
mod core;
mod disk;
mod files;
mod frame;
mod front;
mod group;
mod index;
mod log;
mod place;
mod read;
mod recover;
mod segment;
mod threads;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;

use self::core::{Core, Need, State, Waiting};
use super::lock::Lock;
use super::term::Terms;
use super::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Position, SagaStore, Snapshot, Summary, Timer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::payload::Payload;
use disk::{Disk, Os};
use frame::{Draft, Header, Purge};
use place::Place;

/// Sagas of one frame that forgets: a few such frames find room in the reserve.
const PURGED_AT_ONCE: usize = 256;

/// How a [`JournalStore`] divides its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The length of a segment in bytes, from 64 KiB to 2 GiB; 64 MiB by default. A batch must fit into one.
    /// One segment is prepared ahead, so an empty store takes two.
    pub segment_bytes: u64,
    /// So much log is read at a start after a crash, at most about, unless a checkpoint itself is longer;
    /// 128 MiB by default. Looked at when a segment is full.
    pub checkpoint_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 128 << 20,
        }
    }
}

impl Config {
    /// The length of a segment.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The log between checkpoints.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// The length of a segment within its bounds, a multiple of a page.
    fn room(&self) -> u32 {
        let bytes = self.segment_bytes.clamp(64 << 10, 2 << 30);
        bytes::length(usize::try_from(bytes).unwrap_or(usize::MAX)) & !4095
    }
}

/// What opening a [`JournalStore`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Sagas that the store knows.
    pub sagas: usize,
    /// Frames that were read behind the last checkpoint; none after a clean close.
    pub frames: u64,
    /// What was cut off from the end.
    pub torn: Option<Torn>,
}

/// The end of a log whose last write was interrupted. None of it had been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The segment.
    pub file: PathBuf,
    /// Where the frames that are whole end.
    pub offset: u32,
    /// How many bytes were cut off.
    pub bytes: u32,
}

/// A durable [`SagaStore`] in a directory of this process alone.
///
/// A clone shares it. Drop: the writer ends by itself after what was handed in, without a checkpoint, and
/// releases the lock; the next start reads the end of the log. [`JournalStore::close`] waits for it.
///
/// ```
/// # let scratch = tempfile::tempdir()?;
/// # let directory = scratch.path().join("sagas");
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::{ErrorKind, JournalStore, Partition, SagaStore};
///
/// let store = JournalStore::open(&directory).await?;
/// let first = store.claim(Partition(0), "a").await?;
/// let second = JournalStore::open(&directory).await.expect_err("the directory is taken");
/// assert_eq!(second.kind(), ErrorKind::Locked);
/// store.close().await?;
///
/// let store = JournalStore::open(&directory).await?;
/// assert_eq!(store.recovered().torn, None);
/// assert!(store.claim(Partition(0), "b").await?.epoch > first.epoch);
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JournalStore {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    recovered: Recovered,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.stop();
    }
}

impl fmt::Debug for JournalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalStore")
            .field("directory", &self.directory())
            .finish_non_exhaustive()
    }
}

/// What became of a batch that was handed in.
enum Decision {
    /// It is durable once everything before this place is.
    Queued(Place),
    /// It rests on what is before this place.
    Refused(Place, Error),
}

impl JournalStore {
    /// Opens or creates the directory. See the [module](crate::store::journal) for what it refuses.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(directory, Config::default()).await
    }

    /// As [`JournalStore::open`]. Segments that are there keep their length.
    pub async fn open_with(directory: impl AsRef<Path>, config: Config) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        blocking(move || {
            let disk: Arc<dyn Disk> = Arc::new(Os);
            disk.create_dir(&directory)
                .map_err(|source| segment::failed(&directory, "creating", source))?;
            let lock = Lock::take(&directory, &directory.join("journal"))?;
            Self::open_on(disk, directory, config, Some(lock))
        })
        .await
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        config: Config,
        lock: Option<Lock>,
    ) -> Result<Self> {
        let recovery = recover::recover(&disk, &directory, config.room())?;
        let (core, recovered) = Core::new(directory, disk, config, recovery, lock);
        let core = Arc::new(core);
        let threads = threads::start(&core)?;
        Ok(Self {
            handle: Arc::new(Handle {
                core,
                threads: Mutex::new(threads),
                recovered,
            }),
        })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.core().dir()
    }

    /// What opening found.
    pub fn recovered(&self) -> &Recovered {
        &self.handle.recovered
    }

    fn core(&self) -> &Core {
        &self.handle.core
    }

    /// Waits until everything handed in is durable, takes a checkpoint, ends the threads and releases the
    /// lock. Later writes fail. An error says that something handed in may not be durable, or that there is
    /// no checkpoint and the next start reads more; the lock is released all the same.
    pub async fn close(&self) -> Result<()> {
        let handle = Arc::clone(&self.handle);
        blocking(move || {
            let core = &handle.core;
            core.stop();
            // Held to the end: whoever closes a second time must not release the lock of the first.
            let mut threads = handle.threads.lock();
            let mut panicked = false;
            let running = !threads.is_empty();
            for thread in threads.drain(..) {
                panicked |= thread.join().is_err();
            }
            let closed = if panicked {
                let message = format!("saga store {}: a thread panicked", core.dir().display());
                Err(Error::new(ErrorKind::Store, message))
            } else if running {
                compact::checkpoint(core).and_then(|()| compact::mark_closed(core))
            } else {
                Ok(())
            };
            drop(core.lock.lock().take());
            closed
        })
        .await
    }

    /// Decides under the lock; whoever is queued is seated with those who wait for the group.
    fn decide(
        &self,
        frame: &mut Draft,
        need: Need,
        check: &impl Fn(&State, &mut Header) -> Result<Place>,
        apply: &impl Fn(&mut State, &Header, &[u8]),
        waiting: &mut Waiting<'_>,
        cx: &Context<'_>,
    ) -> Poll<Decision> {
        let core = self.core();
        let mut state = core.state();
        if let Err(error) = state.check_open() {
            return Poll::Ready(Decision::Refused(Place::NONE, error));
        }
        let previous = match check(&state, &mut frame.header) {
            Ok(previous) => previous,
            Err(error) => return Poll::Ready(Decision::Refused(state.decided, error)),
        };
        let header = match core.poll_push(&mut state, frame, previous, need, waiting, cx) {
            Poll::Ready(Ok(header)) => header,
            Poll::Ready(Err(error)) => return Poll::Ready(Decision::Refused(Place::NONE, error)),
            Poll::Pending => return Poll::Pending,
        };
        apply(&mut state, &header, frame.body());
        let end = header.end();
        state.decided = end;
        state.seat(end, &mut waiting.durable, cx.waker());
        core.wake_writer(&mut state);
        Poll::Ready(Decision::Queued(end))
    }

    /// Decides, and waits until that is durable: a refusal rests on what came before it.
    async fn write(
        &self,
        mut frame: Draft,
        need: Need,
        check: impl Fn(&State, &mut Header) -> Result<Place> + Send + Sync,
        apply: impl Fn(&mut State, &Header, &[u8]) + Send + Sync,
    ) -> Result<()> {
        let mut waiting = Waiting::new(self.core());
        let decide =
            |cx: &mut Context<'_>| self.decide(&mut frame, need, &check, &apply, &mut waiting, cx);
        let decision = poll_fn(decide).await;
        // It is with the group now, and many may wait.
        drop(frame);
        let (place, refusal) = match decision {
            Decision::Queued(end) => (end, None),
            Decision::Refused(place, error) => (place, Some(error)),
        };
        poll_fn(|cx| self.core().poll_durable(place, &mut waiting, cx)).await?;
        refusal.map_or(Ok(()), Err)
    }

    async fn durably(&self, place: Place) -> Result<()> {
        let mut waiting = Waiting::new(self.core());
        poll_fn(|cx| self.core().poll_durable(place, &mut waiting, cx)).await
    }

    /// Waits until everything that is known is durable: nobody is shown what may yet be lost.
    async fn settled(&self) -> Result<()> {
        let decided = self.core().state().decided;
        self.durably(decided).await
    }

    /// What is known of a saga; that nothing is known is told once the purge that it may rest on is durable.
    async fn known(&self, saga: SagaId) -> Result<Option<index::Entry>> {
        let (found, purged) = {
            let state = self.core().state();
            (state.log.index.find(saga).copied(), state.purged)
        };
        if found.is_none() {
            self.durably(purged.plus(1)).await?;
        }
        Ok(found)
    }

    /// The first batch of the saga that has this id.
    fn first_of(&self, saga: SagaId) -> Option<Place> {
        let state = self.core().state();
        state.log.index.find(saga).map(|entry| entry.first)
    }

    /// Reads at once what is in memory most likely, and anything else where it may block.
    async fn look<T: Send + 'static>(
        &self,
        place: Place,
        read: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = &self.handle.core;
        if place.segment() >= core.state().warm {
            return read(core);
        }
        self.job(read).await
    }

    /// Does what may block elsewhere, once there is room for it. It ends even if nobody waits for it.
    async fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = Arc::clone(&self.handle.core);
        let permit = Arc::clone(&core.jobs).acquire_owned().await;
        let permit = permit.map_err(lost)?;
        blocking(move || {
            let done = work(&core);
            drop(permit);
            done
        })
        .await
    }

    /// The next epoch of a partition; none if it is leased and that counts.
    async fn take(
        &self,
        partition: Partition,
        owner: &str,
        term: Option<Duration>,
    ) -> Result<Option<Claim>> {
        let frame = Draft::claim(Claim::new(partition, Epoch(0)), owner)?;
        let terms = &self.core().terms;
        let mut untold = Untold {
            terms,
            partition,
            epoch: AtomicU64::new(0),
        };
        let check = |state: &State, header: &mut Header| {
            if term.is_some() && !terms.is_free(partition) {
                return Err(Error::new(ErrorKind::Busy, "the partition is leased"));
            }
            header.epoch = Epoch(state.log.epoch(partition).0 + 1);
            Ok(Place::NONE)
        };
        let apply = |state: &mut State, header: &Header, _body: &[u8]| {
            state.log.claim(header);
            terms.begin(Claim::new(partition, header.epoch), owner, term);
            untold.epoch.store(header.epoch.0, Ordering::Relaxed);
        };
        match self.write(frame, Need::Urgent, check, apply).await {
            Ok(()) => Ok(untold.tell()),
            Err(error) if error.kind() == ErrorKind::Busy => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of the sagas that can be forgotten, and the bytes that this frees.
    fn burial(core: &Core, entries: &[index::Entry]) -> Result<Purge> {
        let mut freed: BTreeMap<u32, u64> = BTreeMap::new();
        let mut add = |place: Place, length: u32| {
            *freed.entry(place.segment()).or_default() += u64::from(length);
        };
        for entry in entries {
            core.chain(entry.saga, entry.last, Version(0), |frame| {
                add(frame.header.place, frame.header.length);
                Ok(())
            })?;
            if entry.snapshot != Place::NONE {
                add(entry.snapshot, entry.snapshot_length);
            }
        }
        Ok(Purge {
            sagas: entries.iter().map(|entry| entry.saga).collect(),
            freed: freed.into_iter().collect(),
        })
    }
}

/// A claim that was decided, and is given up if nobody hears of it.
struct Untold<'a> {
    terms: &'a Terms,
    partition: Partition,
    /// Zero while there is none.
    epoch: AtomicU64,
}

impl Untold<'_> {
    fn tell(&mut self) -> Option<Claim> {
        let epoch = Epoch(std::mem::take(self.epoch.get_mut()));
        (epoch.0 > 0).then(|| Claim::new(self.partition, epoch))
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.tell() {
            self.terms.release(claim);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(lost)?
}

fn lost(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Store, "work of the saga store was lost").caused_by(source)
}

#[async_trait]
impl SagaStore for JournalStore {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        let claim = self.take(partition, owner, None).await?;
        claim.ok_or_else(|| Error::new(ErrorKind::Store, "saga store: a claim was not granted"))
    }

    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>> {
        self.take(partition, owner, Some(term)).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.core().state().check_open()?;
        self.core().terms.renew(claim, term)
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.core().terms.release(claim);
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        self.core().state().check_open()?;
        Ok(self.core().terms.holders())
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let frame = Draft::append(claim, append)?;
        let check = |state: &State, _header: &mut Header| state.log.check_append(claim, append);
        let apply = |state: &mut State, header: &Header, body: &[u8]| {
            let followed = state.log.append(header, body);
            debug_assert!(followed.is_some(), "what was written is read");
        };
        self.write(frame, Need::Ordinary, check, apply).await?;
        Ok(append.version())
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        loop {
            let Some(entry) = self.known(saga).await? else {
                return Ok(Vec::new());
            };
            if entry.version <= after {
                return Ok(Vec::new());
            }
            self.durably(entry.last.plus(1)).await?;
            let read = move |core: &Core| core.events(&entry, after);
            match self.look(entry.first, read).await {
                // It may have been purged meanwhile, and its frames removed, whoever has its id now.
                Err(_) if self.first_of(saga) != Some(entry.first) => {}
                read => return read,
            }
        }
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        let (found, place) = {
            let state = self.core().state();
            let found = state.log.index.find_key(key);
            let entry = found.and_then(|saga| state.log.index.find(saga));
            (found, entry.map_or(state.purged, |entry| entry.first))
        };
        self.durably(place.plus(1)).await?;
        Ok(found)
    }

    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>> {
        let found = self.core().state().log.index.timers(partition, now, limit);
        self.settled().await?;
        Ok(found)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let mut rest = filter.clone();
        let mut page = Vec::new();
        let mut newest = Place::NONE;
        loop {
            let listed = {
                let state = self.core().state();
                newest = newest.max(state.purged);
                state.log.index.list(&rest, &mut page)
            };
            newest = newest.max(listed.newest);
            if listed.last.is_none() {
                break;
            }
            rest.after = listed.last;
            tokio::task::yield_now().await;
        }
        // Not until everything is: whoever continues all sagas would wait for the first of them each time.
        self.durably(newest.plus(1)).await?;
        Ok(page)
    }

    /// Written with the next batch: a snapshot is worth no sync of its own, and what is read without it is
    /// the log.
    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        let mut frame = Draft::snapshot(saga, &snapshot)?;
        let core = self.core();
        let mut waiting = Waiting::new(core);
        poll_fn(|cx| {
            let mut state = core.state();
            if let Err(error) = state.check_open() {
                return Poll::Ready(Err(error));
            }
            let Some(before) = state.log.index.find(saga).map(|entry| entry.snapshot) else {
                return Poll::Ready(Ok(()));
            };
            let room = Need::Ordinary;
            let pushed = core.poll_push(&mut state, &mut frame, before, room, &mut waiting, cx);
            pushed.map_ok(|header| {
                state.log.snapshot(&header);
                core.pushed_lazily(&mut state);
            })
        })
        .await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        loop {
            let Some(entry) = self.known(saga).await? else {
                return Ok(None);
            };
            if entry.snapshot == Place::NONE {
                return Ok(None);
            }
            self.durably(entry.snapshot.plus(1)).await?;
            let read = move |core: &Core| {
                let mut buffer = read::Buffer::new();
                let frame = core.frame(entry.snapshot, &mut buffer)?;
                let snapshot = frame::read_snapshot(&frame.header, frame.body());
                let fits = frame.header.saga == saga;
                let snapshot = snapshot.filter(|_| fits);
                snapshot.ok_or_else(|| frame.corrupt("a snapshot makes no sense").of(saga))
            };
            match self.look(entry.snapshot, read).await {
                // Another was saved meanwhile, and this one removed.
                Err(_) if self.core().state().log.index.find(saga) != Some(&entry) => {}
                read => return read.map(Some),
            }
        }
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        let (entries, purged) = self
            .job(move |core| {
                let entries = core.stream(after, limit)?;
                Ok((entries, core.state().purged))
            })
            .await?;
        // What is left out may rest on a purge.
        self.durably(purged.plus(1)).await?;
        Ok(entries)
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        let frame = Draft::definition(blueprint)?;
        let known = || Error::new(ErrorKind::Busy, "the definition is known");
        let check = |state: &State, _header: &mut Header| {
            let is_known = state.log.definitions.contains_key(&blueprint.hash);
            if is_known {
                Err(known())
            } else {
                Ok(Place::NONE)
            }
        };
        let apply = |state: &mut State, header: &Header, _body: &[u8]| {
            state.log.define(header, &blueprint.hash);
        };
        match self.write(frame, Need::Ordinary, check, apply).await {
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            other => other,
        }
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        let Some(kept) = self.core().state().log.definitions.get(hash).copied() else {
            return Ok(None);
        };
        self.durably(kept.place.plus(1)).await?;
        let wanted: Arc<str> = Arc::from(hash);
        let read = move |core: &Core| {
            let mut buffer = read::Buffer::new();
            let frame = core.frame(kept.place, &mut buffer)?;
            let broken = || frame.corrupt("a definition makes no sense");
            let (hash, document) = frame::read_definition(frame.body()).ok_or_else(broken)?;
            let document = Payload::parse(document).map_err(|source| broken().caused_by(source))?;
            if hash == &*wanted {
                Ok(Some(Blueprint::new(wanted, document)))
            } else {
                Err(broken())
            }
        };
        self.look(kept.place, read).await
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        self.core().state().log.check_claim(claim)?;
        self.settled().await?;
        let mut purged = 0;
        while purged < limit {
            let most = PURGED_AT_ONCE.min(limit - purged);
            let ended = {
                let state = self.core().state();
                state.log.index.ended(claim.partition, before, most)
            };
            if ended.is_empty() {
                break;
            }
            match self.bury(claim, ended).await {
                Ok(count) => purged += count,
                // The reserve is used up: what is purged gives room for the rest.
                Err(error) if error.kind() == ErrorKind::Full && purged > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if purged > 0 {
            let core = self.core();
            core.state().wants_keeping = true;
            core.keeping.notify_one();
        }
        Ok(purged)
    }
}

impl JournalStore {
    /// Forgets these sagas, if they are still what was seen. Returns how many were.
    async fn bury(&self, claim: Claim, mut entries: Vec<index::Entry>) -> Result<usize> {
        while !entries.is_empty() {
            let seen = entries.clone();
            self.settled().await?;
            let purge = match self.job(move |core| Self::burial(core, &seen)).await {
                Ok(purge) => purge,
                // Somebody else forgot one of them, and its frames are removed already.
                Err(_) if !self.retain_same(&mut entries) => continue,
                Err(error) => return Err(error),
            };
            let frame = Draft::purge(claim, &purge)?;
            let check = |state: &State, _header: &mut Header| {
                state.log.check_claim(claim)?;
                let same = |entry: &index::Entry| state.log.index.find(entry.saga) == Some(entry);
                if entries.iter().all(same) {
                    Ok(Place::NONE)
                } else {
                    Err(Error::new(ErrorKind::StaleVersion, "a saga has moved on"))
                }
            };
            let apply = |state: &mut State, header: &Header, _body: &[u8]| {
                state.log.purge(&purge);
                state.purged = header.place;
            };
            match self.write(frame, Need::Urgent, check, apply).await {
                Ok(()) => return Ok(entries.len()),
                Err(error) if error.kind() == ErrorKind::StaleVersion => {}
                Err(error) => return Err(error),
            }
            self.retain_same(&mut entries);
        }
        Ok(0)
    }

    /// Leaves out what has changed. Whether nothing has.
    fn retain_same(&self, entries: &mut Vec<index::Entry>) -> bool {
        let count = entries.len();
        let state = self.core().state();
        entries.retain(|entry| state.log.index.find(entry.saga) == Some(entry));
        entries.len() == count
    }
}
