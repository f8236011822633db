use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{IdempotencyKey, Timestamp};
use serde_json::json;

use super::Violation;
use crate::error::{ErrorKind, Result};
use crate::event::{Event, Started};
use crate::id::{Partition, SagaId, Version};
use crate::status::Status;
use crate::store::{Append, Blueprint, Claim, Filter, Position, SagaStore, Snapshot};

type Checked = std::result::Result<(), Violation>;
type Store = Arc<dyn SagaStore>;

pub(super) const HERE: Partition = Partition(3);

pub(super) fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_nanos(second * 1_000_000_000)
}

/// Ids whose order is that of their numbers.
pub(super) fn saga(number: u64) -> SagaId {
    SagaId::from_parts(at(1_000 + number), u128::from(number))
}

fn started() -> Event {
    let input = json!({ "text": "\u{fc}\u{0}'\"" }).into();
    let mut started = Started::new("conformance", "1", "none", input);
    started.deadline = Some(at(9));
    Event::SagaStarted(Arc::new(started))
}

fn note(reason: &str) -> Event {
    let reason = reason.to_owned();
    Event::SagaCancelRequested { reason }
}

pub(super) fn start(saga: SagaId) -> Append {
    Append::new(saga, Version(0), at(1), vec![started()])
}

pub(super) fn more(saga: SagaId, expected: u64, reasons: &[&str]) -> Append {
    let events = reasons.iter().map(|reason| note(reason)).collect();
    Append::new(saga, Version(expected), at(2), events)
}

pub(super) fn expect(holds: bool, seen: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(seen()))
    }
}

pub(super) fn refused<T: std::fmt::Debug>(
    answer: &Result<T>,
    kind: ErrorKind,
    what: &str,
) -> Checked {
    let as_expected = answer.as_ref().is_err_and(|error| error.kind() == kind);
    expect(as_expected, || {
        format!("{what} was answered {answer:?}, not {kind:?}")
    })
}

pub(super) async fn claim(store: &Store) -> Result<Claim> {
    store.claim(HERE, "conformance").await
}

pub(super) async fn appended_events_are_loaded_in_order(store: Store) -> Checked {
    let (claim, saga) = (claim(&store).await?, saga(1));
    let first = Append::new(saga, Version(0), at(1), vec![started(), note("a")]);
    let second = more(saga, 2, &["b", "c", "d"]);
    let mut wanted: Vec<_> = first.recorded(claim.epoch).collect();
    wanted.extend(second.recorded(claim.epoch));
    let versions = [
        store.append(claim, &first).await?,
        store.append(claim, &second).await?,
    ];
    expect(versions == [Version(2), Version(5)], || {
        format!("versions {versions:?}")
    })?;
    let found = store.load(saga, Version(0)).await?;
    expect(found == wanted, || {
        format!("{found:?} where {wanted:?} was appended")
    })?;
    let tail = store.load(saga, Version(3)).await?;
    let wanted: Vec<_> = wanted.into_iter().skip(3).collect();
    expect(tail == wanted, || {
        format!("{tail:?} after version 3, not {wanted:?}")
    })
}

pub(super) async fn a_stale_version_is_refused(store: Store) -> Checked {
    let (claim, saga, other) = (claim(&store).await?, saga(1), saga(2));
    store.append(claim, &start(other)).await?;
    let (one, two) = (more(other, 1, &["left"]), more(other, 1, &["right"]));
    let (left, right) = tokio::join!(store.append(claim, &one), store.append(claim, &two));
    let winners = [&left, &right]
        .into_iter()
        .filter(|answer| answer.is_ok())
        .count();
    expect(winners == 1, || {
        format!("{left:?} and {right:?} for one version")
    })?;
    let unborn = store.append(claim, &more(saga, 1, &["a"])).await;
    refused(
        &unborn,
        ErrorKind::StaleVersion,
        "version 1 of a saga without events",
    )?;
    store.append(claim, &start(saga)).await?;
    for wrong in [0, 9] {
        let answer = store.append(claim, &more(saga, wrong, &["a"])).await;
        refused(&answer, ErrorKind::StaleVersion, "a wrong version")?;
    }
    Ok(())
}

pub(super) async fn a_refused_batch_leaves_nothing(store: Store) -> Checked {
    let (claim, saga) = (claim(&store).await?, saga(1));
    store.append(claim, &start(saga)).await?;
    let answer = store.append(claim, &more(saga, 7, &["a", "b"])).await;
    if answer.is_ok() {
        // That it was accepted is the matter of another law.
        return Ok(());
    }
    let found = store.load(saga, Version(0)).await?.len();
    expect(found == 1, || {
        format!("{found} events where one was accepted")
    })
}

pub(super) async fn a_claim_raises_the_epoch(store: Store) -> Checked {
    let first = claim(&store).await?;
    let elsewhere = store.claim(Partition(4), "conformance").await?;
    let second = claim(&store).await?;
    let places = [first.partition, elsewhere.partition, second.partition];
    expect(places == [HERE, Partition(4), HERE], || {
        format!("partitions {places:?}")
    })?;
    expect(second.epoch > first.epoch, || {
        format!("epoch {} after epoch {}", second.epoch, first.epoch)
    })
}

pub(super) async fn an_older_epoch_is_refused(store: Store) -> Checked {
    let (old, saga) = (claim(&store).await?, saga(1));
    store.append(old, &start(saga)).await?;
    let new = claim(&store).await?;
    if new == old {
        // That it is not greater is the matter of another law.
        return Ok(());
    }
    let late = store.append(old, &more(saga, 1, &["late"])).await;
    refused(&late, ErrorKind::Fenced, "an older epoch")?;
    store.append(new, &more(saga, 1, &["new"])).await?;
    Ok(())
}

pub(super) async fn another_partition_is_refused(store: Store) -> Checked {
    let (owner, saga) = (claim(&store).await?, saga(1));
    let stranger = store.claim(Partition(4), "conformance").await?;
    store.append(owner, &start(saga)).await?;
    let answer = store.append(stranger, &more(saga, 1, &["stranger"])).await;
    refused(
        &answer,
        ErrorKind::ForeignPartition,
        "a claim of another partition",
    )?;
    store.append(owner, &more(saga, 1, &["owner"])).await?;
    Ok(())
}

pub(super) async fn a_start_key_starts_once(store: Store) -> Checked {
    let claim = claim(&store).await?;
    let key = |text| IdempotencyKey::new(text).map_err(|error| Violation::new(error.to_string()));
    let (first, second) = (key("first")?, key("second")?);
    let begin = async |number, key: &IdempotencyKey| {
        let start = start(saga(number)).start_key(Some(key.clone()));
        store.append(claim, &start).await
    };
    begin(1, &first).await?;
    begin(2, &second).await?;
    let again = begin(3, &first).await;
    refused(&again, ErrorKind::DuplicateStart, "a repeated start key")?;
    let named = again.err().and_then(|error| error.saga());
    expect(named == Some(saga(1)), || {
        format!("the refusal names {named:?}")
    })?;
    let found = [
        store.find_start(&first).await?,
        store.find_start(&key("third")?).await?,
    ];
    expect(found == [Some(saga(1)), None], || {
        format!("the keys find {found:?}")
    })
}

pub(super) async fn due_timers_come_in_order(store: Store) -> Checked {
    let claim = claim(&store).await?;
    for (number, wake) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        let append = start(saga(number)).wake(Some(at(wake)));
        store.append(claim, &append).await?;
    }
    let elsewhere = store.claim(Partition(4), "conformance").await?;
    store
        .append(elsewhere, &start(saga(5)).wake(Some(at(10))))
        .await?;
    let due = async |limit| -> Result<Vec<_>> {
        let timers = store.timers(HERE, at(30), limit).await?;
        Ok(timers
            .into_iter()
            .map(|timer| (timer.at, timer.saga))
            .collect())
    };
    let found = due(10).await?;
    let wanted = [(at(10), saga(2)), (at(20), saga(3)), (at(30), saga(1))];
    expect(found == wanted, || {
        format!("{found:?} are due, not {wanted:?}")
    })?;
    let found = due(1).await?;
    expect(found == wanted[..1], || format!("{found:?} is due first"))?;
    store.append(claim, &more(saga(2), 1, &["none"])).await?;
    let later = more(saga(3), 1, &["later"]).wake(Some(at(50)));
    store.append(claim, &later).await?;
    let found = due(10).await?;
    expect(found == wanted[2..], || {
        format!("{found:?} are due after changes")
    })
}

pub(super) async fn a_list_shows_the_last_status(store: Store) -> Checked {
    let claim = claim(&store).await?;
    for number in 1..=4 {
        store.append(claim, &start(saga(number))).await?;
    }
    let end = async |number, status| {
        let end = more(saga(number), 1, &["end"]).status(status);
        store.append(claim, &end).await
    };
    end(1, Status::Completed).await?;
    end(3, Status::Parked).await?;
    let list = async |filter: Filter| -> Result<Vec<_>> {
        let found = store.list(&filter.partition(HERE)).await?;
        Ok(found
            .into_iter()
            .map(|line| (line.saga, line.status))
            .collect())
    };
    let all = list(Filter::default()).await?;
    let wanted = [
        (saga(1), Status::Completed),
        (saga(2), Status::Started),
        (saga(3), Status::Parked),
        (saga(4), Status::Started),
    ];
    expect(all == wanted, || {
        format!("{all:?} are listed, not {wanted:?}")
    })?;
    let open = list(Filter::open()).await?;
    expect(open == wanted[1..], || format!("{open:?} are open"))?;
    let parked = list(Filter::of(Status::Parked)).await?;
    expect(parked == wanted[2..3], || format!("{parked:?} are parked"))?;
    let page = list(Filter::default().after(Some(saga(1))).limit(2)).await?;
    expect(page == wanted[1..3], || {
        format!("{page:?} is the second page")
    })?;
    let elsewhere = store
        .list(&Filter::default().partition(Partition(9)))
        .await?;
    expect(elsewhere.is_empty(), || {
        format!("{elsewhere:?} in an empty partition")
    })
}

pub(super) async fn the_last_snapshot_is_read(store: Store) -> Checked {
    let (claim, saga) = (claim(&store).await?, saga(1));
    store.append(claim, &start(saga)).await?;
    let none = store.load_snapshot(saga).await?;
    expect(none.is_none(), || format!("{none:?} before any was saved"))?;
    for bytes in [b"first".to_vec(), b"second".to_vec()] {
        let snapshot = Snapshot::new(Version(1), bytes);
        store.save_snapshot(saga, snapshot.clone()).await?;
        let found = store.load_snapshot(saga).await?;
        expect(found.as_ref() == Some(&snapshot), || {
            format!("{found:?}, not {snapshot:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn sagas_do_not_mix(store: Store) -> Checked {
    let claim = claim(&store).await?;
    store.append(claim, &start(saga(1))).await?;
    store.append(claim, &start(saga(2))).await?;
    store.append(claim, &more(saga(1), 1, &["one"])).await?;
    store.append(claim, &more(saga(2), 1, &["two"])).await?;
    for (number, reason) in [(1, "one"), (2, "two")] {
        let found = store.load(saga(number), Version(0)).await?;
        let own = found.last().is_some_and(|last| last.event == note(reason));
        expect(own, || format!("saga {number} has {found:?}"))?;
    }
    let found = store.load(saga(3), Version(0)).await?;
    expect(found.is_empty(), || {
        format!("an unknown saga has {found:?}")
    })
}

/// Long enough for any store to answer meanwhile.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for, and longer than a store takes to answer.
const SHORT: Duration = Duration::from_millis(250);

pub(super) async fn a_lease_keeps_others_out(store: Store) -> Checked {
    let Some(first) = store.lease(HERE, "first", LONG).await? else {
        return Err(Violation::new("a free partition is not leased"));
    };
    let second = store.lease(HERE, "second", LONG).await?;
    expect(second.is_none(), || format!("{second:?} beside {first:?}"))?;
    let other = store.lease(Partition(4), "second", LONG).await?;
    expect(other.is_some(), || {
        "another partition is not leased".to_owned()
    })?;
    let holders = store.holders().await?;
    let named: Vec<_> = holders
        .iter()
        .map(|it| (it.claim.partition, &*it.owner))
        .collect();
    expect(named == [(HERE, "first"), (Partition(4), "second")], || {
        format!("{holders:?} where first has 3 and second has 4")
    })?;
    store.renew(first, LONG).await?;
    store.release(first).await?;
    let second = store.lease(HERE, "second", LONG).await?;
    let higher = second.is_some_and(|second| second.epoch > first.epoch);
    expect(higher, || {
        format!("{second:?} after {first:?} was given up")
    })
}

pub(super) async fn a_lease_that_was_lost_is_not_renewed(store: Store) -> Checked {
    let Some(first) = store.lease(HERE, "first", LONG).await? else {
        return Err(Violation::new("a free partition is not leased"));
    };
    let second = store.claim(HERE, "second").await?;
    let late = store.renew(first, LONG).await;
    refused(&late, ErrorKind::Fenced, "renewing a lease that was taken")?;
    store.release(first).await?;
    let third = store.lease(HERE, "third", LONG).await?;
    expect(third.is_none(), || {
        format!("{third:?} while {second:?} lasts, after an older lease was given up")
    })
}

pub(super) async fn a_lease_ends_with_its_term(store: Store) -> Checked {
    let Some(first) = store.lease(HERE, "first", SHORT).await? else {
        return Err(Violation::new("a free partition is not leased"));
    };
    for _ in 0..200 {
        tokio::time::sleep(SHORT / 10).await;
        if let Some(second) = store.lease(HERE, "second", LONG).await? {
            return expect(second.epoch > first.epoch, || {
                format!("{second:?} after {first:?}")
            });
        }
    }
    Err(Violation::new(format!("{first:?} lasts for ever")))
}

pub(super) async fn the_stream_passes_every_event_once(store: Store) -> Checked {
    let claim = claim(&store).await?;
    let mut expected: HashMap<SagaId, Vec<Version>> = HashMap::new();
    let mut seen: HashMap<SagaId, Vec<Version>> = HashMap::new();
    let mut position = Position::START;
    for round in 0..6_u64 {
        for number in 1..=3 {
            let append = match round {
                0 => start(saga(number)),
                _ => more(saga(number), round * 2 - 1, &["one", "two"]),
            };
            store.append(claim, &append).await?;
            let versions = append.expected.0 + 1..=append.version().0;
            expected
                .entry(saga(number))
                .or_default()
                .extend(versions.map(Version));
        }
        // What cannot be passed yet is passed later.
        for entry in store.read(position, 4).await? {
            expect(entry.position > position, || {
                format!("{entry:?} after {position:?}")
            })?;
            position = entry.position;
            seen.entry(entry.saga)
                .or_default()
                .push(entry.recorded.version);
        }
    }
    for _ in 0..200 {
        let entries = store.read(position, 100).await?;
        for entry in entries {
            expect(entry.position > position, || {
                format!("{entry:?} after {position:?}")
            })?;
            position = entry.position;
            let loaded = store
                .load(entry.saga, Version(entry.recorded.version.0 - 1))
                .await?;
            expect(loaded.first() == Some(&entry.recorded), || {
                format!("{entry:?} where the log has {:?}", loaded.first())
            })?;
            seen.entry(entry.saga)
                .or_default()
                .push(entry.recorded.version);
        }
        if seen == expected {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Violation::new(format!(
        "{seen:?} where {expected:?} was appended"
    )))
}

pub(super) async fn a_definition_is_kept_as_it_was_first(store: Store) -> Checked {
    let none = store.definition("one").await?;
    expect(none.is_none(), || format!("{none:?} before any was kept"))?;
    let blueprint = |hash: &str, text: &str| Blueprint::new(Arc::from(hash), json!(text).into());
    for (hash, text) in [("one", "first"), ("two", "other"), ("one", "again")] {
        store.define(&blueprint(hash, text)).await?;
    }
    for (hash, text) in [("one", "first"), ("two", "other")] {
        let found = store.definition(hash).await?;
        expect(found == Some(blueprint(hash, text)), || {
            format!("{hash} is {found:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_purge_forgets_what_ended_before(store: Store) -> Checked {
    let claim = claim(&store).await?;
    let key = IdempotencyKey::new("purged").map_err(|error| Violation::new(error.to_string()))?;
    for number in 1..=4 {
        let start = start(saga(number)).wake(Some(at(5)));
        let start = start.start_key((number == 1).then(|| key.clone()));
        store.append(claim, &start).await?;
    }
    for (number, second) in [(1, 10), (2, 20), (3, 10)] {
        let mut end = more(saga(number), 1, &["end"]).status(Status::Completed);
        end.at = at(second);
        store.append(claim, &end).await?;
    }
    let old = store.purge(claim, at(10), 10).await?;
    expect(old == 0, || {
        format!("{old} purged that ended at that moment")
    })?;
    let one = store.purge(claim, at(15), 1).await?;
    let more = store.purge(claim, at(15), 10).await?;
    expect((one, more) == (1, 1), || {
        format!("{one} and {more} purged of two")
    })?;
    for (number, events) in [(1, 0), (2, 2), (3, 0), (4, 1)] {
        let found = store.load(saga(number), Version(0)).await?.len();
        expect(found == events, || {
            format!("saga {number} has {found} events, not {events}")
        })?;
    }
    let left: Vec<_> = store.list(&Filter::default().partition(HERE)).await?;
    let left: Vec<_> = left.into_iter().map(|line| line.saga).collect();
    expect(left == [saga(2), saga(4)], || {
        format!("{left:?} are listed")
    })?;
    let named = store.find_start(&key).await?;
    expect(named.is_none(), || {
        format!("the start key still names {named:?}")
    })?;
    let streamed = store.read(Position::START, 100).await?;
    let gone = streamed
        .iter()
        .find(|entry| [saga(1), saga(3)].contains(&entry.saga));
    expect(gone.is_none(), || {
        format!("{gone:?} is still in the stream")
    })
}
