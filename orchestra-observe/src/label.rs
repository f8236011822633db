//! The alphabets of the exposition: metric names, label names, and what a label value may hold.

use crate::{Error, ErrorKind};

/// The longest metric or label name, in bytes.
const MAX_NAME: usize = 200;
/// The longest label value that a series keeps, in bytes; the rest is cut off.
pub const MAX_VALUE: usize = 512;
/// The value of every label of a family's overflow series.
pub const OVERFLOW: &str = "__overflow__";

/// What a family's own name may not end with, because its samples are named so.
const RESERVED_SUFFIXES: [&str; 5] = ["_total", "_bucket", "_count", "_sum", "_created"];
/// The prefix of the metrics that a registry keeps about itself.
pub(crate) const OWN_PREFIX: &str = "orchestra_observe_";

fn in_alphabet(text: &str, extra: &[u8]) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || extra.contains(&b);
    text.bytes().next().is_some_and(letter) && text.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

pub(crate) fn check_metric(name: &str) -> Result<(), Error> {
    let fail = |reason| Err(Error::new(ErrorKind::InvalidName, name, reason));
    if name.len() > MAX_NAME {
        return fail("longer than 200 bytes");
    }
    if !in_alphabet(name, b":") {
        return fail("must match [a-zA-Z_:][a-zA-Z0-9_:]*");
    }
    if RESERVED_SUFFIXES
        .iter()
        .any(|suffix| name.ends_with(suffix))
    {
        return fail("ends like a sample of another family");
    }
    if name.starts_with(OWN_PREFIX) {
        return fail("begins like the registry's own metrics");
    }
    Ok(())
}

pub(crate) fn check_labels(names: &[&str]) -> Result<(), Error> {
    for (index, name) in names.iter().enumerate() {
        let fail = |reason| Err(Error::new(ErrorKind::InvalidLabel, name, reason));
        if name.len() > MAX_NAME {
            return fail("longer than 200 bytes");
        }
        if !in_alphabet(name, b"") {
            return fail("must match [a-zA-Z_][a-zA-Z0-9_]*");
        }
        if name.starts_with("__") || matches!(*name, "le" | "quantile") {
            return fail("reserved by the exposition");
        }
        if names.iter().take(index).any(|other| other == name) {
            return fail("given twice");
        }
    }
    Ok(())
}

/// The unit that a name ends with, if it is one that OpenMetrics knows.
pub(crate) fn unit_of(name: &str) -> Option<&'static str> {
    const UNITS: [&str; 8] = [
        "seconds", "bytes", "ratio", "celsius", "meters", "volts", "amperes", "joules",
    ];
    UNITS.into_iter().find(|unit| {
        name.strip_suffix(unit)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('_'))
    })
}

/// Cuts a text to at most `max` bytes, at the boundary of a character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
