use super::*;

fn read(format: Format, text: &str) -> Result<Vec<Instance>, String> {
    parse(format, text.as_bytes())
}

fn wrong(format: Format, text: &str) -> String {
    read(format, text).unwrap_err()
}

const FULL_YAML: &str = "
# the payments of Europe
- service: payments
  id: payments-1
  endpoint: 10.0.0.7:8080
  weight: 3
  priority: 1
  status: draining
  locality: {region: eu, zone: a, subzone: rack-4}
  labels: {version: v2, shard: '7'}
  probe: {path: /healthz, port: 8081}
- service: payments
  endpoint: '[fd00::7]:8080'
";

const FULL_JSON: &str = r#"[
  {"service": "payments", "id": "payments-1", "endpoint": "10.0.0.7:8080", "weight": 3,
   "priority": 1, "status": "draining",
   "locality": {"region": "eu", "zone": "a", "subzone": "rack-4"},
   "labels": {"version": "v2", "shard": "7"}, "probe": {"path": "/healthz", "port": 8081}},
  {"service": "payments", "endpoint": "[fd00::7]:8080"}
]"#;

fn full() -> Vec<Instance> {
    let instance = |id: &str, endpoint: &str| {
        Instance::new(
            "payments".parse().unwrap(),
            id.parse().unwrap(),
            Incarnation::default(),
            endpoint.parse().unwrap(),
        )
    };
    let mut first = instance("payments-1", "10.0.0.7:8080");
    first.weight = 3;
    first.priority = 1;
    first.status = Status::Draining;
    first.locality = Locality::new("eu").zone("a").subzone("rack-4");
    first.labels = [("version", "v2"), ("shard", "7")].try_into().unwrap();
    first.probe = Some(Arc::new(ProbeTarget::default().path("/healthz").port(8081)));
    vec![first, instance("fd00:0:0:0:0:0:0:7:8080", "[fd00::7]:8080")]
}

#[test]
fn all_that_is_said_is_read() {
    assert_eq!(read(Format::Yaml, FULL_YAML).unwrap(), full());
    assert_eq!(read(Format::Json, FULL_JSON).unwrap(), full());
}

#[test]
fn empty_list_is_no_members_and_empty_file_is_wrong() {
    for format in [Format::Yaml, Format::Json] {
        assert_eq!(read(format, "[]").unwrap(), Vec::new());
        for text in ["", "\n", "null", "# nothing\n"] {
            assert!(read(format, text).is_err(), "{format:?} {text:?}");
        }
    }
}

/// The same mistake in both formats, and the line it is found in.
#[test]
fn mistakes_are_found_where_they_are() {
    let cases = [
        ("weight", "-1"),
        ("weight", "1.5"),
        ("weight", "4294967296"),
        ("weight", "\"many\""),
        ("priority", "-1"),
        ("wieght", "1"),
        ("status", "\"asleep\""),
        ("labels", "{\"a b\": \"c\"}"),
        ("locality", "{\"planet\": \"earth\"}"),
        ("probe", "{\"host\": \"10.0.0.1\"}"),
        ("probe", "{\"port\": 65536}"),
        ("id", "\"not an id\""),
    ];
    for (field, value) in cases {
        let json = format!(
            "[\n{{\"service\": \"a\", \"endpoint\": \"10.0.0.1:1\",\n\"{field}\": {value}}}]"
        );
        let found = wrong(Format::Json, &json);
        assert!(found.starts_with("3:"), "{field}: {value}: {found}");
        let yaml = format!("- service: a\n  endpoint: 10.0.0.1:1\n  {field}: {value}\n");
        let found = wrong(Format::Yaml, &yaml);
        assert!(found.starts_with("3:"), "{field}: {value}: {found}");
    }
}

#[test]
fn what_is_not_a_number_is_no_weight() {
    for weight in [".nan", "NaN", ".inf", "-.inf", "1e3", "~"] {
        let yaml = format!("- {{service: a, endpoint: '10.0.0.1:1', weight: {weight}}}");
        assert!(read(Format::Yaml, &yaml).is_err(), "{weight}");
    }
    let json = r#"[{"service": "a", "endpoint": "10.0.0.1:1", "weight": NaN}]"#;
    assert!(read(Format::Json, json).is_err());
}

#[test]
fn malformed_addresses_are_named() {
    for address in [
        "10.0.0.1",
        "10.0.0.256:80",
        "host:port",
        "unix:relative",
        "",
    ] {
        let yaml = format!("- {{service: a, id: i, endpoint: '{address}'}}");
        let found = wrong(Format::Yaml, &yaml);
        assert!(found.contains("endpoint"), "{address}: {found}");
    }
}

#[test]
fn second_instance_of_an_id_is_wrong() {
    let entry = |service: &str, id: &str| {
        format!("- {{service: {service}, id: {id}, endpoint: '10.0.0.1:1'}}\n")
    };
    let twice = [entry("a", "i"), entry("b", "i"), entry("a", "i")].concat();
    let found = wrong(Format::Yaml, &twice);
    assert_eq!(found, " entry 3: a second instance i of service a");
    let derived = "- {service: a, endpoint: '10.0.0.1:1'}\n".repeat(2);
    assert!(wrong(Format::Yaml, &derived).contains("10.0.0.1:1"));
}

#[test]
fn instance_at_a_unix_socket_needs_an_id() {
    let found = wrong(Format::Yaml, "- {service: a, endpoint: 'unix:/run/a.sock'}");
    assert!(found.starts_with(" entry 1:"), "{found}");
    let with = "- {service: a, id: i, endpoint: 'unix:/run/a.sock'}";
    assert_eq!(read(Format::Yaml, with).unwrap().len(), 1);
}

#[test]
fn huge_label_is_refused_in_few_words() {
    let label = "x".repeat(10 << 20);
    for (format, text) in [
        (
            Format::Yaml,
            format!("- {{service: a, endpoint: '10.0.0.1:1', labels: {{k: {label}}}}}"),
        ),
        (
            Format::Json,
            format!(r#"[{{"service": "a", "endpoint": "10.0.0.1:1", "{label}": 1}}]"#),
        ),
    ] {
        let found = wrong(format, &text);
        assert!(found.len() < 1_000, "{} bytes", found.len());
    }
}

#[test]
fn every_cut_of_a_json_file_is_wrong() {
    for length in 0..FULL_JSON.len() {
        assert!(
            read(Format::Json, &FULL_JSON[..length]).is_err(),
            "{length}"
        );
    }
}

#[test]
fn long_lists_are_read() {
    let entry = |number| format!("- {{service: a, id: i{number}, endpoint: '10.0.0.1:80'}}\n");
    let yaml: String = (0..10_000).map(entry).collect();
    assert_eq!(read(Format::Yaml, &yaml).unwrap().len(), 10_000);
}
