//! Values of names that mean a secret: `name=value`, `name: value`, `"name": "value"`, `--name value`.

use super::{Finding, Secret, before, run};

pub(super) fn find(text: &str, is_denied: impl Fn(&str) -> bool, out: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    // What stands within a value goes with it: the search stays linear in the text.
    let mut taken = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let Some(after) = separator(bytes, at, byte).filter(|_| at >= taken) else {
            continue;
        };
        let name = name_before(text, at, byte);
        if name.is_empty() || !is_denied(name) {
            continue;
        }
        let range = value(bytes, after, takes_line(name));
        if !range.is_empty() {
            taken = range.end;
            let secret = Secret::Named;
            out.push(Finding { range, secret });
        }
    }
}

/// Where the value may begin, if a separator stands at `at`.
fn separator(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    let next = bytes.get(at + 1).copied();
    match byte {
        b'=' if next == Some(b'>') => Some(at + 2),
        b'=' => Some(at + 1),
        b':' if next == Some(b'=') => Some(at + 2),
        // `::` is a path, `://` a URL.
        b':' if next != Some(b':') && before(bytes, at) != Some(b':') => {
            (bytes.get(at + 1..at + 3) != Some(b"//")).then_some(at + 1)
        }
        b'%' => {
            let code = bytes.get(at + 1..at + 3)?;
            let equals = code.eq_ignore_ascii_case(b"3d") || code.eq_ignore_ascii_case(b"3a");
            equals.then_some(at + 3)
        }
        // A flag of a command line.
        b' ' => {
            let head = bytes.get(..at).filter(|_| next != Some(b' '))?;
            let length = head.iter().rev().take_while(|&&b| is_name(b)).count();
            let flag = head.get(at - length..)?;
            flag.starts_with(b"--").then_some(at + 1)
        }
        _ => None,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || !byte.is_ascii()
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

fn name_before(text: &str, at: usize, byte: u8) -> &str {
    let head = text.get(..at).unwrap_or_default();
    let head = if byte == b' ' {
        head
    } else {
        head.trim_end_matches([' ', '\t'])
    };
    let head = without_closing(head);
    let bytes = head.as_bytes();
    let length = bytes.iter().rev().take_while(|&&b| is_name(b)).count();
    let start = head.ceil_char_boundary(bytes.len() - length);
    let name = head.get(start..).unwrap_or_default();
    // The digits after a `%` are no part of the name: `%22token`.
    let is_code = before(bytes, start) == Some(b'%');
    match name.split_at_checked(2) {
        Some((code, name)) if is_code && code.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => name,
    }
}

/// Without the quotes and brackets at the end, be they written as they are or with `%`.
fn without_closing(mut head: &str) -> &str {
    const ENCODED: [&str; 6] = ["%22", "%27", "%5b", "%5d", "%5B", "%5D"];
    loop {
        let plain = head.trim_end_matches(['"', '\'', '`', '\\', '[', ']', ')']);
        let encoded = ENCODED.iter().find_map(|code| plain.strip_suffix(code));
        match encoded {
            Some(rest) => head = rest,
            None => return plain,
        }
    }
}

/// Headers whose value holds spaces, commas and further pairs.
fn takes_line(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("authorization") || name.ends_with("cookie")
}

fn value(bytes: &[u8], after: usize, takes_line: bool) -> std::ops::Range<usize> {
    let start = first_of_value(bytes, after);
    let escapes = run(bytes, start, |b| b == b'\\');
    let quoted = bytes.get(escapes).copied().filter(|&b| is_quote(b));
    let end = match quoted {
        Some(quote) => {
            let inner = escapes + 1;
            let end = closing(bytes, inner, quote, escapes - start);
            return inner..end;
        }
        None if takes_line => run(bytes, start, |b| b != b'\n' && b != b'\r'),
        None => bare(bytes, start),
    };
    start..end
}

/// Behind the white space; on the next line where that one is indented or begins with a quote.
fn first_of_value(bytes: &[u8], after: usize) -> usize {
    let start = run(bytes, after, |b| matches!(b, b' ' | b'\t' | b'>'));
    let line = run(bytes, start, |b| matches!(b, b'\r' | b'\n'));
    let next = run(bytes, line, |b| matches!(b, b' ' | b'\t'));
    let goes_on = next > line || bytes.get(line).is_some_and(|&b| is_quote(b));
    if line > start && goes_on { next } else { start }
}

/// Where the quote closes that was opened behind `escapes` backslashes; the end of the text if nowhere.
fn closing(bytes: &[u8], from: usize, quote: u8, escapes: usize) -> usize {
    let mut backslashes = 0;
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        if byte == b'\\' {
            backslashes += 1;
        } else {
            if byte == quote && backslashes <= escapes {
                return at - backslashes;
            }
            backslashes = 0;
        }
    }
    bytes.len()
}

/// The end of a value without quotes. Quotes and brackets inside it are closed first.
fn bare(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        at = match byte {
            b'"' | b'\'' | b'`' => (closing(bytes, at + 1, byte, 0) + 1).min(bytes.len()),
            b'(' | b'[' | b'{' => balanced(bytes, at),
            b')' | b']' | b'}' => return at,
            b',' | b';' | b'&' if ends_value(bytes, at + 1) => return at,
            _ if byte.is_ascii_whitespace() => {
                let next = run(bytes, at, |b| b.is_ascii_whitespace());
                // `Token { value: … }`: what Debug prints of a struct goes on behind the space.
                if bytes.get(next) != Some(&b'{') || next == at {
                    return at;
                }
                balanced(bytes, next)
            }
            _ => at + 1,
        };
    }
    at
}

/// Whether the comma or ampersand before `at` ends the value: white space, the end, or a further pair.
fn ends_value(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        None => true,
        Some(byte) if byte.is_ascii_whitespace() || is_quote(*byte) => true,
        Some(_) => {
            let name = run(bytes, at, is_name);
            name > at && matches!(bytes.get(name), Some(b'=' | b':'))
        }
    }
}

/// The end of the bracket that opens at `at`; the end of the text if it does not close.
fn balanced(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = open;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            b'"' => at = (closing(bytes, at, byte, 0) + 1).min(bytes.len()),
            _ => {}
        }
    }
    at
}
