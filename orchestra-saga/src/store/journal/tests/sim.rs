//! A disk that loses power, runs full, writes a little at a time and fails to sync.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::store::journal::disk::{Disk, DiskFile};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Debug, Default, Clone)]
struct Body {
    /// What reads see.
    cached: Vec<u8>,
    /// What outlasts the power.
    durable: Vec<u8>,
    /// What may, from the oldest write on.
    dirty: Vec<(usize, Vec<u8>)>,
}

impl Body {
    fn put(bytes: &mut Vec<u8>, offset: usize, part: &[u8]) {
        let end = offset + part.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(part);
    }
}

#[derive(Debug, Clone)]
enum Naming {
    Set(PathBuf, u64),
    Gone(PathBuf),
}

#[derive(Debug, Default)]
pub(super) struct World {
    files: BTreeMap<u64, Body>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    naming: Vec<Naming>,
    /// Bytes that files may still grow by.
    pub(super) room: Option<usize>,
    /// Each write takes at most so many bytes.
    pub(super) short: Option<usize>,
    /// So many syncs succeed before one fails.
    pub(super) failing_sync: Option<u64>,
    /// So many writes succeed before one fails.
    pub(super) failing_write: Option<u64>,
    /// So many changes happen before nothing does any more.
    pub(super) dies_after: Option<u64>,
    pub(super) changes: u64,
    pub(super) syncs: u64,
    held: bool,
    /// Reads wait until they are released.
    reads_held: bool,
    /// Reads that wait, or were done.
    pub(super) reads: u64,
    /// The bytes that they gave.
    pub(super) read_bytes: u64,
    /// Files that are open.
    pub(super) open: usize,
    /// Directories whose names were made durable.
    pub(super) synced_dirs: std::collections::BTreeSet<PathBuf>,
    /// The next sync of the writer panics.
    pub(super) panics: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Sim {
    world: Arc<Mutex<World>>,
    released: Arc<Condvar>,
}

#[derive(Debug)]
struct SimFile {
    sim: Sim,
    id: u64,
}

impl SimFile {
    fn open(sim: &Sim, world: &mut World, id: u64) -> Arc<dyn DiskFile> {
        world.open += 1;
        let sim = sim.clone();
        Arc::new(Self { sim, id })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.sim.world().open -= 1;
    }
}

fn error(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// Whether the one that is to fail has come.
fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl World {
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.dies_after {
            Some(limit) if self.changes > limit => Err(error("no power")),
            _ => Ok(()),
        }
    }

    fn name(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        self.naming.push(naming);
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, naming: &Naming) {
    match naming {
        Naming::Set(path, id) => {
            names.retain(|_, known| known != id);
            names.insert(path.clone(), *id);
        }
        Naming::Gone(path) => {
            names.remove(path);
        }
    }
}

impl Sim {
    pub(super) fn world(&self) -> parking_lot::MutexGuard<'_, World> {
        self.world.lock()
    }

    /// Syncs of the writer wait until they are released.
    pub(super) fn hold(&self) {
        self.world().held = true;
    }

    /// Reads wait until they are released.
    pub(super) fn hold_reads(&self) {
        self.world().reads_held = true;
    }

    pub(super) fn release(&self) {
        let mut world = self.world();
        world.held = false;
        world.reads_held = false;
        drop(world);
        self.released.notify_all();
    }

    /// The disk after a loss of power: what was synced, and of the rest what `lasts` says, by sector.
    pub(super) fn after_power_loss(&self, mut lasts: impl FnMut() -> bool) -> Self {
        let world = self.world();
        let mut names = world.durable_names.clone();
        for naming in &world.naming {
            if lasts() {
                apply(&mut names, naming);
            }
        }
        let mut files = BTreeMap::new();
        for id in names.values() {
            let body = &world.files[id];
            let mut durable = body.durable.clone();
            for (offset, part) in &body.dirty {
                let mut at = *offset;
                while at < offset + part.len() {
                    let end = (at / SECTOR * SECTOR + SECTOR).min(offset + part.len());
                    if lasts() {
                        Body::put(&mut durable, at, &part[at - offset..end - offset]);
                    }
                    at = end;
                }
            }
            let body = Body {
                cached: durable.clone(),
                durable,
                dirty: Vec::new(),
            };
            files.insert(*id, body);
        }
        Self::of(files, names)
    }

    fn of(files: BTreeMap<u64, Body>, names: BTreeMap<PathBuf, u64>) -> Self {
        let sim = Self::default();
        {
            let mut world = sim.world();
            world.files = files;
            world.durable_names.clone_from(&names);
            world.names = names;
        }
        sim
    }

    /// Another disk with the same content, all of it durable.
    pub(super) fn copy(&self) -> Self {
        let world = self.world();
        let files = world.files.iter().map(|(id, body)| {
            let body = Body {
                durable: body.cached.clone(),
                cached: body.cached.clone(),
                dirty: Vec::new(),
            };
            (*id, body)
        });
        let files = files.collect();
        Self::of(files, world.names.clone())
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.files[&world.names[path]].cached.clone()
    }

    /// Changes a file behind the store's back.
    pub(super) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let id = world.names[path];
        let body = world.files.get_mut(&id).expect("named");
        edit(&mut body.cached);
        body.durable.clone_from(&body.cached);
    }

    pub(super) fn unlink(&self, path: &Path) {
        let mut world = self.world();
        world.names.remove(path);
        world.durable_names.remove(path);
    }
}

impl Disk for Sim {
    fn create_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world
            .names
            .keys()
            .filter(|path| path.parent() == Some(directory));
        let names = inside.map(|path| path.file_name().expect("a name").to_string_lossy().into());
        Ok(names.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.change()?;
        let id = world.files.keys().last().map_or(1, |last| last + 1);
        world.files.insert(id, Body::default());
        world.name(Naming::Set(path.to_owned(), id));
        Ok(SimFile::open(self, &mut world, id))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let id = world.names.get(path).copied();
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile::open(self, &mut world, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        let id = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        world.name(Naming::Set(to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        let id = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let length = world.files[&id].cached.len();
        if let Some(room) = &mut world.room {
            *room += length;
        }
        world.name(Naming::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        world.synced_dirs.insert(directory.to_owned());
        world.durable_names = world.names.clone();
        world.naming.clear();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.sim.world();
        world.reads += 1;
        while world.reads_held {
            self.sim.released.wait(&mut world);
        }
        let offset = usize::try_from(offset).expect("small");
        let rest = world.files[&self.id].cached.get(offset..).unwrap_or(&[]);
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        world.read_bytes += count as u64;
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.sim.world();
        world.change()?;
        if is_due(&mut world.failing_write) {
            return Err(error("a write fails"));
        }
        let offset = usize::try_from(offset).expect("small");
        let count = world
            .short
            .map_or(bytes.len(), |most| most.min(bytes.len()));
        let grows = (offset + count).saturating_sub(world.files[&self.id].cached.len());
        if let Some(room) = &mut world.room {
            if grows > *room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= grows;
        }
        let part = &bytes[..count];
        let body = world.files.get_mut(&self.id).expect("open");
        Body::put(&mut body.cached, offset, part);
        body.dirty.push((offset, part.to_vec()));
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.sim.world();
        while world.held && std::thread::current().name() == Some("saga-journal-write") {
            self.sim.released.wait(&mut world);
        }
        assert!(
            !world.panics || std::thread::current().name() != Some("saga-journal-write"),
            "a thread that panics"
        );
        world.change()?;
        world.syncs += 1;
        let fails = is_due(&mut world.failing_sync);
        let body = world.files.get_mut(&self.id).expect("open");
        let dirty = std::mem::take(&mut body.dirty);
        if fails {
            // The system forgets that these bytes are not on the disk, and goes on showing them.
            return Err(error("a sync fails"));
        }
        for (offset, part) in dirty {
            Body::put(&mut body.durable, offset, &part);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.sim.world().files[&self.id].cached.len() as u64)
    }
}
