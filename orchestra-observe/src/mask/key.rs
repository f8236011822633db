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
const LAST: [&str; 20] = [
    "cookie",
    "cookies",
    "pwd",
    "pass",
    "passcode",
    "pw",
    "bearer",
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
    let from = name.ceil_char_boundary(name.len().saturating_sub(MAX));
    // The last three words, the last one last.
    let mut tail = [""; 3];
    for word in Words(name.get(from..).unwrap_or(name)) {
        if ANYWHERE.iter().any(|secret| contains(word, secret)) {
            return true;
        }
        tail.rotate_left(1);
        tail[2] = word;
    }
    let [a, b, c] = tail;
    (c.eq_ignore_ascii_case("id") && is_key(a, b))
        || is_key(b, c)
        || ends_with(c, "token")
        || is_one_of(c, &LAST)
}

fn is_key(a: &str, b: &str) -> bool {
    (b.eq_ignore_ascii_case("key") && is_one_of(a, &KEYS))
        || (a.eq_ignore_ascii_case("session") && b.eq_ignore_ascii_case("id"))
        || (a.eq_ignore_ascii_case("card") && b.eq_ignore_ascii_case("number"))
}

fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn contains(word: &str, part: &str) -> bool {
    let mut windows = word.as_bytes().windows(part.len());
    windows.any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

fn ends_with(word: &str, end: &str) -> bool {
    let start = word.len().checked_sub(end.len());
    let tail = start.and_then(|start| word.get(start..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The words of a name, nothing allocated.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let name = self.0.trim_start_matches(|c: char| !c.is_alphanumeric());
        let end = end_of_word(name);
        let (word, rest) = name.split_at_checked(end)?;
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// A word ends at a separator, before the upper case letter after a lower case one or a digit
/// (`client|Secret`), and before the last upper case letter of a run (`AWS|Access`).
fn end_of_word(name: &str) -> usize {
    let mut before: Option<char> = None;
    let mut chars = name.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let after = chars.peek().map(|&(_, after)| after);
        let hump = c.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || after.is_some_and(char::is_lowercase)
            });
        if hump || !c.is_alphanumeric() {
            return at;
        }
        before = Some(c);
    }
    name.len()
}
