//! Laws of the testkit.
