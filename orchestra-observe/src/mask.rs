//! Secrets are taken out of text before it is stored or handed on.
//!
//! A [`Masker`] looks for what is a secret by its shape (payment card numbers, IBANs, JWTs, keys of
//! vendors, private keys, e-mail addresses, passwords in URLs, authorization values) and for what is one
//! by its name (`password=…`, a header `Cookie: …`, a field `api_key`). All rules search the original
//! text, and whatever any of them found is replaced as one piece, so that no rule hides a secret from
//! another. What it returns is [`Masked`]: nothing else makes one, so a sink that asks for `Masked`
//! cannot be given what was not looked at.
//!
//! In doubt the text is taken out: a value in quotes or brackets reaches to where they close, or else to
//! the end of the text, a header such as `Cookie` to the end of its line, any other value to white space;
//! a text too long to search is cut. What cannot be known from shape or name stays: a password in plain
//! prose is a word, as is what follows the first space of a value without quotes.
//!
//! Card numbers need the prefix and the length of an issuer and the check digit of Luhn (ISO/IEC 7812-1);
//! of random 16-digit numbers about one in thirty passes. IBANs need the length of their country and
//! the check digits of ISO 7064.

mod card;
mod email;
mod iban;
mod key;
mod masked;
mod pair;
mod pem;
mod token;
mod url;

pub use masked::Masked;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// What a piece of text was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Secret {
    /// The number of a payment card.
    Card,
    /// An international bank account number.
    Iban,
    /// An e-mail address.
    Email,
    /// A JSON web token.
    Jwt,
    /// What follows `Bearer`, `Basic` and the like.
    Authorization,
    /// A key whose prefix names its vendor.
    Credential,
    /// The value of a name that means a secret.
    Named,
    /// The user and password of a URL.
    UserInfo,
    /// A block of PEM.
    Pem,
}

impl Secret {
    /// What the text shows in its place.
    pub const fn replacement(self) -> &'static str {
        match self {
            Self::Card => "[masked:card]",
            Self::Iban => "[masked:iban]",
            Self::Email => "[masked:email]",
            Self::Jwt => "[masked:jwt]",
            Self::Authorization => "[masked:authorization]",
            Self::Credential => "[masked:credential]",
            Self::Named => "[masked]",
            Self::UserInfo => "[masked:userinfo]",
            Self::Pem => "[masked:pem]",
        }
    }
}

/// Where a secret stands, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    range: Range<usize>,
    secret: Secret,
}

type Rule = fn(&str, &mut Vec<Finding>);

const RULES: [Rule; 6] = [
    card::find,
    iban::find,
    email::find,
    token::find,
    url::find,
    pem::find,
];

/// Takes secrets out of text.
///
/// ```
/// use orchestra_observe::Masker;
///
/// let masker = Masker::new().deny("diagnosis");
/// let line = masker.mask("card 4111 1111 1111 1111 declined, token=abc, order 41");
/// assert_eq!(line.as_str(), "card [masked:card] declined, token=[masked], order 41");
/// assert_eq!(masker.field("diagnosis", "flu").as_str(), "[masked]");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Masker {
    denied: BTreeSet<String>,
}

impl Masker {
    /// The longest text that is searched, in bytes; what follows is cut off.
    pub const MAX_TEXT: usize = 64 * 1024;
    /// How far behind a cut the search goes, so that a cut cannot hide the rest of a secret.
    const MARGIN: usize = 4096;

    /// A masker with the built-in rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes this name for the name of a secret as well, whatever its case and separators.
    #[must_use]
    pub fn deny(mut self, name: &str) -> Self {
        self.denied.insert(key::folded(name));
        self
    }

    /// Whether the value of this name is a secret.
    pub fn is_denied(&self, name: &str) -> bool {
        key::is_secret(name)
            || (!self.denied.is_empty() && self.denied.contains(&key::folded(name)))
    }

    /// The text without its secrets. A clean text is borrowed.
    pub fn mask<'a>(&self, text: &'a str) -> Masked<Cow<'a, str>> {
        self.mask_to(text, Self::MAX_TEXT)
    }

    /// The text without its secrets, at most about `max` bytes of it: no secret is cut in two, and
    /// `[truncated]` stands for the rest.
    pub fn mask_to<'a>(&self, text: &'a str, max: usize) -> Masked<Cow<'a, str>> {
        let max = max.min(Self::MAX_TEXT);
        let whole = text.len() <= max;
        let window = crate::label::cut(text, max.saturating_add(Self::MARGIN));
        let found = self.findings(window);
        if whole && found.is_empty() {
            return Masked::new(Cow::Borrowed(text));
        }
        Masked::new(Cow::Owned(replaced(window, &found, max, whole)))
    }

    /// The value of a named thing: all of it is taken out when the name means a secret.
    pub fn field<'a>(&self, name: &str, value: &'a str) -> Masked<Cow<'a, str>> {
        self.field_to(name, value, Self::MAX_TEXT)
    }

    /// The same with at most about `max` bytes of the value, as [`Masker::mask_to`] counts them.
    pub fn field_to<'a>(&self, name: &str, value: &'a str, max: usize) -> Masked<Cow<'a, str>> {
        if self.is_denied(name) {
            return Masked::new(Cow::Borrowed(Secret::Named.replacement()));
        }
        self.mask_to(value, max)
    }

    fn findings(&self, text: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        for rule in RULES {
            rule(text, &mut found);
        }
        pair::find(text, |name| self.is_denied(name), &mut found);
        merged(found)
    }
}

/// Joins findings that overlap; the one that begins first gives the name.
fn merged(mut found: Vec<Finding>) -> Vec<Finding> {
    found.sort_by_key(|finding| (finding.range.start, std::cmp::Reverse(finding.range.end)));
    let mut joined: Vec<Finding> = Vec::with_capacity(found.len());
    for next in found {
        match joined.last_mut() {
            Some(last) if next.range.start < last.range.end => {
                last.range.end = last.range.end.max(next.range.end);
            }
            _ => joined.push(next),
        }
    }
    joined
}

fn replaced(text: &str, found: &[Finding], max: usize, whole: bool) -> String {
    let mut out = String::with_capacity(text.len().min(max) + 64);
    let mut at = 0;
    let limit = if whole { text.len() } else { max };
    for Finding { range, secret } in found {
        if range.start >= limit {
            break;
        }
        // A rule that ends inside a character takes the whole character.
        let start = text.floor_char_boundary(range.start).max(at);
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(secret.replacement());
        at = text.ceil_char_boundary(range.end);
    }
    let end = text.floor_char_boundary(limit);
    out.push_str(text.get(at..end).unwrap_or_default());
    if !whole {
        out.push_str("[truncated]");
    }
    out
}

/// The byte before `at`.
fn before(bytes: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|at| bytes.get(at)).copied()
}

/// Whether a word may begin at `at`: what stands before is no letter or digit, or is an escape such as
/// `\n` in a text that was escaped before.
fn begins_word(bytes: &[u8], at: usize) -> bool {
    match before(bytes, at) {
        Some(b'n' | b't' | b'r') => before(bytes, at - 1) == Some(b'\\'),
        Some(byte) => !byte.is_ascii_alphanumeric(),
        None => true,
    }
}

/// The end of the run of bytes from `at` on that are in the alphabet.
fn run(bytes: &[u8], at: usize, alphabet: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|&&byte| alphabet(byte)).count()
}

/// Whether the range stands in a text of the form 8-4-4-4-12.
fn in_uuid(bytes: &[u8], range: &Range<usize>) -> bool {
    const LEN: usize = 36;
    let part = |b: &&u8| b.is_ascii_hexdigit() || **b == b'-';
    let head = bytes.get(..range.start).unwrap_or_default();
    let tail = bytes.get(range.end..).unwrap_or_default();
    // One more than a UUID has is enough to see that it is none.
    let start = range.start - head.iter().rev().take(LEN + 1).take_while(part).count();
    let end = range.end + tail.iter().take(LEN + 1).take_while(part).count();
    let token = bytes.get(start..end).unwrap_or_default();
    let lengths = token.split(|&b| b == b'-').map(<[u8]>::len);
    lengths.eq([8, 4, 4, 4, 12])
}
