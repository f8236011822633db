//! International bank account numbers (ISO 13616), together or in groups.

use super::{Finding, Secret, begins_word, in_uuid};

/// Countries and the lengths of their numbers, from the IBAN registry of SWIFT.
const LENGTHS: [(&[u8; 2], usize); 79] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"ST", 25),
    (b"SV", 28),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"XK", 20),
];

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    for start in 0..bytes.len().saturating_sub(14) {
        if let Some(end) = at(bytes, start) {
            let secret = Secret::Iban;
            out.push(Finding {
                range: start..end,
                secret,
            });
        }
    }
}

fn at(bytes: &[u8], start: usize) -> Option<usize> {
    let [a, b, c, d] = *bytes.get(start..)?.first_chunk()?;
    let starts = a.is_ascii_alphabetic()
        && b.is_ascii_alphabetic()
        && c.is_ascii_digit()
        && d.is_ascii_digit();
    if !starts || !begins_word(bytes, start) {
        return None;
    }
    let country = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
    let (_, length) = LENGTHS.iter().find(|(code, _)| **code == country)?;
    let (number, end) = take(bytes, start, *length)?;
    let ends = !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
    (ends && remainder(&number) == 1 && !in_uuid(bytes, &(start..end))).then_some(end)
}

/// The next `length` letters and digits, single spaces or dashes between them dropped.
fn take(bytes: &[u8], start: usize, length: usize) -> Option<(Vec<u8>, usize)> {
    let mut number = Vec::with_capacity(length);
    let mut at = start;
    while number.len() < length {
        match *bytes.get(at)? {
            byte if byte.is_ascii_alphanumeric() => number.push(byte.to_ascii_uppercase()),
            b' ' | b'-' if bytes.get(at + 1)?.is_ascii_alphanumeric() => {}
            _ => return None,
        }
        at += 1;
    }
    Some((number, at))
}

/// The remainder by 97 of the number with its first four places moved to the end, letters as 10 to 35.
fn remainder(number: &[u8]) -> u32 {
    let moved = number.iter().skip(4).chain(number.iter().take(4));
    moved.fold(0, |rest, &byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.saturating_sub(b'A')) + 10) % 97,
    })
}
