//! What the scripts answer, as values of ours; what is none of ours is skipped with a warning.

use std::sync::Arc;
use std::time::Duration;

use super::record;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Instance};
use crate::source::{Change, Removal, RemovalReason, Revision, Scope, Snapshot};

pub(super) type Answer = Vec<Vec<u8>>;

/// What became of an operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done(Option<u64>),
    Lost,
    Replaced(u64),
    Full(String),
}

impl Outcome {
    pub(super) fn parse(answer: &Answer) -> Result<Self> {
        let texts: Option<Vec<_>> = answer.iter().map(|text| text_of(text)).collect();
        let strange = || strange("an operation");
        match texts.ok_or_else(strange)?.as_slice() {
            ["done"] => Ok(Self::Done(None)),
            ["done", revision] => Ok(Self::Done(Some(number(revision).ok_or_else(strange)?))),
            ["lost"] => Ok(Self::Lost),
            ["replaced", by] => Ok(Self::Replaced(number(by).ok_or_else(strange)?)),
            ["full", what, most] => Ok(Self::Full(format!("{most} {what} are the most"))),
            _ => Err(strange()),
        }
    }
}

pub(super) fn strange(of: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the answer to {of} makes no sense"),
    )
}

/// The scope as the scripts take it.
pub(super) fn service(scope: &Scope) -> &str {
    match scope {
        Scope::Service(name) => name.as_str(),
        Scope::All => "",
    }
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// The number of a stream's id, whose second half is always zero.
fn revision(id: &[u8]) -> Option<u64> {
    number(text_of(id)?.strip_suffix("-0")?)
}

pub(super) fn snapshot(scope: &Scope, answer: &Answer) -> Result<Snapshot> {
    let (latest, listed) = answer.split_first().ok_or_else(|| strange("a snapshot"))?;
    let latest = text_of(latest).and_then(number);
    let latest = latest.ok_or_else(|| strange("a snapshot"))?;
    let mut instances = Vec::with_capacity(listed.len() / 3);
    let (entries, _) = listed.as_chunks();
    for [member, record, forced] in entries {
        match instance(member, record, forced) {
            Ok(instance) => instances.push(Arc::new(instance)),
            Err(reason) => skipped(member, &reason),
        }
    }
    Ok(Snapshot::new(
        scope.clone(),
        Revision::new(latest),
        instances,
    ))
}

fn skipped(member: &[u8], reason: &str) {
    let member: String = String::from_utf8_lossy(member).chars().take(128).collect();
    tracing::warn!(%member, reason, "an entry in redis is none of ours, skipped");
}

/// A record is `incarnation ttl status registration`.
fn instance(member: &[u8], text: &[u8], forced: &[u8]) -> Result<Instance, String> {
    let member = text_of(member).ok_or("its name is no text")?;
    let (service, id) = member.split_once('/').ok_or("its name has no slash")?;
    let mut parts = text_of(text).ok_or("it is no text")?.splitn(4, ' ');
    let mut next = || parts.next().ok_or("it is too short");
    let incarnation = number(next()?).ok_or("its incarnation is no number")?;
    let _ttl = next()?;
    let status = record::status(next()?).ok_or("its status is unknown")?;
    let incarnation = Incarnation::new(incarnation);
    let mut instance = record::decode(service, id, next()?.as_bytes(), incarnation)?;
    instance.status = status;
    instance.forced = record::forced(text_of(forced).ok_or("its override is no text")?)?;
    Ok(instance)
}

/// A part of the log, in scope.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) upto: Revision,
    pub(super) changes: Vec<Change>,
    /// How many changes were looked at.
    pub(super) looked_at: u64,
    /// How long until a lease may lapse.
    pub(super) next_due: Option<Duration>,
}

/// The page after `after`; nothing when the log does not go on from there without a gap.
pub(super) fn page(after: Revision, answer: &Answer) -> Result<Option<Page>> {
    let strange = || strange("a watch");
    let (head, entries) = answer.split_first_chunk().ok_or_else(strange)?;
    let [latest, first, next_due, looked_at, upto] = head;
    let latest = text_of(latest).and_then(number).ok_or_else(strange)?;
    let looked_at = text_of(looked_at).and_then(number).ok_or_else(strange)?;
    let after = after.as_u64();
    let remembered = revision(first).is_some_and(|first| first <= after.saturating_add(1));
    // An id that is none of ours is as good as a gap.
    let upto = revision(upto).filter(|upto| after.checked_add(looked_at) == Some(*upto));
    let Some(upto) = upto.filter(|_| after == latest || (after < latest && remembered)) else {
        return Ok(None);
    };
    let (entries, _) = entries.as_chunks();
    let changes = entries.iter().flat_map(changes).collect();
    let next_due = text_of(next_due).and_then(number);
    Ok(Some(Page {
        upto: Revision::new(upto),
        changes,
        looked_at,
        next_due: next_due.map(Duration::from_micros),
    }))
}

/// A replacement is two changes under one revision.
fn changes([_, member, gone, why, present, forced]: &[Vec<u8>; 6]) -> Vec<Change> {
    let mut changes = Vec::new();
    if !gone.is_empty() {
        match removal(member, gone, why) {
            Some(removal) => changes.push(Change::Removed(removal)),
            None => skipped(member, "its removal makes no sense"),
        }
    }
    if !present.is_empty() {
        match instance(member, present, forced) {
            Ok(instance) => changes.push(Change::Upserted(Arc::new(instance))),
            Err(reason) => skipped(member, &reason),
        }
    }
    changes
}

fn removal(member: &[u8], gone: &[u8], why: &[u8]) -> Option<Removal> {
    let (service, id) = record::names(text_of(member)?)?;
    let reason = match why {
        b"deregistered" => RemovalReason::Deregistered,
        b"expired" => RemovalReason::Expired,
        b"replaced" => RemovalReason::Replaced,
        _ => return None,
    };
    Some(Removal {
        service,
        id,
        incarnation: Incarnation::new(number(text_of(gone)?)?),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(texts: &[&str]) -> Answer {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    const RECORD: &str =
        r#"7 1000 draining {"service":"a","id":"a-1","endpoint":"127.0.0.1:80","ttl_ms":1}"#;

    #[test]
    fn snapshot_skips_what_is_none_of_ours() {
        let listed = answer(&[
            "9",
            "a/a-0",
            "garbage",
            "",
            "a/a-1",
            RECORD,
            "out_of_service",
            "a/a-2",
            RECORD,
            "",
            "a/a-1",
            RECORD,
            "unheard_of",
        ]);
        let snapshot = snapshot(&Scope::All, &listed).unwrap();
        assert_eq!(snapshot.revision(), Revision::new(9));
        let [only] = snapshot.instances() else {
            panic!("{snapshot:?}");
        };
        assert_eq!(only.incarnation, Incarnation::new(7));
        assert_eq!(only.status, crate::Status::Draining);
        assert_eq!(only.forced, Some(crate::Override::OutOfService));
    }

    #[test]
    fn log_without_a_gap_goes_on() {
        let quiet = answer(&["9", "5-0", "1500", "0", "9-0"]);
        let page_of_it = page(Revision::new(9), &quiet).unwrap().unwrap();
        assert_eq!(page_of_it.next_due, Some(Duration::from_micros(1500)));
        assert_eq!(page_of_it.upto, Revision::new(9));
        let one = answer(&[
            "9", "9-0", "", "1", "9-0", "9-0", "a/a-1", "3", "replaced", RECORD, "",
        ]);
        let page_of_it = page(Revision::new(8), &one).unwrap().unwrap();
        let [Change::Removed(gone), Change::Upserted(present)] = &*page_of_it.changes else {
            panic!("{page_of_it:?}");
        };
        assert_eq!(gone.reason, RemovalReason::Replaced);
        assert_eq!(
            (gone.incarnation.as_u64(), present.incarnation.as_u64()),
            (3, 7)
        );
    }

    #[test]
    fn forgotten_future_and_foreign_revisions_are_none() {
        let cases = [
            (3, ["9", "5-0", "", "4", "9-0"]),
            (10, ["9", "5-0", "", "0", "10-0"]),
            (u64::MAX, ["9", "5-0", "", "0", "18446744073709551615-0"]),
            (8, ["9", "", "", "0", "8-0"]),
            (5, ["9", "5-0", "", "2", "9-0"]),
            (8, ["9", "5-0", "", "1", "9-1"]),
        ];
        for (after, texts) in cases {
            let found = page(Revision::new(after), &answer(&texts)).unwrap();
            assert!(found.is_none(), "{after} {texts:?}");
        }
    }

    #[test]
    fn strange_answers_are_errors() {
        for texts in [&[][..], &["done", "x"], &["lost", "1"], &["9"]] {
            let error = Outcome::parse(&answer(texts)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{texts:?}");
        }
        assert!(page(Revision::new(1), &answer(&["9"])).is_err());
        assert!(snapshot(&Scope::All, &answer(&["x"])).is_err());
    }
}
