//! What the files of a journal begin with: their format, and which journal they are of.
//!
//! Eight bytes name what the file is and its format, and a checksum that does not depend on the format
//! covers them: what is damaged is told from what is newer.

use std::fmt;
use std::path::Path;

use super::bytes::Cursor;
use crate::error::{Error, ErrorKind, Result};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Segment,
    Checkpoint,
}

impl Mark {
    /// Its name, and the format that is written and read.
    pub(super) const fn bytes(self) -> [u8; 8] {
        match self {
            Self::Segment => *b"sagalog2",
            Self::Checkpoint => *b"sagacpt2",
        }
    }

    /// Whether a file that is not damaged is one. Refused is one of another format.
    pub(super) fn read(self, cursor: &mut Cursor<'_>, path: &Path) -> Result<bool> {
        let [own @ .., known] = self.bytes();
        let Some([name @ .., format]) = cursor.array::<8>() else {
            return Ok(false);
        };
        if name != own {
            return Ok(false);
        }
        let what = match format {
            _ if format == known => return Ok(true),
            _ if format < known => "is in an older format, which is not read any more",
            _ => "was written by a newer version",
        };
        let path = path.display();
        let (found, known) = (char::from(format), char::from(known));
        let message = format!("saga store: {path} {what}: its format is {found}, not {known}");
        Err(Error::new(ErrorKind::UnknownFormat, message))
    }
}

/// The id of a journal, which is in all of its files: one that was copied from another is not taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalId(pub(super) [u8; 16]);

impl JournalId {
    /// Of a new journal.
    pub(super) fn draw() -> Self {
        Self(fastrand::u128(..).to_le_bytes())
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
