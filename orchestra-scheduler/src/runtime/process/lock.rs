use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// The sole right to use a state directory. The kernel takes it back when the process dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
}

/// How long a lock may outlive its owner: any child that another thread has forked holds a copy of the open
/// file until it becomes its program.
const FORK: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(10);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file would not do, for the same reason.
        let _unlocked = flock(&self.file, FlockOperation::Unlock);
    }
}

impl DirectoryLock {
    /// Makes the directory if need be, and locks it.
    pub(super) fn acquire(directory: &Path) -> Result<Self> {
        let shown = directory.display();
        let failed = |error| Error::io(format!("state directory {shown} cannot be used"), error);
        fs::create_dir_all(directory).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("lock"))
            .map_err(failed)?;
        match lock(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(directory, &mut file)),
            Err(error) => return Err(failed(error.into())),
        }
        // The number is for people; the lock itself is what counts.
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}

fn lock(file: &File) -> Result<(), Errno> {
    let mut waited = Duration::ZERO;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if waited < FORK => {
                std::thread::park_timeout(STEP);
                waited += STEP;
            }
            result => return result,
        }
    }
}

fn in_use(directory: &Path, file: &mut File) -> Error {
    let mut owner = String::new();
    // Without the number the message is merely poorer.
    let read = file.take(32).read_to_string(&mut owner);
    let owner = match (read, owner.trim()) {
        (Ok(_), pid) if !pid.is_empty() => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    let context = format!(
        "state directory {} is in use by {owner}",
        directory.display()
    );
    Error::new(ErrorKind::DirectoryInUse, context)
}
