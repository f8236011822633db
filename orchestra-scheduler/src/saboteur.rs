//! Runtimes that break one law each.
