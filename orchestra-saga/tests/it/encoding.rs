//! A store whose payloads go through a codec.

use std::sync::Arc;
use std::time::Duration;

use orchestra_saga::store::{Codec, EncodedStore};
use orchestra_saga::{
    Call, Claim, Config, Definition, Epoch, Error, ErrorKind, Executor, MemoryStore, Partition,
    Payload, Position, Result, SagaId, SagaStore, Snapshot, Start, Status, Version,
};

/// Not a cipher, but with the manners of one: bound to the saga, and nothing altered passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Veil;

fn stream(saga: SagaId) -> impl Iterator<Item = u8> {
    let mut reader = blake3::Hasher::new_keyed(&[7; 32]);
    reader.update(saga.to_string().as_bytes());
    let mut bytes = reader.finalize_xof();
    std::iter::from_fn(move || {
        let mut byte = [0];
        bytes.fill(&mut byte);
        Some(byte[0])
    })
}

fn seal(saga: SagaId, plain: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&[8; 32]);
    hasher.update(saga.to_string().as_bytes());
    *hasher.update(plain).finalize().as_bytes()
}

impl Codec for Veil {
    fn encode(&self, saga: SagaId, plain: &[u8]) -> Result<Vec<u8>> {
        let mut kept = seal(saga, plain).to_vec();
        kept.extend(
            plain
                .iter()
                .zip(stream(saga))
                .map(|(byte, mask)| byte ^ mask),
        );
        Ok(kept)
    }

    fn decode(&self, saga: SagaId, kept: &[u8]) -> Result<Vec<u8>> {
        let fail = || Error::new(ErrorKind::Corrupt, "not sealed by this key");
        let (found, kept) = kept.split_first_chunk::<32>().ok_or_else(fail)?;
        let plain: Vec<u8> = kept
            .iter()
            .zip(stream(saga))
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        (seal(saga, &plain) == *found)
            .then_some(plain)
            .ok_or_else(fail)
    }
}

fn secretive() -> Definition {
    let mut d = Definition::builder("secretive", "1");
    let card = d.input::<String>();
    let token = d
        .step("tokenize", card, |_: Call, card: String| async move {
            Ok(format!("token of {card}"))
        })
        .compensate(|_: Call, _: String, _: Option<String>| async { Ok(()) });
    let word = d.signal::<String, _>("word", token, "word", Duration::from_secs(60));
    d.step(
        "use",
        (token, word),
        |_: Call, (token, word): (String, String)| async move { Ok(format!("{token} {word}")) },
    )
    .read_only();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn nothing_that_a_saga_carries_is_readable_in_the_store() {
    let inner = Arc::<MemoryStore>::default();
    let mut config = Config::default();
    config.persistence.snapshot_every = 1;
    let build = async || {
        let store = EncodedStore::new(Arc::clone(&inner), Veil);
        let builder = Executor::builder(store)
            .config(config)
            .definition(secretive());
        builder.build().await.expect("built")
    };
    let first = build().await;
    let start = Start::of("secretive").input(&"4111-1111").expect("json");
    let saga = first.start(start).await.expect("started");
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.shutdown().await;
    let kept = inner
        .load_snapshot(saga)
        .await
        .expect("read")
        .expect("one is kept");
    assert!(!String::from_utf8_lossy(&kept.bytes).contains("4111"));
    // Continued by another process, from the snapshot and the log.
    let second = build().await;
    second
        .signal(saga, "word", None, &"4111-abra")
        .await
        .expect("told");
    let view = second.wait(saga).await.expect("ended");
    let used = view.output("use").map(Payload::as_str);
    assert_eq!(used, Some(r#""token of 4111-1111 4111-abra""#));
    let stream = inner.read(Position::START, 100).await.expect("read");
    assert!(stream.len() >= 8);
    for entry in stream {
        assert!(!format!("{:?}", entry.recorded.event).contains("4111"));
    }
    let history = second.history(saga).await.expect("read");
    assert!(
        format!("{history:?}").contains("4111-1111"),
        "its owner reads it"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_codec_did_not_make_is_corrupt_and_a_snapshot_is_passed_over() {
    let inner = Arc::<MemoryStore>::default();
    let plain = Executor::builder(Arc::clone(&inner)).definition(secretive());
    let plain = plain.build().await.expect("built");
    let start = Start::of("secretive").input(&"4111-1111").expect("json");
    let saga = plain.start(start).await.expect("started");
    tokio::time::sleep(Duration::from_secs(5)).await;
    plain.shutdown().await;

    let veiled = EncodedStore::new(Arc::clone(&inner), Veil);
    let found = veiled.load(saga, Version(0)).await.expect_err("not veiled");
    assert_eq!(found.kind(), ErrorKind::Corrupt);
    let found = veiled
        .read(Position::START, 10)
        .await
        .expect_err("not veiled");
    assert_eq!(found.kind(), ErrorKind::Corrupt);
    inner
        .save_snapshot(saga, Snapshot::new(Version(1), b"{}".to_vec()))
        .await
        .expect("saved");
    assert_eq!(veiled.load_snapshot(saga).await.expect("read"), None);
}

#[tokio::test(start_paused = true)]
async fn what_one_saga_carries_does_not_pass_in_another() {
    let inner = Arc::<MemoryStore>::default();
    let store = EncodedStore::new(Arc::clone(&inner), Veil);
    let executor = Executor::builder(store).definition(secretive());
    let executor = executor.build().await.expect("built");
    let start = Start::of("secretive").input(&"4111-1111").expect("json");
    let saga = executor.start(start).await.expect("started");
    tokio::time::sleep(Duration::from_secs(5)).await;
    executor.shutdown().await;
    let log = inner.load(saga, Version(0)).await.expect("read");
    let events: Vec<_> = log.into_iter().map(|recorded| recorded.event).collect();
    let other = SagaId::from_bytes([9; 16]);
    let at = orchestra_core::Timestamp::from_unix_nanos(1);
    let copy = orchestra_saga::Append::new(other, Version(0), at, events).status(Status::Started);
    inner
        .append(Claim::new(Partition(0), Epoch(1)), &copy)
        .await
        .expect("appended");
    let veiled = EncodedStore::new(inner, Veil);
    let found = veiled
        .load(other, Version(0))
        .await
        .expect_err("of another");
    assert_eq!(found.kind(), ErrorKind::Corrupt);
}
