//! The user and password of a URL: `scheme://user:password@host`.

use super::{Finding, Secret};
use crate::label::cut;

/// How far a URL is followed, in bytes: the search stays linear in the text.
const MAX: usize = 2048;

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = cut(text.get(start..).unwrap_or_default(), MAX);
        if let Some(length) = user_info(rest).filter(|&length| length > 0) {
            let secret = Secret::UserInfo;
            out.push(Finding {
                range: start..start + length,
                secret,
            });
        }
    }
}

fn user_info(rest: &str) -> Option<usize> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let authority = rest
        .split(|c| ends(c) || matches!(c, '/' | '?' | '#'))
        .next()?;
    if let Some(at) = authority.rfind('@') {
        return Some(at);
    }
    // A password that should have been escaped: `://user:pa/ss@host`. A port is no password.
    let (_, tail) = authority.split_once(':')?;
    let is_port = !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit());
    if is_port || authority.starts_with('[') {
        return None;
    }
    rest.split(ends).next()?.rfind('@')
}
