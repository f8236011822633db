//! The user and password of a URL: `scheme://user:password@host`.

use super::{Finding, Secret};

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    // Where the word ends that was looked at last, and its last `@`: the search stays linear in the text.
    let (mut end, mut last) = (0, None);
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        if start >= end {
            (end, last) = word(text, start);
        }
        let rest = text.get(start..end).unwrap_or_default();
        let last = last.and_then(|last: usize| last.checked_sub(start));
        if let Some(length) = user_info(rest, last).filter(|&length| length > 0) {
            let secret = Secret::UserInfo;
            out.push(Finding {
                range: start..start + length,
                secret,
            });
        }
    }
}

/// The end of the word that begins at `start`, and its last `@`.
fn word(text: &str, start: usize) -> (usize, Option<usize>) {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let rest = text.get(start..).unwrap_or_default();
    let word = rest.split(ends).next().unwrap_or_default();
    (start + word.len(), word.rfind('@').map(|at| start + at))
}

fn user_info(rest: &str, last: Option<usize>) -> Option<usize> {
    let authority = rest.split(['/', '?', '#']).next()?;
    if let Some(at) = authority.rfind('@') {
        return Some(at);
    }
    // A password that should have been escaped: `://user:pa/ss@host`. A port is no password.
    let (_, tail) = authority.split_once(':')?;
    let is_port = !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit());
    if is_port || authority.starts_with('[') {
        return None;
    }
    last
}
