//! Against the real `promtool` and a real Prometheus server.
//!
//! `ORCH_TEST_PROMTOOL` and `ORCH_TEST_PROM_BIN` name the two programs (the Debian package `prometheus`
//! has both). A test whose program is not named fails: it does not pass by not running.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod promtool;
mod scrape;

use std::path::PathBuf;

use orchestra_observe::{Buckets, Registry};

/// The program that the variable names.
fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{variable} must name the program to test against"));
    assert!(path.is_file(), "{variable}: {} is no file", path.display());
    path
}

const AWKWARD: &str = "back\\slash \"quote\"\nline, {brace} ä \u{1F980}";

/// One of everything, with what is hard to write.
fn registry() -> Registry {
    let registry = Registry::new();
    let calls = registry
        .counters(
            "shop_calls_total",
            "Calls by \\ peer,\nand \"more\".",
            ["peer", "status"],
        )
        .unwrap();
    calls.with(["plain", "200"]).add(7);
    calls.with([AWKWARD, "500"]).add(11);
    calls.with(["", "200"]).add(13);
    let levels = registry.gauges("shop_level", "Levels.", ["of"]).unwrap();
    for (of, value) in [
        ("nan", f64::NAN),
        ("inf", f64::INFINITY),
        ("minus_inf", f64::NEG_INFINITY),
        ("tiny", 5e-324),
        ("huge", f64::MAX),
        ("zero", -0.0),
    ] {
        levels.with([of]).set(value);
    }
    let latency = registry
        .histograms(
            "shop_latency_seconds",
            "Latency.",
            ["route"],
            &Buckets::seconds(),
        )
        .unwrap();
    for step in 1..=100 {
        latency.with(["/orders"]).observe(f64::from(step) / 100.0);
    }
    latency.with(["/idle"]);
    registry
        .histogram(
            "shop_size_bytes",
            "Sizes.",
            &Buckets::exponential(1.0, 10.0, 20).unwrap(),
        )
        .unwrap()
        .observe(f64::NAN);
    registry
        .gauges("shop_unused", "Nothing yet.", ["of"])
        .unwrap();
    registry
}
