//! Where a frame stands in the log.

use std::fmt;

/// A place in the log: the number of a segment, and an offset in it as it was first written.
///
/// A frame keeps its place for ever. When a segment is rewritten without what was purged, its frames
/// move in the file, not in the log: places that others hold stay good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(u64);

impl Place {
    /// Before every frame.
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn new(segment: u32, offset: u32) -> Self {
        Self(((segment as u64) << 32) | offset as u64)
    }

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    pub(super) const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub(super) const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// So many bytes further in the same segment.
    pub(super) const fn plus(self, bytes: u32) -> Self {
        Self(self.0 + bytes as u64)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}
