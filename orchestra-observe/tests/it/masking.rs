//! No planted secret passes; what is no secret stays.

use orchestra_observe::Masker;
use proptest::prelude::*;

fn masked(text: &str) -> String {
    Masker::new().mask(text).into_inner().into_owned()
}

#[test]
fn secrets_are_replaced_by_their_kind() {
    let cases = [
        ("paid with 4111111111111111.", "paid with [masked:card]."),
        ("3782-822463-10005", "[masked:card]"),
        (
            "6011 1111 1111 1117 and 5555555555554444",
            "[masked:card] and [masked:card]",
        ),
        ("12 4111 1111 1111 1111 123", "12 [masked:card] 123"),
        (r"line\n4111111111111111", r"line\n[masked:card]"),
        (
            r"\t4111111111111111\r4111111111111111",
            r"\t[masked:card]\r[masked:card]",
        ),
        ("180012345678913x", "180012345678913x"),
        (
            "to DE89 3704 0044 0532 0130 00 today",
            "to [masked:iban] today",
        ),
        ("GB29NWBK60161331926819", "[masked:iban]"),
        (
            "mail o'brien+x@mail.example.co.uk, bye",
            "mail [masked:email], bye",
        ),
        ("<ada@example.org>", "<[masked:email]>"),
        ("jürgen@exämple.org", "[masked:email]"),
        (
            "got eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0. back",
            "got [masked:jwt] back",
        ),
        ("Authorization: Bearer abc.def", "Authorization: [masked]"),
        (
            "sent Bearer 0a1b2c3d4e",
            "sent Bearer [masked:authorization]",
        ),
        ("Basic dXNlcjpwYXNz ok", "Basic [masked:authorization] ok"),
        ("Cookie: a=1; b=2\nnext", "Cookie: [masked]\nnext"),
        ("password=hunter2&user=ada", "password=[masked]&user=ada"),
        (
            "password = \"a b\\\"c\", user",
            "password = \"[masked]\", user",
        ),
        (
            r#"{"apiKey": "x y", "n": 1}"#,
            r#"{"apiKey": "[masked]", "n": 1}"#,
        ),
        (
            r#"{\"token\":\"x y\",\"n\":1}"#,
            r#"{\"token\":\"[masked]\",\"n\":1}"#,
        ),
        (
            "Login { password: Some(\"a b\"), n: 1 }",
            "Login { password: [masked], n: 1 }",
        ),
        (
            "secret: Key { raw: [1, 2] }, n: 1",
            "secret: [masked], n: 1",
        ),
        (
            "run --api-key abc --port 80",
            "run --api-key [masked] --port 80",
        ),
        ("?access_token=abc&page=2", "?access_token=[masked]&page=2"),
        ("q=x%26password%3Dhunter2", "q=x%26password%3D[masked]"),
        ("X-Amz-Signature=0abc", "X-Amz-Signature=[masked]"),
        ("AWSAccessKeyId=abc", "AWSAccessKeyId=[masked]"),
        (
            "https://ada:pw@host/x@y",
            "https://[masked:userinfo]@host/x@y",
        ),
        (
            "postgres://app:p/w@db:5432/shop",
            "postgres://[masked:userinfo]@db:5432/shop",
        ),
        ("key AKIAIOSFODNN7EXAMPLE!", "key [masked:credential]!"),
        (
            "ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "[masked:credential]",
        ),
        (
            "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b",
            "a [masked:pem] b",
        ),
        ("-----BEGIN EC PRIVATE KEY-----\nMIIE", "[masked:pem]"),
        // Two numbers share three of their groups.
        ("4588 4658 4347 4963 1931", "[masked:card]"),
        ("{password: abc,\"n\": 1}", "{password: [masked],\"n\": 1}"),
        ("password=\"token=(\", n=1", "password=\"[masked]\", n=1"),
        ("eyJx then eyJhbGci.eyJzdWIi.x", "eyJx then [masked:jwt]"),
    ];
    for (text, expected) in cases {
        assert_eq!(masked(text), expected, "of {text:?}");
    }
}

#[test]
fn secrets_are_found_in_encoded_and_broken_text() {
    let cases = [
        (
            "%7B%22password%22%3A%22hunter2%22%7D",
            "%7B%22password%22%3A[masked]",
        ),
        (
            "a%5Btoken%5D%5B%5D=x&b=1",
            "a%5Btoken%5D%5B%5D=[masked]&b=1",
        ),
        ("100%password=x", "100%password=[masked]"),
        ("password[]=hunter2&a=1", "password[]=[masked]&a=1"),
        ("password := hunter2 }", "password := [masked] }"),
        ("password:\n  hunter2\nnext", "password:\n  [masked]\nnext"),
        ("\"token\":\r\n\"a b\"", "\"token\":\r\n\"[masked]\""),
        ("password:\nuser: ada", "password:\nuser: ada"),
        (
            "passcode=1 pw=2 bearer=3",
            "passcode=[masked] pw=[masked] bearer=[masked]",
        ),
        (
            "see http://x://a:b/c@d and ://e:f/g@h@i",
            "see http://[masked:userinfo]@d and ://[masked:userinfo]@i",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(masked(text), expected, "of {text:?}");
    }
}

#[test]
fn what_is_no_secret_stays() {
    let texts = [
        "",
        "order 550e8400-e29b-41d4-a716-446655440000 accepted",
        "uuid 41111111-1111-1111-1111-111111111111",
        "blk_-1608999687919862906 and blk_4111111111111111",
        "uuid 550e8400-e29b-41d4-4111-111111111111",
        "uuid be685390-0754-7034-aaaa-aaaaaaaaaaaa",
        "4111111111111112 and 1234567812345670",
        "http://localhost:8080/@handle and http://[::1]:80/@handle",
        "at 1767323045678901234 ns, 1767323045678 ms",
        "0.4111111111111111 of 1.5e300",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "http://127.0.0.1:8080/orders?page=2&sort=asc",
        "std::collections::HashMap at src/main.rs:41:7",
        "max_tokens=100, token_count: 5, partition_key=7, idempotency_key=8",
        "a basic understanding of the bearer authentication scheme",
        "user@localhost, 3 @ 4, @handle",
        "DE89370400440532013001",
        "deadline: 5s, retries: 3, status: 200",
        "Status { code: 200, passed: true }",
    ];
    for text in texts {
        assert_eq!(masked(text), text);
    }
}

#[test]
fn names_are_secret_in_every_spelling() {
    let masker = Masker::new().deny("Patient-Name");
    for name in [
        "password",
        "PASSWORD",
        "db.password",
        "userPassword",
        "Client-Secret",
        "clientSecret",
        "CLIENT_SECRET",
        "api_key",
        "X-Api-Key",
        "apikey",
        "access_token",
        "idToken",
        "cookie",
        "Set-Cookie",
        "Proxy-Authorization",
        "sessionId",
        "SSH_KEY",
        "card_number",
        "cvv",
        "patientName",
        "PATIENT_NAME",
    ] {
        assert_eq!(masker.field(name, "x").as_str(), "[masked]", "{name}");
    }
    for name in [
        "passenger",
        "tokens",
        "author",
        "key",
        "keyboard",
        "cookies_enabled",
        "spin",
    ] {
        assert_eq!(masker.field(name, "x").as_str(), "x", "{name}");
    }
}

#[test]
fn a_long_text_is_cut_without_cutting_a_secret() {
    let masker = Masker::new();
    for shift in 0..40 {
        let text = format!(
            "{}4111 1111 1111 1111{}",
            " ".repeat(80 + shift),
            " x".repeat(99)
        );
        let shown = masker.mask_to(&text, 100);
        let digits = shown.as_str().chars().filter(char::is_ascii_digit).count();
        assert_eq!(digits, 0, "{shown}");
        assert!(shown.as_str().ends_with("[truncated]"));
        assert!(shown.as_str().len() < 130);
    }
    let huge = "ä".repeat(Masker::MAX_TEXT);
    assert!(masker.mask(&huge).as_str().len() <= Masker::MAX_TEXT + 16);
}

/// What an outsider can put into a line must not cost much more than other text of its length.
#[test]
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn no_text_takes_much_longer_than_another() {
    let best = |text: &str| {
        let rounds = (0..3).map(|_| {
            let started = std::time::Instant::now();
            assert!(!masked(text).is_empty());
            started.elapsed()
        });
        rounds.min().unwrap_or_default()
    };
    let text = |unit: &str| unit.repeat(Masker::MAX_TEXT / unit.len());
    let usual = best(&text("order 41 is accepted, "));
    for unit in [
        "://",
        "://a:b",
        "@a.b",
        "-----BEGIN ",
        "password=",
        "password= ",
        "password=\"",
        "password=(",
        "4111 ",
        "DE89 ",
        "eyJ-",
        "eyJ.",
        "npm_",
        "bearer ",
        "--a ",
        "%22",
        "]",
        "]=",
        "=",
        "\\",
        "password:\n",
    ] {
        let taken = best(&text(unit));
        assert!(taken < 40 * usual, "{unit:?}: {taken:?}, usually {usual:?}");
    }
}

fn luhn(mut digits: Vec<u8>) -> Vec<u8> {
    let doubled = digits.iter().rev().enumerate().map(|(place, &digit)| {
        let digit = u32::from(digit);
        match place % 2 {
            0 if digit > 4 => digit * 2 - 9,
            0 => digit * 2,
            _ => digit,
        }
    });
    let check = (10 - doubled.sum::<u32>() % 10) % 10;
    digits.push(u8::try_from(check).unwrap());
    digits
}

/// A card number of a known issuer, and the lengths of its groups.
fn card() -> impl Strategy<Value = (Vec<u8>, &'static [usize])> {
    const ISSUERS: [(&str, usize, &[usize]); 8] = [
        ("4", 16, &[4, 4, 4, 4]),
        ("52", 16, &[4, 4, 4, 4]),
        ("2221", 16, &[4, 4, 4, 4]),
        ("34", 15, &[4, 6, 5]),
        ("6011", 16, &[4, 4, 4, 4]),
        ("3528", 16, &[4, 4, 4, 4]),
        ("36", 14, &[4, 6, 4]),
        ("5018", 13, &[4, 4, 5]),
    ];
    let issuer = prop::sample::select(&ISSUERS[..]);
    (issuer, prop::collection::vec(0_u8..10, 19)).prop_map(|((prefix, length, groups), rest)| {
        let prefix = prefix.bytes().map(|byte| byte - b'0');
        let digits = prefix.chain(rest).take(length - 1).collect();
        (luhn(digits), groups)
    })
}

fn text_of(digits: &[u8], groups: &[usize], separator: &str) -> String {
    let mut rest = digits;
    let mut parts = Vec::new();
    for &length in groups {
        let (part, tail) = rest.split_at(length);
        parts.push(part.iter().map(ToString::to_string).collect::<String>());
        rest = tail;
    }
    parts.join(separator)
}

/// What may stand before a secret, and what after it.
fn surroundings() -> impl Strategy<Value = (String, String)> {
    let before = "(\\PC{0,20}[ \t\n\"'(\\[{=:,;>/_äß]|\\\\n)?";
    let after = "([ \t\n\"')\\]},;<&][^0-9]{0,20})?";
    (before, after)
}

/// A secret in its context: as it is, behind a name, in JSON, in what Debug prints.
fn planted(core: &str) -> Vec<String> {
    vec![
        core.to_owned(),
        format!("password={core}"),
        format!("--token {core}"),
        format!(
            "{:?}",
            [("password", core)]
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>()
        ),
        serde_json::json!({ "secret": core, "n": 1 }).to_string(),
        serde_json::json!({ "text": format!("password=\"{core}\"") }).to_string(),
        // A slash in a password is escaped, or the URL means another host.
        format!("https://user:{}@host/path", core.replace(['/', '#'], "%2F")),
        format!("Set-Cookie: sid=1; x={core}; Path=/"),
    ]
}

proptest! {
    #[test]
    fn no_card_number_passes(
        (digits, groups) in card(),
        separator in prop::sample::select(vec!["", " ", "-"]),
        (before, after) in surroundings(),
    ) {
        let card = text_of(&digits, groups, separator);
        let shown = masked(&format!("{before}{card}{after}"));
        prop_assert!(!shown.contains(&card), "{before:?} {card} {after:?} -> {shown:?}");
    }

    #[test]
    fn no_email_passes(
        name in "[a-z0-9][a-z0-9._+-]{8,20}[a-z0-9]",
        domain in "[a-z0-9]{3,8}(\\.[a-z]{3,6}){1,2}",
        (before, after) in surroundings(),
    ) {
        let shown = masked(&format!("{before}{name}@{domain}{after}"));
        prop_assert!(!shown.contains(&name) && !shown.contains(&domain), "{shown:?}");
    }

    #[test]
    fn no_jwt_passes(
        header in "eyJ[A-Za-z0-9_-]{10,30}",
        payload in "eyJ[A-Za-z0-9_-]{10,30}",
        signature in "[A-Za-z0-9_-]{10,30}",
        (before, after) in surroundings(),
    ) {
        let shown = masked(&format!("{before}{header}.{payload}.{signature}{after}"));
        for part in [&header, &payload, &signature] {
            prop_assert!(!shown.contains(part.as_str()), "{shown:?}");
        }
    }

    #[test]
    fn no_vendor_key_passes(
        key in "(AKIA[A-Z0-9]{16}|ghp_[A-Za-z0-9]{36}|xoxb-[0-9]{11}-[A-Za-z0-9]{24}|sk_live_[A-Za-z0-9]{24})",
        (before, after) in surroundings(),
    ) {
        let shown = masked(&format!("{before}{key}{after}"));
        prop_assert!(!shown.contains(&key), "{shown:?}");
    }

    #[test]
    fn no_named_value_passes(core in "[A-Za-z0-9!#$%^*+/._~-]{12,30}", (before, after) in surroundings()) {
        for text in planted(&core).iter().skip(1) {
            let shown = masked(&format!("{before} {text}{after}"));
            prop_assert!(!shown.contains(&core), "{text:?} -> {shown:?}");
        }
    }

    #[test]
    fn no_quoted_value_passes_whatever_it_holds(core in "[A-Za-z]{9}[ -~äß]{0,20}[A-Za-z]{9}") {
        let (head, tail) = (&core[..9], &core[core.len() - 9..]);
        let map = [("password", core.as_str())];
        let map: std::collections::BTreeMap<_, _> = map.into_iter().collect();
        for text in [
            serde_json::to_string(&map).unwrap(),
            serde_json::to_string(&serde_json::to_string(&map).unwrap()).unwrap(),
            format!("{map:?}"),
            format!("{:?}", format!("{map:?}")),
            format!("{map:#?}"),
        ] {
            let shown = masked(&text);
            prop_assert!(!shown.contains(head) && !shown.contains(tail), "{text} -> {shown}");
        }
    }

    #[test]
    fn masking_is_total_and_bounded(text in "\\PC{0,200}|[ -~\n]{0,200}|[a=:\"'{}\\[\\]@/,\\\\ä-]{0,60}") {
        // No finding is empty, and no replacement is longer than 22 bytes.
        prop_assert!(masked(&text).len() <= 22 * text.len());
    }

    #[test]
    fn prose_stays(text in "[a-zäß]{1,12}([ ,.!?]{1,2}[A-Za-z0-9äß]{1,11}){0,30}") {
        prop_assert_eq!(masked(&text), text);
    }

    #[test]
    fn ids_stay(number in any::<u128>(), block in any::<i64>()) {
        let hex = format!("{number:032x}");
        let uuid = format!(
            "{}-{}-{}-{}-{}",
            &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]
        );
        for text in [
            format!("order {uuid} accepted"),
            format!("blk_{block} replicated"),
            format!("trace {hex}"),
        ] {
            prop_assert_eq!(masked(&text), text);
        }
    }
}
