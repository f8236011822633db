use orchestra_core::{InstanceId, ServiceName};
use proptest::prelude::*;

#[test]
fn a_name_that_would_not_fit_a_url_is_refused() {
    let long = "a".repeat(254);
    for text in [
        "",
        "-a",
        "a-",
        "A",
        "a_b",
        "a/b",
        "a b",
        "é",
        "a\0",
        "..",
        long.as_str(),
    ] {
        assert!(ServiceName::new(text).is_err(), "{text:?}");
    }
    for text in ["a", "payments", "a-b.c-9", &"a".repeat(253)] {
        assert!(ServiceName::new(text).is_ok(), "{text:?}");
    }
    assert!(InstanceId::new("Node_1:8080").is_ok());
    assert!(InstanceId::new("a/../b").is_err());
}

#[test]
fn an_error_names_kind_text_and_reason_briefly() {
    let error = ServiceName::new("A".repeat(1 << 20)).unwrap_err();
    assert_eq!(error.reason(), "longer than 253 bytes");
    assert!(error.to_string().starts_with("invalid service name \"AAA"));
    assert!(error.to_string().len() < 200);
}

proptest! {
    #[test]
    fn names_survive_their_text(text in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?") {
        let name: ServiceName = text.parse().unwrap();
        prop_assert_eq!(name.to_string(), text);
    }
}
