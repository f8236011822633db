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
    pub(super) fn take(store: &Path) -> Result<Self> {
        let mut path = real(store).into_os_string();
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
    let mut owner = String::new();
    // The owner may be about to write its number; the lock alone decides.
    let read = file.read_to_string(&mut owner);
    let owner = match read {
        Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
        _ => "another process".to_owned(),
    };
    let message = format!("saga store {} is in use by {owner}", store.display());
    Error::new(ErrorKind::Locked, message)
}
