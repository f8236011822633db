//! The laws of the crate's traits as tests that anybody can run on an implementation.
//!
//! [`pick_suite!`](crate::pick_suite) and [`breaker_suite!`](crate::breaker_suite) stamp one test per law.
//! The laws are plain functions over a subject, so they can also be run one by one.

pub mod breaker;
pub mod pick;

use std::fmt;

/// A law that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    law: &'static str,
    detail: String,
}

impl Violation {
    fn new(law: &'static str, detail: impl Into<String>) -> Self {
        Self {
            law,
            detail: detail.into(),
        }
    }

    /// The name of the law.
    pub fn law(&self) -> &'static str {
        self.law
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.detail)
    }
}

impl std::error::Error for Violation {}

/// A law about subjects of type `S`.
#[derive(Debug)]
pub struct Law<S> {
    name: &'static str,
    check: fn(&S) -> Result<(), String>,
}

impl<S> Law<S> {
    /// Its name, which is that of the stamped test.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it holds.
    pub fn check(&self, subject: &S) -> Result<(), Violation> {
        (self.check)(subject).map_err(|detail| Violation::new(self.name, detail))
    }
}

/// Checks the law of this name; one that is not in the list does not hold.
fn check_named<S>(laws: &[Law<S>], name: &'static str, subject: &S) -> Result<(), Violation> {
    let law = laws.iter().find(|law| law.name == name);
    law.ok_or_else(|| Violation::new(name, "there is no such law"))?
        .check(subject)
}

fn ensure(holds: bool, detail: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(detail()) }
}
