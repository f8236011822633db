use orchestra_core::Endpoint;
use proptest::prelude::*;

#[test]
fn each_form_is_recognised() {
    let kind = |text: &str| match text.parse::<Endpoint>() {
        Ok(Endpoint::Tcp(_)) => "tcp",
        Ok(Endpoint::Unix(_)) => "unix",
        Ok(Endpoint::Host { .. }) => "host",
        _ => "invalid",
    };
    for (text, expected) in [
        ("127.0.0.1:80", "tcp"),
        ("[::1]:443", "tcp"),
        ("unix:/run/a.sock", "unix"),
        ("Payments.internal:8080", "host"),
        ("localhost:0", "host"),
        ("unix:relative.sock", "invalid"),
        ("unix:", "invalid"),
        ("127.0.0.1", "invalid"),
        ("256.0.0.1:80", "invalid"),
        ("host:65536", "invalid"),
        ("host:-1", "invalid"),
        ("-host:1", "invalid"),
        ("a..b:1", "invalid"),
        ("a b:1", "invalid"),
        (":80", "invalid"),
        ("", "invalid"),
    ] {
        assert_eq!(kind(text), expected, "{text:?}");
    }
}

#[test]
fn a_socket_path_that_the_kernel_cannot_hold_is_refused() {
    let path = |len: usize| format!("/{}", "a".repeat(len - 1));
    assert!(Endpoint::unix(path(107)).is_ok());
    assert!(Endpoint::unix(path(108)).is_err());
}

#[test]
fn an_error_does_not_repeat_a_huge_input() {
    let error = "x".repeat(1 << 20).parse::<Endpoint>().unwrap_err();
    assert!(error.to_string().len() < 300);
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _unused = text.parse::<Endpoint>();
    }

    #[test]
    fn printing_and_parsing_are_inverse(
        endpoint in prop_oneof![
            any::<std::net::SocketAddr>().prop_filter("a scope has no standard text", |a| {
                !matches!(a, std::net::SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0)
            }).prop_map(Endpoint::from),
            "(/[a-z0-9._-]{1,10}){1,5}".prop_map(|path| Endpoint::unix(path).unwrap()),
            "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,3}:[0-9]{1,4}"
                .prop_map(|text| text.parse().unwrap()),
        ],
    ) {
        prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
    }
}
