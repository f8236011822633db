use orchestra_core::{
    Endpoint, Labels, Locality, Score, Selector, ServiceName, Timestamp, TraceId,
};
use serde_json::{from_str, to_string};

#[test]
fn values_survive_json() {
    let name = ServiceName::new("payments").unwrap();
    assert_eq!(to_string(&name).unwrap(), r#""payments""#);
    assert_eq!(from_str::<ServiceName>(r#""payments""#).unwrap(), name);

    let labels: Labels = [("a", "1"), ("b", "2")].try_into().unwrap();
    assert_eq!(to_string(&labels).unwrap(), r#"{"a":"1","b":"2"}"#);
    assert_eq!(from_str::<Labels>(r#"{"b":"2","a":"1"}"#).unwrap(), labels);

    let selector: Selector = "a in (x,y),!b".parse().unwrap();
    assert_eq!(
        from_str::<Selector>(&to_string(&selector).unwrap()).unwrap(),
        selector
    );

    let locality = Locality::new("eu").zone("a");
    assert_eq!(
        to_string(&locality).unwrap(),
        r#"{"region":"eu","zone":"a"}"#
    );
    assert_eq!(
        from_str::<Locality>(r#"{"region":"eu","zone":"a"}"#).unwrap(),
        locality
    );

    let time = Timestamp::from_unix_nanos(7);
    assert_eq!(
        from_str::<Timestamp>(&to_string(&time).unwrap()).unwrap(),
        time
    );
}

#[test]
fn deserialising_validates() {
    assert!(from_str::<ServiceName>(r#""No!""#).is_err());
    assert!(from_str::<Labels>(r#"{"a b":"1"}"#).is_err());
    assert!(from_str::<Score>("1.5").is_err());
    assert!(from_str::<Endpoint>(r#""nowhere""#).is_err());
    assert!(from_str::<TraceId>(r#""00000000000000000000000000000000""#).is_err());
    assert!(from_str::<Locality>(r#"{"planet":"x"}"#).is_err());
    assert!(from_str::<ServiceName>("7").is_err());
}
