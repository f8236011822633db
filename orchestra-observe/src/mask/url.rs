//! The user and password of a URL: `scheme://user:password@host`.

use super::{Finding, Secret};

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = text.get(start..).unwrap_or_default();
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
    let url = rest.split(ends).next()?;
    let authority = url.split(['/', '?', '#']).next()?;
    if let Some(at) = authority.rfind('@') {
        return Some(at);
    }
    // A password that should have been escaped: `://user:pa/ss@host`. A port is no password.
    let (_, tail) = authority.split_once(':')?;
    let is_port = !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit());
    if is_port || authority.starts_with('[') {
        return None;
    }
    url.rfind('@')
}
