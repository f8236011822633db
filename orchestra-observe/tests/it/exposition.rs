//! The text of both formats: golden pages, and what any page must satisfy.

use orchestra_observe::{Buckets, Format, Registry};
use proptest::prelude::*;

fn shop() -> Registry {
    let registry = Registry::new();
    let calls = registry
        .counters(
            "calls_total",
            "Calls by \"peer\",\nwith a \\.",
            ["peer", "status"],
        )
        .unwrap();
    calls.with(["b", "500"]).add(1);
    calls.with(["a\\b\"c\nd", "200"]).add(3);
    calls.with(["b", "200"]).add(2);
    let latency = registry
        .histogram(
            "latency_seconds",
            "Time.",
            &Buckets::new([0.1, 1.0]).unwrap(),
        )
        .unwrap();
    for value in [0.1, 0.5, 7.0] {
        latency.observe(value);
    }
    let levels = registry.gauges("level", "Level.", ["of"]).unwrap();
    levels.with(["a"]).set(f64::NAN);
    levels.with(["b"]).set(f64::INFINITY);
    levels.with(["c"]).set(f64::NEG_INFINITY);
    levels.with(["d"]).set(-0.5);
    levels.with(["e"]).set(1e300);
    levels.with(["f"]).set(1e-9);
    registry.gauges("unused", "No series yet.", ["of"]).unwrap();
    registry
}

#[test]
fn the_text_format_is_as_written_down() {
    let page = Format::Text.render(&shop().snapshot());
    let golden = r#"# HELP calls_total Calls by "peer",\nwith a \\.
# TYPE calls_total counter
calls_total{peer="a\\b\"c\nd",status="200"} 3
calls_total{peer="b",status="200"} 2
calls_total{peer="b",status="500"} 1
# HELP latency_seconds Time.
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.1"} 1
latency_seconds_bucket{le="1"} 2
latency_seconds_bucket{le="+Inf"} 3
latency_seconds_sum 7.6
latency_seconds_count 3
# HELP level Level.
# TYPE level gauge
level{of="a"} NaN
level{of="b"} +Inf
level{of="c"} -Inf
level{of="d"} -0.5
level{of="e"} 1e300
level{of="f"} 1e-9
# HELP unused No series yet.
# TYPE unused gauge
"#;
    assert_eq!(page, golden);
}

#[test]
fn open_metrics_is_as_written_down() {
    let page = Format::OpenMetrics.render(&shop().snapshot());
    let golden = r#"# HELP calls Calls by \"peer\",\nwith a \\.
# TYPE calls counter
calls_total{peer="a\\b\"c\nd",status="200"} 3
calls_total{peer="b",status="200"} 2
calls_total{peer="b",status="500"} 1
# HELP latency_seconds Time.
# TYPE latency_seconds histogram
# UNIT latency_seconds seconds
latency_seconds_bucket{le="0.1"} 1
latency_seconds_bucket{le="1.0"} 2
latency_seconds_bucket{le="+Inf"} 3
latency_seconds_sum 7.6
latency_seconds_count 3
# HELP level Level.
# TYPE level gauge
level{of="a"} NaN
level{of="b"} +Inf
level{of="c"} -Inf
level{of="d"} -0.5
level{of="e"} 1e300
level{of="f"} 1e-9
# HELP unused No series yet.
# TYPE unused gauge
# EOF
"#;
    assert_eq!(page, golden);
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let cases = [
        (None, Format::Text),
        (Some(""), Format::Text),
        (Some("*/*"), Format::Text),
        (Some("text/html"), Format::Text),
        (Some("application/openmetrics-text"), Format::OpenMetrics),
        (
            Some("Application/OpenMetrics-Text; version=\"1.0.0\""),
            Format::OpenMetrics,
        ),
        (
            Some("application/openmetrics-text;version=0.0.1"),
            Format::Text,
        ),
        (Some("application/openmetrics-text;q=0"), Format::Text),
        (
            Some("application/openmetrics-text;q=nonsense"),
            Format::Text,
        ),
        (
            Some("application/openmetrics-text;q=0.4,text/plain;q=0.9"),
            Format::Text,
        ),
        (
            Some("text/plain;q=0.4,application/openmetrics-text;q=0.4"),
            Format::OpenMetrics,
        ),
        // What Prometheus 2.42 and 3 send.
        (
            Some(
                "application/openmetrics-text;version=1.0.0,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            Format::OpenMetrics,
        ),
        (
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ),
            Format::OpenMetrics,
        ),
    ];
    for (accept, format) in cases {
        assert_eq!(Format::negotiate(accept), format, "{accept:?}");
    }
}

/// The label value of a sample line, unescaped, and its number.
fn read(line: &str) -> Option<(String, f64)> {
    let rest = line.strip_prefix("m{l=\"")?;
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    let number = chars.as_str().strip_prefix("} ")?;
    let number = match number {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        finite => finite.parse().ok()?,
    };
    Some((value, number))
}

proptest! {
    #[test]
    fn any_label_value_and_any_number_can_be_read_back(
        label in "\\PC{0,20}|[\\\\\"\n,{}]{0,9}",
        bits in any::<u64>(),
    ) {
        // What is masked comes back masked: that is another test.
        let label = label.replace(['@', ':', '=', '%'], "?");
        let number = f64::from_bits(bits);
        let registry = Registry::new();
        registry.gauges("m", "h", ["l"]).unwrap().with([&label]).set(number);
        for format in [Format::Text, Format::OpenMetrics] {
            let page = format.render(&registry.snapshot());
            prop_assert!(page.ends_with('\n'));
            let samples: Vec<_> = page.split('\n').filter(|line| line.starts_with("m{")).collect();
            prop_assert_eq!(samples.len(), 1);
            let (text, read) = read(samples[0]).unwrap();
            prop_assert_eq!(&text, &label);
            prop_assert!(read.to_bits() == number.to_bits() || (read.is_nan() && number.is_nan()));
        }
    }
}
