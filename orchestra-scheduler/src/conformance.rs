//! The laws of a runtime, as tests.
