//! Compiles what the repository's front page shows.

/// The embedding example of the front page.
#[doc = include_str!("../../README.md")]
pub struct FrontPage;
