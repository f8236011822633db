//! Blocks of PEM (RFC 7468), from the first dashes to the last, or to the end of the text.

use super::{Finding, Secret};

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    const END: &str = "-----END ";
    let mut from = 0;
    while let Some(start) = position(text, "-----BEGIN ", from) {
        let end = position(text, END, start)
            .and_then(|at| position(text, "-----", at + END.len()))
            .map_or(text.len(), |at| at + 5);
        let secret = Secret::Pem;
        out.push(Finding {
            range: start..end,
            secret,
        });
        from = end;
    }
}

fn position(text: &str, pattern: &str, from: usize) -> Option<usize> {
    let found = text.get(from..)?.find(pattern)?;
    Some(from + found)
}
