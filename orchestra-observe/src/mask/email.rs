//! E-mail addresses: a local part, `@`, and a domain of two labels or more.

use super::{Finding, Secret};

/// The longest local part (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL: usize = 64;

pub(super) fn find(text: &str, out: &mut Vec<Finding>) {
    for (at, _) in text.match_indices('@') {
        let (head, tail) = text.split_at(at);
        let local = head
            .char_indices()
            .rev()
            .take(MAX_LOCAL)
            .take_while(|&(_, c)| c.is_alphanumeric() || "._%+-'~#$^*!".contains(c));
        let Some((start, _)) = local.last() else {
            continue;
        };
        if let Some(length) = domain(tail.get(1..).unwrap_or_default()) {
            // A quote may stand within a name (o'brien), and mostly stands before it.
            let kept = head.get(start..).unwrap_or_default();
            let kept = kept.trim_start_matches(['.', '\'', '#', '*']);
            if !kept.is_empty() {
                let range = at - kept.len()..at + 1 + length;
                let secret = Secret::Email;
                out.push(Finding { range, secret });
            }
        }
    }
}

/// The length of the domain that the text begins with.
fn domain(text: &str) -> Option<usize> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
    let end = text.find(|c| !allowed(c)).unwrap_or(text.len());
    let name = text.get(..end)?.trim_end_matches(['.', '-']);
    let (rest, top) = name.rsplit_once('.')?;
    let letters = top.chars().filter(|c| c.is_alphabetic()).count();
    (!rest.is_empty() && letters >= 2).then_some(name.len())
}
