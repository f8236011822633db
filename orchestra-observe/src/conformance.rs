//! The laws of [`Sampler`] and [`Exporter`](crate::Exporter), to run on your own.
//!
//! [`sampler_suite!`](crate::sampler_suite) and [`exporter_suite!`](crate::exporter_suite) stamp one test
//! per law; the tests need `tokio` with its features `macros` and `rt`. The [saboteurs](crate::saboteur) show
//! that each law can be broken, and that the suite sees it.

pub mod exporter;
pub mod sampler;

use std::fmt;

#[cfg(doc)]
use crate::Sampler;

/// How a law was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl Violation {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    pub(crate) fn unless(holds: bool, what: impl FnOnce() -> String) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self(what())) }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}
