//! Tokens that their own form gives away: JWTs, keys with a vendor's prefix, `Bearer …`.

use super::{Finding, Secret, begins_word, run};

/// Prefix, the fewest bytes that follow it, and which.
type Vendor = (&'static str, usize, fn(u8) -> bool);

const VENDORS: [Vendor; 30] = [
    ("AKIA", 16, upper),
    ("ASIA", 16, upper),
    ("AROA", 16, upper),
    ("AIDA", 16, upper),
    ("ABIA", 16, upper),
    ("ghp_", 20, base64url),
    ("gho_", 20, base64url),
    ("ghu_", 20, base64url),
    ("ghs_", 20, base64url),
    ("ghr_", 20, base64url),
    ("github_pat_", 20, base64url),
    ("glpat-", 16, base64url),
    ("xoxa-", 10, base64url),
    ("xoxb-", 10, base64url),
    ("xoxe-", 10, base64url),
    ("xoxe.", 10, dotted),
    ("xoxo-", 10, base64url),
    ("xoxp-", 10, base64url),
    ("xoxr-", 10, base64url),
    ("xoxs-", 10, base64url),
    ("xapp-", 10, base64url),
    ("sk_live_", 10, base64url),
    ("sk_test_", 10, base64url),
    ("rk_live_", 10, base64url),
    ("rk_test_", 10, base64url),
    ("whsec_", 16, base64),
    ("AIza", 30, base64url),
    ("npm_", 30, base64url),
    ("pypi-", 30, base64url),
    ("sk-ant-", 20, base64url),
];

const SCHEMES: [&str; 5] = ["bearer", "basic", "digest", "token", "negotiate"];

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn dotted(byte: u8) -> bool {
    base64url(byte) || byte == b'.'
}

fn base64(byte: u8) -> bool {
    base64url(byte) || matches!(byte, b'+' | b'/' | b'=')
}

/// `token68` of RFC 9110, 11.2.
fn token68(byte: u8) -> bool {
    base64(byte) || matches!(byte, b'.' | b'~')
}

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    // Up to here a JWT that is none was followed already: the search stays linear in the text.
    let mut followed = 0;
    while at < bytes.len() {
        let found = if begins_word(bytes, at) {
            let jwt = (at >= followed)
                .then(|| jwt(bytes, at, &mut followed))
                .flatten();
            jwt.or_else(|| vendor(bytes, at))
                .or_else(|| scheme(bytes, at))
        } else {
            None
        };
        at += 1;
        if let Some(finding) = found {
            at = at.max(finding.range.end);
            out.push(finding);
        }
    }
}

/// Three parts or, when encrypted, five; the signature may be empty (`alg: none`).
fn jwt(bytes: &[u8], at: usize, followed: &mut usize) -> Option<Finding> {
    if !bytes.get(at..)?.starts_with(b"eyJ") {
        return None;
    }
    let header = run(bytes, at, base64url);
    let payload = run(bytes, header + 1, base64url);
    let shaped = bytes.get(header) == Some(&b'.')
        && payload > header + 1
        && bytes.get(payload) == Some(&b'.');
    if !shaped {
        *followed = header;
        return None;
    }
    Some(Finding {
        range: at..run(bytes, payload, dotted),
        secret: Secret::Jwt,
    })
}

fn vendor(bytes: &[u8], at: usize) -> Option<Finding> {
    let rest = bytes.get(at..)?;
    if !b"Agxsrwnp".contains(rest.first()?) {
        return None;
    }
    VENDORS.iter().find_map(|(prefix, least, alphabet)| {
        let tail = at + prefix.len();
        let end = rest
            .starts_with(prefix.as_bytes())
            .then(|| run(bytes, tail, alphabet))?;
        (end - tail >= *least).then_some(Finding {
            range: at..end,
            secret: Secret::Credential,
        })
    })
}

/// The scheme stays; prose ("basic understanding") stays as well.
fn scheme(bytes: &[u8], at: usize) -> Option<Finding> {
    let rest = bytes.get(at..)?;
    if !b"bdtn".contains(&rest.first()?.to_ascii_lowercase()) {
        return None;
    }
    let named = |name: &&&str| {
        rest.get(..name.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(name.as_bytes()))
    };
    let after = at + SCHEMES.iter().find(named)?.len();
    let start = run(bytes, after, |b| matches!(b, b' ' | b'\t' | b':' | b'"'));
    let end = run(bytes, start, token68);
    let value = bytes.get(start..end)?;
    let odd = value
        .iter()
        .any(|b| b.is_ascii_digit() || b.is_ascii_uppercase() || matches!(b, b'+' | b'/' | b'='));
    let is_token = start > after && value.len() >= 6 && (odd || value.len() >= 24);
    is_token.then_some(Finding {
        range: start..end,
        secret: Secret::Authorization,
    })
}
