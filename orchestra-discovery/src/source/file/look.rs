//! One look at the file: whether it is another one than before, and what it holds.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use orchestra_core::{SystemWallClock, Timestamp, WallClock};

use super::Config;
use super::list::{self, Format};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::Instance;

/// A file that was modified this short a time ago may be modified again without its time telling: file
/// systems keep as little as whole seconds (FAT: two).
const RACY: Duration = Duration::from_secs(3);

/// What a file shows without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    length: u64,
    modified: Timestamp,
}

impl Signature {
    fn of(metadata: &Metadata) -> Self {
        let seconds = Duration::from_secs(u64::try_from(metadata.mtime()).unwrap_or(0));
        let nanos = Duration::from_nanos(u64::try_from(metadata.mtime_nsec()).unwrap_or(0));
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: Timestamp::UNIX_EPOCH + seconds + nanos,
        }
    }

    fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A file as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    signature: Signature,
    digest: u64,
}

/// What earlier looks found.
#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    taken: Option<Taken>,
    /// Written in place since: it is taken when the next look finds it the same.
    pending: Option<Seen>,
}

/// The file that was taken last, well or wrong.
#[derive(Debug, Clone)]
struct Taken {
    seen: Seen,
    read: Timestamp,
    wrong: Option<String>,
}

impl Taken {
    /// Whether a file with this signature need not be read again.
    fn is_trusted(&self, signature: &Signature) -> bool {
        self.seen.signature == *signature && self.read.since(signature.modified) >= RACY
    }

    fn again(&self) -> Result<Looked> {
        match &self.wrong {
            None => Ok(Looked::Same),
            Some(message) => Err(Error::new(ErrorKind::Invalid, message.clone())),
        }
    }
}

/// What a look found.
#[derive(Debug)]
pub(super) enum Looked {
    /// The members are those of the last look that found any.
    Same,
    /// A new list.
    New(Vec<Instance>),
}

/// What to do with a file that was read.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Take,
    Again,
    Wait,
}

impl Last {
    fn next(&mut self, seen: Seen) -> Next {
        let pending = self.pending.take();
        let Some(taken) = &mut self.taken else {
            return Next::Take;
        };
        if taken.seen.digest == seen.digest {
            taken.seen = seen;
            return Next::Again;
        }
        let replaced = !taken.seen.signature.is_same_file(&seen.signature);
        if replaced || pending == Some(seen) {
            return Next::Take;
        }
        self.pending = Some(seen);
        Next::Wait
    }
}

pub(super) fn look(config: &Config, format: Format, last: &mut Last) -> Result<Looked> {
    let signature = signature(config)?;
    if let Some(taken) = &last.taken
        && taken.is_trusted(&signature)
    {
        return taken.again();
    }
    let read = SystemWallClock.wall();
    let (content, signature) = content(config)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    let digest = hasher.finish();
    let seen = Seen { signature, digest };
    match last.next(seen) {
        Next::Wait => Ok(Looked::Same),
        Next::Again => match &mut last.taken {
            Some(taken) => {
                taken.read = read;
                taken.again()
            }
            None => Ok(Looked::Same),
        },
        Next::Take => {
            let parsed = list::parse(format, &content);
            let wrong = |wrong| format!("{}:{wrong}", config.path.display());
            let parsed = parsed.map_err(wrong);
            last.taken = Some(Taken {
                seen,
                read,
                wrong: parsed.as_ref().err().cloned(),
            });
            match parsed {
                Ok(members) => Ok(Looked::New(members)),
                Err(message) => Err(Error::new(ErrorKind::Invalid, message)),
            }
        }
    }
}

fn signature(config: &Config) -> Result<Signature> {
    let metadata = std::fs::metadata(&config.path).map_err(|error| unreadable(config, error))?;
    if !metadata.is_file() {
        let message = format!("{} is not a file", config.path.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if metadata.len() > config.max_bytes {
        return Err(too_long(config));
    }
    Ok(Signature::of(&metadata))
}

/// The content, and the signature that the file had once it was read.
fn content(config: &Config) -> Result<(Vec<u8>, Signature)> {
    let fail = |error| unreadable(config, error);
    let file = File::open(&config.path).map_err(fail)?;
    let mut content = Vec::new();
    let limit = config.max_bytes.saturating_add(1);
    (&file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(fail)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) >= limit {
        return Err(too_long(config));
    }
    let signature = Signature::of(&file.metadata().map_err(fail)?);
    Ok((content, signature))
}

fn unreadable(config: &Config, error: std::io::Error) -> Error {
    let message = format!("{} cannot be read", config.path.display());
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

fn too_long(config: &Config) -> Error {
    let (path, limit) = (config.path.display(), config.max_bytes);
    let message = format!("{path} is longer than {limit} bytes");
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(inode: u64, modified: u64, digest: u64) -> Seen {
        let signature = Signature {
            device: 1,
            inode,
            length: 10,
            modified: Timestamp::from_unix_nanos(modified),
        };
        Seen { signature, digest }
    }

    fn last(taken: Seen) -> Last {
        let taken = Taken {
            seen: taken,
            read: Timestamp::UNIX_EPOCH,
            wrong: None,
        };
        Last {
            taken: Some(taken),
            pending: None,
        }
    }

    #[test]
    fn first_file_is_taken() {
        assert_eq!(Last::default().next(seen(1, 1, 1)), Next::Take);
    }

    #[test]
    fn renamed_file_is_taken_at_once() {
        assert_eq!(last(seen(1, 1, 1)).next(seen(2, 2, 2)), Next::Take);
    }

    #[test]
    fn file_written_in_place_is_taken_when_it_stays() {
        let mut last = last(seen(1, 1, 1));
        assert_eq!(last.next(seen(1, 2, 2)), Next::Wait);
        assert_eq!(last.next(seen(1, 3, 3)), Next::Wait);
        assert_eq!(last.next(seen(1, 3, 3)), Next::Take);
    }

    #[test]
    fn same_content_is_the_same_whatever_holds_it() {
        assert_eq!(last(seen(1, 1, 1)).next(seen(2, 9, 1)), Next::Again);
    }

    #[test]
    fn young_file_is_read_again_though_its_time_stays() {
        let second = 1_000_000_000;
        let mut last = last(seen(1, 10 * second, 1));
        let taken = last.taken.as_mut().unwrap();
        let signature = taken.seen.signature;
        taken.read = Timestamp::from_unix_nanos(12 * second);
        assert!(!taken.is_trusted(&signature));
        taken.read = Timestamp::from_unix_nanos(13 * second);
        assert!(taken.is_trusted(&signature));
    }
}
