//! The pure part of a watch: what an event of etcd says about the members.

use std::sync::Arc;

use super::record::{Key, Keys, Record};
use crate::instance::Instance;
use crate::source::{Change, Removal, RemovalReason};

/// A value and the revision that put it.
pub(super) type Put<'a> = (&'a [u8], u64);

/// What happened to one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) key: &'a [u8],
    /// What was put; nothing if it was deleted.
    pub(super) put: Option<Put<'a>>,
    /// What was there before.
    pub(super) before: Before<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Before<'a> {
    Nothing,
    Was(Put<'a>),
    /// There was something, which was compacted before it could be read.
    Unknown,
}

/// What was there before is needed and not known: only a snapshot can tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blind;

/// At most two changes: that something is gone, and that something is there.
pub(super) fn changes(keys: &Keys, seen: Seen<'_>) -> Result<Vec<Change>, Blind> {
    if !matches!(keys.parse(seen.key), Key::Instance(..)) {
        return Ok(Vec::new());
    }
    let before = match seen.before {
        Before::Nothing => None,
        Before::Was((value, revision)) => keys.read(seen.key, value, revision),
        Before::Unknown => return Err(Blind),
    };
    let now = seen
        .put
        .and_then(|(value, revision)| keys.read(seen.key, value, revision));
    let mut changes = Vec::with_capacity(2);
    if let Some(Record::Listed(before)) = before
        && let Some(reason) = end(&before, seen.put.is_some(), now.as_ref())
    {
        changes.push(Change::Removed(removal(*before, reason)));
    }
    if let Some(Record::Listed(now)) = now {
        changes.push(Change::Upserted(Arc::from(now)));
    }
    Ok(changes)
}

/// Why what was listed before is so no longer; nothing if it still is.
fn end(before: &Instance, put: bool, now: Option<&Record>) -> Option<RemovalReason> {
    match now {
        Some(Record::Listed(now)) if now.incarnation == before.incarnation => None,
        Some(Record::Gone(incarnation)) if *incarnation == before.incarnation => {
            Some(RemovalReason::Deregistered)
        }
        None if !put => Some(RemovalReason::Expired),
        // By a new registration, or by something strange.
        _ => Some(RemovalReason::Replaced),
    }
}

fn removal(instance: Instance, reason: RemovalReason) -> Removal {
    Removal {
        service: instance.service,
        id: instance.id,
        incarnation: instance.incarnation,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::instance::{Incarnation, Registration};
    use crate::source::{Revision, Scope, Snapshot};

    const KEY: &[u8] = b"shop/pay/a";

    fn listed(incarnation: u64) -> Vec<u8> {
        listed_as("a", incarnation)
    }

    fn listed_as(id: &str, incarnation: u64) -> Vec<u8> {
        let (service, id) = ("pay".parse().unwrap(), id.parse().unwrap());
        let endpoint = "127.0.0.1:80".parse().unwrap();
        let asked = Registration::new(service, id, endpoint, Duration::from_secs(1));
        let instance = asked.instance(Incarnation::new(incarnation));
        Record::Listed(Box::new(instance)).encode().unwrap()
    }

    fn gone(incarnation: u64) -> Vec<u8> {
        Record::Gone(Incarnation::new(incarnation))
            .encode()
            .unwrap()
    }

    /// `+` and the incarnation that came, or the incarnation that went and why.
    fn told(before: Before<'_>, put: Option<Put<'_>>) -> Vec<String> {
        let keys = Keys::new("shop/").unwrap();
        let key = KEY;
        let changes = changes(&keys, Seen { key, put, before }).unwrap();
        let text = |change: &Change| match change {
            Change::Upserted(instance) => format!("+{}", instance.incarnation),
            Change::Removed(gone) => format!("{} {:?}", gone.incarnation, gone.reason),
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn an_end_is_told_by_what_was_there() {
        let (seven, given_back) = (listed(7), gone(7));
        let was = Before::Was((&seven, 7));
        assert_eq!(told(was, None), ["7 Expired"]);
        assert_eq!(told(was, Some((&given_back, 8))), ["7 Deregistered"]);
        assert_eq!(told(Before::Was((&given_back, 8)), None), [""; 0]);
    }

    #[test]
    fn a_beginning_is_told_with_the_end_of_its_ghost() {
        let (seven, new, given_back) = (listed(7), listed(0), gone(7));
        assert_eq!(told(Before::Nothing, Some((&new, 9))), ["+9"]);
        assert_eq!(told(Before::Was((&given_back, 8)), Some((&new, 9))), ["+9"]);
        let was = Before::Was((&seven, 7));
        assert_eq!(told(was, Some((&new, 9))), ["7 Replaced", "+9"]);
        // A change of status or an override: the same incarnation.
        assert_eq!(told(was, Some((&seven, 9))), ["+7"]);
    }

    #[test]
    fn strange_values_remove_what_they_replaced_and_nothing_else() {
        let seven = listed(7);
        let strange: Put<'_> = (b"strange", 8);
        assert_eq!(
            told(Before::Was((&seven, 7)), Some(strange)),
            ["7 Replaced"]
        );
        assert_eq!(told(Before::Nothing, Some(strange)), [""; 0]);
        assert_eq!(told(Before::Was(strange), None), [""; 0]);
        assert_eq!(told(Before::Was(strange), Some((&seven, 9))), ["+7"]);
    }

    #[test]
    fn what_is_not_known_any_more_is_not_guessed() {
        let keys = Keys::new("shop/").unwrap();
        let unknown = |key| Seen {
            key,
            put: None,
            before: Before::Unknown,
        };
        assert_eq!(changes(&keys, unknown(KEY)), Err(Blind));
        assert_eq!(
            changes(&keys, unknown(b"shop/pay/a/override")),
            Ok(Vec::new())
        );
    }

    /// What the keys hold, read at once.
    fn read(keys: &Keys, store: &BTreeMap<String, (Vec<u8>, u64)>, revision: u64) -> Snapshot {
        let held = store.iter().filter_map(|(key, (value, put))| {
            match keys.read(key.as_bytes(), value, *put)? {
                Record::Listed(instance) => Some(Arc::from(instance)),
                Record::Gone(_) => None,
            }
        });
        Snapshot::new(Scope::All, Revision::new(revision), held.collect())
    }

    proptest! {
        /// Whatever is put and deleted, in whatever order: the changes lead to what a snapshot reads.
        #[test]
        fn changes_lead_to_what_is_stored(acts in prop::collection::vec((0..3_usize, 0..6_u8, 0..40_u64), 1..60)) {
            let keys = Keys::new("shop/").unwrap();
            let mut store: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
            let mut mirror = read(&keys, &store, 0);
            for ((id, act, number), revision) in acts.into_iter().zip(1..) {
                let id = ["a", "b", "c"][id];
                let key = format!("shop/pay/{id}");
                let before = store.remove(&key);
                let value = match act {
                    0 | 1 => Some(listed_as(id, 0)),
                    2 => Some(listed_as(id, number)),
                    3 => Some(gone(number)),
                    4 => Some(b"strange".to_vec()),
                    _ => None,
                };
                if before.is_none() && value.is_none() {
                    continue;
                }
                let seen = Seen {
                    key: key.as_bytes(),
                    put: value.as_deref().map(|value| (value, revision)),
                    before: match &before {
                        Some((value, put)) => Before::Was((value, *put)),
                        None => Before::Nothing,
                    },
                };
                let told = changes(&keys, seen).unwrap();
                prop_assert!(told.len() <= 2);
                mirror.advance(Revision::new(revision), &told);
                if let Some(value) = value {
                    store.insert(key, (value, revision));
                }
                prop_assert_eq!(&mirror, &read(&keys, &store, revision));
            }
        }
    }
}
