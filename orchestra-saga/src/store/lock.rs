use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The operating system's lock on a store; it goes with the process, however that ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// A child that is being started holds a copy of the open file until it becomes its program, so closing
/// the file would not do.
impl Drop for Lock {
    fn drop(&mut self) {
        let _unlocked = self.file.unlock();
    }
}

impl Lock {
    /// The lock of a store, which is a file that is called as `stem`.
    pub(super) fn take(store: &Path, stem: &Path) -> Result<Self> {
        let mut path = real(stem).into_os_string();
        path.push(".lock");
        let fail = |source: std::io::Error| {
            let message = format!("saga store {} cannot be locked: {source}", store.display());
            Error::new(ErrorKind::Store, message).caused_by(source)
        };
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut file = options.map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(store, &mut file)),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        write_owner(&mut file).map_err(fail)?;
        Ok(Self { file })
    }
}

/// The file behind links: one file has one lock, whatever it is called.
fn real(store: &Path) -> PathBuf {
    let directory = || match store.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.canonicalize(),
        _ => std::env::current_dir(),
    };
    let unborn = || Some(directory().ok()?.join(store.file_name()?));
    let found = store.canonicalize().ok().or_else(unborn);
    found.unwrap_or_else(|| store.to_owned())
}

fn write_owner(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    file.flush()
}

fn taken(store: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // The owner may be about to write its number; the lock alone decides.
    let read = file.read_to_string(&mut text);
    let owner = read.ok().and_then(|_| text.trim().parse().ok());
    let holder = Holder::of(owner);
    let message = format!("saga store {} is in use by {holder}", store.display());
    Error::new(ErrorKind::Locked, message)
}

/// Who has a store, as far as its lock file tells.
enum Holder {
    Here,
    Process(u32),
    /// The process of that number is not to be seen.
    Hidden(u32),
    Unknown,
}

impl Holder {
    fn of(owner: Option<u32>) -> Self {
        match owner {
            Some(owner) if owner == std::process::id() => Self::Here,
            Some(owner) if is_seen(owner) => Self::Process(owner),
            Some(owner) => Self::Hidden(owner),
            None => Self::Unknown,
        }
    }
}

/// Whether there is such a process; where that cannot be known there is.
fn is_seen(process: u32) -> bool {
    let all = Path::new("/proc");
    !all.join("self").exists() || all.join(process.to_string()).exists()
}

/// Who it is, and what to do.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ELSEWHERE: &str = "give this one another path, or let them share a PostgresStore";
        match self {
            Self::Here => f.write_str(
                "this process already: open it once and share clones of it, or close the first",
            ),
            Self::Process(owner) => {
                write!(f, "process {owner}: end that process, {ELSEWHERE}")
            }
            Self::Hidden(owner) => write!(
                f,
                "process {owner} of another container, or a child that this process left behind: \
                 end it, {ELSEWHERE}"
            ),
            Self::Unknown => write!(f, "another process: end it, {ELSEWHERE}"),
        }
    }
}
