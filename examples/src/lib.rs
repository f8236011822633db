//! Compiles what the repository's front page shows.

/// The embedding example of the front page.
#[doc = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", env!("CARGO_PKG_README")))]
pub struct FrontPage;
