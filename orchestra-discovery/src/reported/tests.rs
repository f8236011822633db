//! Golden values: Envoy's `orca_weight_manager_test.cc` and `orca_parser_test.cc`, and gRPC's proposals.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

fn example() -> LoadReport {
    let named = [("foo", 123.0), ("bar", 0.2)];
    LoadReport {
        cpu_utilization: 0.7,
        application_utilization: 0.8,
        mem_utilization: 0.9,
        eps: 2.0,
        rps_fractional: 1_000.0,
        named_metrics: named.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

fn with_foo(error_penalty: f64) -> Config {
    Config {
        utilization: vec![Metric::Named("foo".into())],
        error_penalty,
        ..Config::default()
    }
}

fn report(text: &str) -> LoadReport {
    LoadReport::parse(text).unwrap()
}

#[test]
fn the_text_form_is_read_with_either_sign() {
    let colons = "TEXT cpu_utilization:0.7,application_utilization:0.8,mem_utilization:0.9,\
                  rps_fractional:1000,eps:2,named_metrics.foo:123,named_metrics.bar:0.2";
    assert_eq!(report(colons), example());
    assert_eq!(
        report(&colons.replace(':', " = ").replace(',', ", ")),
        example()
    );
}

#[test]
fn what_is_no_report_is_refused() {
    let refused = [
        ("", ErrorKind::Unsupported),
        ("TEXT", ErrorKind::Unsupported),
        ("BAD random-value", ErrorKind::Unsupported),
        ("BIN CgQIARAC", ErrorKind::Unsupported),
        ("cpu_utilization:0.7", ErrorKind::Unsupported),
        ("TEXT cpu_utilization:\"0.7\"", ErrorKind::Protocol),
        ("TEXT cpu_utilization:nan", ErrorKind::Protocol),
        ("TEXT cpu_utilization:inf", ErrorKind::Protocol),
        ("TEXT cpu_utilization:1e999", ErrorKind::Protocol),
        ("TEXT cpu_utilization:", ErrorKind::Protocol),
        ("TEXT :0.7", ErrorKind::Protocol),
        ("TEXT eps:0.7,eps:0.8", ErrorKind::Protocol),
        (
            "TEXT cpu_utilization:0.7,unsupported_metric:0.8",
            ErrorKind::Protocol,
        ),
        (
            "TEXT named_metrics.foo:1,named_metrics.foo:2",
            ErrorKind::Protocol,
        ),
        ("TEXT named_metrics.:123", ErrorKind::Protocol),
        ("TEXT not-a-list-of-key-value-pairs", ErrorKind::Protocol),
        ("TEXT eps=1,,eps=2", ErrorKind::Protocol),
    ];
    for (text, kind) in refused {
        assert_eq!(LoadReport::parse(text).unwrap_err().kind(), kind, "{text}");
    }
}

#[test]
fn reports_are_bounded() {
    let metrics = |count: usize| {
        let metrics: Vec<String> = (0..count)
            .map(|n| format!("named_metrics.m{n}=1"))
            .collect();
        format!("TEXT {}", metrics.join(","))
    };
    assert_eq!(report(&metrics(MAX_NAMED_METRICS)).named_metrics.len(), 64);
    assert!(LoadReport::parse(&metrics(MAX_NAMED_METRICS + 1)).is_err());
    let long = format!("TEXT named_metrics.{}=1", "x".repeat(MAX_REPORT));
    let error = LoadReport::parse(&long).unwrap_err();
    assert!(error.to_string().len() < 200);
}

#[cfg(feature = "http")]
#[test]
fn the_json_form_is_read() {
    let json = r#"JSON {"cpu_utilization": 0.7, "applicationUtilization": 0.8, "mem_utilization": 0.9,
        "rps_fractional": 1000, "eps": 2, "named_metrics": {"foo": 123, "bar": 0.2},
        "utilization": {"disk": 1}}"#;
    assert_eq!(report(json), example());
    let refused = [
        "JSON JSON not-a-valid-json-string",
        r#"JSON {"cpu_utilization": "0.7"}"#,
        r#"JSON {"cpu_utilization": 0.7, "unknown_field": 2}"#,
        r#"JSON {"named_metrics": {"": 2}}"#,
        r#"JSON {"eps": 1, "named_metrics": 2}"#,
        r#"JSON {"cpu_utilization": 1, "cpuUtilization": 1}"#,
        "JSON []",
    ];
    for text in refused {
        let error = LoadReport::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{text}");
    }
}

#[test]
fn the_application_comes_before_named_metrics_before_the_cpu() {
    let config = Config {
        utilization: vec![Metric::Named("foo".into()), Metric::Memory],
        ..with_foo(0.0)
    };
    let golden = [
        (
            "application_utilization=0.5,named_metrics.foo=0.3,cpu_utilization=0.6",
            0.5,
        ),
        ("named_metrics.foo=0.3,cpu_utilization=0.6", 0.3),
        (
            "named_metrics.foo=0.3,mem_utilization=0.4,cpu_utilization=0.6",
            0.4,
        ),
        (
            "named_metrics.foo=-1,mem_utilization=0,cpu_utilization=0.6",
            0.6,
        ),
        ("named_metrics.bar=0.3,cpu_utilization=0.6", 0.6),
    ];
    for (fields, utilization) in golden {
        let found = config.utilization(&report(&format!("TEXT {fields}")));
        assert_eq!(found, Some(utilization), "{fields}");
    }
    assert_eq!(config.utilization(&LoadReport::default()), None);
}

#[test]
fn weights_are_envoys() {
    let weight = |penalty, fields| with_foo(penalty).weight(&report(&format!("TEXT {fields}")));
    let valid = "rps_fractional=1000,application_utilization=0.5";
    assert_eq!(weight(0.0, valid), Some(2_000.0));
    let errors = "rps_fractional=1000,eps=100,application_utilization=0.5";
    assert_eq!(weight(2.0, errors).map(f64::floor), Some(1_428.0));
    assert_eq!(weight(0.0, "application_utilization=0.5"), None);
    assert_eq!(weight(0.0, "rps_fractional=1000"), None);
    let huge = "rps_fractional=10000000000000,application_utilization=0.0000001";
    assert_eq!(weight(0.0, huge), Some(f64::from(u32::MAX)));
    // A penalty or a rate of errors that is no number is none.
    assert_eq!(weight(f64::NAN, errors), Some(2_000.0));
    for eps in [f64::NAN, f64::INFINITY, -100.0] {
        let odd = LoadReport {
            eps,
            ..report(&format!("TEXT {valid}"))
        };
        assert_eq!(with_foo(1.0).weight(&odd), Some(2_000.0));
    }
}

fn reported(config: &Config, seconds: &[u64]) -> ReportedWeight {
    let mut weight = ReportedWeight::default();
    let load = report("TEXT rps_fractional=10,cpu_utilization=0.5");
    for &second in seconds {
        weight.on_report(config, &load, at(second));
    }
    weight
}

#[test]
fn a_weight_is_used_after_the_blackout_and_until_it_expires() {
    let config = Config::default();
    let weight = reported(&config, &[100, 105]);
    let used = |second| weight.get(&config, at(second)).is_some();
    assert_eq!([109, 110, 284, 285].map(used), [false, true, true, false]);
    assert_eq!(ReportedWeight::default().get(&config, at(999)), None);
}

#[test]
fn the_blackout_begins_anew_after_silence_and_after_a_connect() {
    let config = Config::default();
    let mut weight = reported(&config, &[0, 180]);
    assert_eq!(weight.get(&config, at(189)), None);
    assert_eq!(weight.get(&config, at(190)), Some(20.0));
    weight.on_connect();
    assert_eq!(weight.get(&config, at(191)), None);
}

#[test]
fn a_report_without_a_weight_changes_nothing() {
    let config = Config::default();
    let mut weight = reported(&config, &[0]);
    let before = weight;
    weight.on_report(&config, &report("TEXT cpu_utilization=0.5"), at(50));
    assert_eq!(weight, before);
}

#[test]
fn without_blackout_the_first_report_counts() {
    let config = Config {
        blackout: Duration::ZERO,
        ..Config::default()
    };
    assert_eq!(reported(&config, &[7]).get(&config, at(7)), Some(20.0));
}

#[test]
fn updates_are_at_least_a_tenth_of_a_second_apart() {
    let mut config = Config::default();
    assert_eq!(config.next_update(at(5)), at(6));
    config.update = Duration::ZERO;
    assert_eq!(
        config.next_update(at(5)),
        at(5) + Duration::from_millis(100)
    );
}

#[test]
fn metrics_that_tell_no_utilization_are_refused() {
    for text in [
        "",
        "eps",
        "named_metrics.",
        "request_cost.x",
        "utilization.x",
    ] {
        let error = text.parse::<Metric>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

proptest! {
    #[test]
    fn any_report_gives_a_positive_finite_weight_or_none(
        fields: [f64; 5],
        named: f64,
        penalty: f64,
    ) {
        let [application, cpu, memory, rps, eps] = fields;
        let load = LoadReport {
            application_utilization: application,
            cpu_utilization: cpu,
            mem_utilization: memory,
            rps_fractional: rps,
            eps,
            named_metrics: [("foo".to_owned(), named)].into(),
        };
        if let Some(weight) = with_foo(penalty).weight(&load) {
            prop_assert!(weight > 0.0 && weight <= f64::from(u32::MAX));
        }
    }

    #[test]
    fn any_text_is_a_report_or_an_error(text in "(TEXT |JSON )?[a-z_.=:, 0-9{}\"]{0,80}") {
        if let Ok(load) = LoadReport::parse(&text) {
            prop_assert!(load.cpu_utilization.is_finite());
        }
    }

    #[test]
    fn weights_keep_their_ratios_and_the_rest_get_the_mean(
        reported in proptest::collection::vec(proptest::option::of(1.0..1_000.0_f64), 0..12),
    ) {
        let mut weights = vec![9, 9];
        relative(&reported, &mut weights);
        prop_assert_eq!(weights.len(), reported.len());
        let known: Vec<f64> = reported.iter().copied().flatten().collect();
        if known.len() < 2 {
            prop_assert!(weights.iter().all(|&weight| weight == 1));
            return Ok(());
        }
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let greatest = known.iter().copied().fold(0.0, f64::max);
        for (found, wanted) in weights.iter().zip(&reported) {
            let wanted = wanted.unwrap_or(mean) * 65_535.0 / greatest;
            prop_assert!((f64::from(*found) - wanted).abs() < 0.51);
        }
    }

    #[test]
    fn any_numbers_make_weights_that_are_not_zero(
        reported in proptest::collection::vec(proptest::option::of(any::<f64>()), 0..6),
    ) {
        let mut weights = Vec::new();
        relative(&reported, &mut weights);
        prop_assert!(weights.iter().all(|weight| (1..=65_535).contains(weight)));
    }
}
