//! Which names mean a secret.
//!
//! A name is split into words at its separators and at the humps of its letters, so `clientSecret`,
//! `CLIENT_SECRET` and `X-Client-Secret` are one. Some words make any name a secret (`password`); others
//! only as the last one: `access_token` is a secret, `max_tokens` and `token_count` are not.

/// The longest name that is looked at, in bytes; a longer one ends like a secret or not.
const MAX: usize = 128;

const ANYWHERE: [&str; 8] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "authorization",
    "apikey",
    "privatekey",
];
const LAST: [&str; 17] = [
    "cookie",
    "cookies",
    "pwd",
    "pass",
    "pin",
    "otp",
    "cvv",
    "cvc",
    "ssn",
    "signature",
    "sig",
    "jwt",
    "pan",
    "iban",
    "sid",
    "sessionid",
    "accesskey",
];
const KEYS: [&str; 11] = [
    "api",
    "access",
    "private",
    "signing",
    "encryption",
    "account",
    "shared",
    "master",
    "ssh",
    "session",
    "auth",
];

/// The name without separators and case.
pub(super) fn folded(name: &str) -> String {
    let kept = name.chars().filter(|c| c.is_alphanumeric());
    kept.flat_map(char::to_lowercase).collect()
}

pub(super) fn is_secret(name: &str) -> bool {
    let tail = name.get(name.ceil_char_boundary(name.len().saturating_sub(MAX))..);
    let words = words(tail.unwrap_or(name));
    let has = |word: &String| ANYWHERE.iter().any(|secret| word.contains(secret));
    if words.iter().any(has) {
        return true;
    }
    match words.as_slice() {
        [.., a, b, c] if c == "id" && is_key(a, b) => true,
        [.., a, b] if is_key(a, b) => true,
        [.., last] => last.ends_with("token") || LAST.contains(&last.as_str()),
        [] => false,
    }
}

fn is_key(a: &str, b: &str) -> bool {
    (b == "key" && KEYS.contains(&a)) || matches!((a, b), ("session", "id") | ("card", "number"))
}

fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<char> = name.chars().collect();
    for (index, &c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|i| chars.get(i));
        let after = chars.get(index + 1);
        let hump = c.is_uppercase()
            && (before.is_some_and(|b| b.is_lowercase() || b.is_ascii_digit())
                || (before.is_some_and(|b| b.is_uppercase())
                    && after.is_some_and(|a| a.is_lowercase())));
        if hump || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
