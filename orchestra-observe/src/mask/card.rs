//! Payment card numbers: 12 to 19 digits, together or in groups after a first one of four.

use std::ops::Range;

use super::{Finding, Secret, before, begins_word, in_uuid, run};

const MAX_DIGITS: usize = 19;
const DIGITS: std::ops::RangeInclusive<usize> = 12..=MAX_DIGITS;

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    if bytes.iter().filter(|b| b.is_ascii_digit()).count() < *DIGITS.start() {
        return;
    }
    let groups = groups(bytes);
    // Groups may belong to two candidates: both are taken out.
    for first in 0..groups.len() {
        if let Some(range) = at(bytes, groups.get(first..).unwrap_or_default()) {
            let secret = Secret::Card;
            out.push(Finding { range, secret });
        }
    }
}

fn groups(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(skip) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(u8::is_ascii_digit))
    {
        let start = at + skip;
        at = run(bytes, start, |b| b.is_ascii_digit());
        groups.push(start..at);
    }
    groups
}

/// The longest card number that begins with the first of the groups.
fn at(bytes: &[u8], groups: &[Range<usize>]) -> Option<Range<usize>> {
    let first = groups.first()?;
    if !may_begin(bytes, first.start) {
        return None;
    }
    let mut digits = [0; MAX_DIGITS];
    let mut count = 0;
    let mut best = None;
    let mut end = None;
    for (index, group) in groups.iter().enumerate() {
        if end.is_some_and(|end| !linked(bytes, end, group.start))
            || count + group.len() > MAX_DIGITS
            || (index == 1 && first.len() != 4)
        {
            break;
        }
        let ascii = bytes.get(group.clone()).unwrap_or_default();
        for (place, byte) in digits.iter_mut().skip(count).zip(ascii) {
            *place = byte - b'0';
        }
        count += group.len();
        end = Some(group.end);
        let number = digits.get(..count).unwrap_or_default();
        if DIGITS.contains(&count) && is_card(number) && may_end(bytes, group.end) {
            best = Some(first.start..group.end);
        }
    }
    best.filter(|range| !in_uuid(bytes, range))
}

/// One space or dash stands between the groups.
fn linked(bytes: &[u8], end: usize, start: usize) -> bool {
    start == end + 1 && matches!(bytes.get(end), Some(b' ' | b'-'))
}

fn may_begin(bytes: &[u8], at: usize) -> bool {
    let fraction = before(bytes, at) == Some(b'.')
        && at
            .checked_sub(1)
            .and_then(|dot| before(bytes, dot))
            .is_some_and(|b| b.is_ascii_digit());
    begins_word(bytes, at) && !fraction && !is_block(bytes, at)
}

/// The ids of HDFS blocks are 19 digits after `blk_`, with a sign or without.
fn is_block(bytes: &[u8], at: usize) -> bool {
    let head = bytes.get(..at).unwrap_or_default();
    let head = head.strip_suffix(b"-").unwrap_or(head);
    head.ends_with(b"blk_")
}

fn may_end(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        Some(b'.') => !bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        Some(byte) => !byte.is_ascii_alphanumeric(),
        None => true,
    }
}

fn is_card(digits: &[u8]) -> bool {
    is_luhn(digits) && is_issued(digits)
}

fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether an issuer has this prefix and this length.
fn is_issued(digits: &[u8]) -> bool {
    let prefix = digits.iter().take(4);
    let prefix = prefix.fold(0_u16, |number, &digit| number * 10 + u16::from(digit));
    let length = digits.len();
    match prefix {
        // Visa.
        4000..=4999 => matches!(length, 13 | 16 | 19),
        // American Express, JCB before 1989.
        3400..=3499 | 3700..=3799 | 1800 | 2131 => length == 15,
        // Mastercard, Dankort, RuPay, Troy, InstaPayment.
        5100..=5599 | 2221..=2720 | 5019 | 5080..=5089 | 8100..=8299 | 9792 | 6370..=6399 => {
            length == 16
        }
        // Mir, JCB, Discover, UnionPay.
        2200..=2204 | 3528..=3589 | 6011 | 6440..=6599 | 6200..=6299 | 6000..=6010 => {
            (16..=19).contains(&length)
        }
        // Diners Club.
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => (14..=19).contains(&length),
        // Maestro.
        5000..=5018 | 5020..=5079 | 5090..=5099 | 5600..=5899 | 6304 | 6759..=6763 => {
            (12..=19).contains(&length)
        }
        _ => false,
    }
}
