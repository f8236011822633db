use std::sync::Arc;
use std::time::Duration;

use super::{Checked, Written, expect};
use crate::error::Result;
use crate::outbox::{Batch, Lane, Message, MessageId, Next, Settled};

/// Clocks of databases are read by the millisecond.
const TICK: Duration = Duration::from_millis(5);
const SHORT: Duration = Duration::from_millis(150);

fn message(key: &str, number: u32) -> Result<Message> {
    let id = MessageId::new(format!("{key}-{number}"))?;
    let message = Message::new("conformance", key, vec![b'x'; 100])?.with_id(id);
    message.header("Name", "caf\u{e9}")
}

fn messages(key: &str, numbers: std::ops::Range<u32>) -> Result<Vec<Message>> {
    numbers.map(|number| message(key, number)).collect()
}

fn ids(lane: &Lane) -> Vec<&str> {
    lane.messages
        .iter()
        .map(|message| message.id().as_str())
        .collect()
}

/// Does with a loan what is said, its first messages having been sent.
fn settled(lane: &Lane, sent: usize, next: Next) -> Settled {
    let sent = lane.messages.iter().take(sent);
    Settled {
        key: Arc::clone(&lane.key),
        token: lane.token,
        sent: sent.map(|message| message.id().clone()).collect(),
        next,
    }
}

fn park(lane: &Lane, holds: bool) -> Result<Next> {
    let first = lane.messages.first().map(|message| message.id().as_str());
    Ok(Next::Park {
        id: MessageId::new(first.unwrap_or("none"))?,
        error: "refused".to_owned(),
        holds,
    })
}

impl Written {
    async fn write(&self, messages: Vec<Message>) -> Result<()> {
        self.writer.write(&messages).await
    }

    async fn claim(&self) -> Result<Vec<Lane>> {
        self.backlog.claim(&Batch::new("conformance")).await
    }

    /// The loan of the only key there is.
    async fn one(&self) -> std::result::Result<Lane, super::Violation> {
        let mut lanes = self.claim().await?;
        expect(lanes.len() == 1, || format!("{lanes:?}, not one loan"))?;
        Ok(lanes.remove(0))
    }

    /// The ids of what is lent of the only key there is, which is given back.
    async fn expect(&self, wanted: &[&str]) -> Checked {
        let lane = self.one().await?;
        expect(ids(&lane) == wanted, || {
            format!("{:?} was lent, not {wanted:?}", ids(&lane))
        })?;
        self.settle(&lane, 0, Next::Due).await
    }

    async fn expect_none(&self, when: &str) -> Checked {
        let lanes = self.claim().await?;
        expect(lanes.is_empty(), || format!("{lanes:?} was lent {when}"))
    }

    async fn settle(&self, lane: &Lane, sent: usize, next: Next) -> Checked {
        let lost = self.backlog.settle(&[settled(lane, sent, next)]).await?;
        expect(lost.is_empty(), || {
            format!("the loans of {lost:?} were over")
        })
    }
}

pub(super) async fn a_key_is_lent_to_one_at_a_time(subject: Written) -> Checked {
    subject
        .write(vec![message("a", 0)?, message("b", 0)?])
        .await?;
    let lanes = subject.claim().await?;
    let mut keys: Vec<_> = lanes.iter().map(|lane| &*lane.key).collect();
    keys.sort_unstable();
    expect(keys == ["a", "b"], || {
        format!("{keys:?} of two keys was lent")
    })?;
    subject.expect_none("twice").await?;
    for lane in &lanes {
        if &*lane.key == "a" {
            subject.settle(lane, 0, Next::Due).await?;
        }
    }
    subject.expect(&["a-0"]).await
}

pub(super) async fn the_key_that_waited_longest_comes_first(subject: Written) -> Checked {
    let mut batch = Batch::new("conformance");
    batch.lanes = 1;
    for key in ["b", "c", "a"] {
        subject.write(messages(key, 0..2)?).await?;
        tokio::time::sleep(TICK).await;
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        for lane in subject.backlog.claim(&batch).await? {
            subject.settle(&lane, 1, Next::Due).await?;
            seen.push(lane.key.to_string());
        }
        tokio::time::sleep(TICK).await;
    }
    expect(seen == ["b", "c", "a", "b"], || {
        format!("keys were lent as {seen:?}")
    })
}

pub(super) async fn messages_are_lent_in_their_order(subject: Written) -> Checked {
    let wanted = messages("a", 0..5)?;
    subject.write(wanted.clone()).await?;
    let mut batch = Batch::new("conformance");
    batch.messages = 3;
    for lane in subject.backlog.claim(&batch).await? {
        expect(
            wanted.starts_with(&lane.messages) && lane.messages.len() == 3,
            || format!("{:?} was lent of {wanted:?}", lane.messages),
        )?;
        subject.settle(&lane, 2, Next::Due).await?;
    }
    subject.expect(&["a-2", "a-3", "a-4"]).await
}

pub(super) async fn a_batch_ends_at_its_bytes(subject: Written) -> Checked {
    subject.write(messages("a", 0..4)?).await?;
    for (bytes, count) in [(1, 1), (100, 1), (101, 2), (250, 3), (1_000, 4)] {
        let mut batch = Batch::new("conformance");
        batch.bytes = bytes;
        for lane in subject.backlog.claim(&batch).await? {
            expect(lane.messages.len() == count, || {
                format!("{} of 100 bytes were lent for {bytes}", lane.messages.len())
            })?;
            subject.settle(&lane, 0, Next::Due).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_loan_that_is_over_changes_nothing(subject: Written) -> Checked {
    subject.write(messages("a", 0..2)?).await?;
    let mut batch = Batch::new("conformance");
    batch.term = SHORT;
    let first = subject.backlog.claim(&batch).await?;
    let Some(first) = first.first() else {
        return expect(false, || "nothing was lent".to_owned());
    };
    tokio::time::sleep(SHORT + TICK).await;
    let late = subject
        .backlog
        .settle(&[settled(first, 1, Next::Due)])
        .await?;
    expect(*late == [Arc::from("a")], || {
        format!("{late:?} was named of a loan that was over")
    })?;
    let second = subject.one().await?;
    let late = subject
        .backlog
        .settle(&[settled(first, 2, park(first, true)?)])
        .await?;
    expect(*late == [Arc::from("a")], || {
        format!("{late:?} was named of a loan that was lost")
    })?;
    subject.expect_none("although a loan lasts").await?;
    subject.settle(&second, 0, Next::Due).await?;
    subject.expect(&["a-0", "a-1"]).await
}

pub(super) async fn what_is_written_meanwhile_is_lent_later(subject: Written) -> Checked {
    subject.write(messages("a", 0..1)?).await?;
    let lane = subject.one().await?;
    subject.write(messages("a", 1..2)?).await?;
    subject.settle(&lane, 1, Next::Due).await?;
    let lane = subject.one().await?;
    expect(ids(&lane) == ["a-1"], || {
        format!("{:?} was lent", ids(&lane))
    })?;
    subject.settle(&lane, 1, Next::Due).await?;
    subject.expect_none("although all was sent").await?;
    subject.write(messages("a", 2..3)?).await?;
    subject.expect(&["a-2"]).await
}

pub(super) async fn a_key_waits_as_long_as_it_is_told(subject: Written) -> Checked {
    subject.write(messages("a", 0..2)?).await?;
    let lane = subject.one().await?;
    let (delay, failures) = (SHORT, 3);
    subject
        .settle(&lane, 1, Next::After { delay, failures })
        .await?;
    subject.write(messages("a", 2..3)?).await?;
    subject.expect_none("before its time").await?;
    tokio::time::sleep(SHORT + TICK).await;
    let lane = subject.one().await?;
    expect(lane.failures == 3 && ids(&lane) == ["a-1", "a-2"], || {
        format!("{lane:?} was lent after three failures")
    })?;
    subject.settle(&lane, 1, Next::Due).await?;
    let lane = subject.one().await?;
    expect(lane.failures == 0, || format!("{} failures", lane.failures))
}

pub(super) async fn a_parked_message_steps_aside_until_somebody_decides(
    subject: Written,
) -> Checked {
    subject.write(messages("a", 0..4)?).await?;
    for _ in 0..2 {
        let lane = subject.one().await?;
        subject.settle(&lane, 0, park(&lane, false)?).await?;
        tokio::time::sleep(TICK).await;
    }
    let parked = subject.backlog.parked(10).await?;
    let seen: Vec<_> = parked.iter().map(|parked| parked.message.clone()).collect();
    expect(seen == messages("a", 0..2)?, || {
        format!("{seen:?} is parked")
    })?;
    expect(
        parked.iter().all(|parked| parked.error == "refused"),
        || format!("{parked:?}"),
    )?;
    subject.expect(&["a-2", "a-3"]).await?;
    let id = |text: &str| MessageId::new(text);
    let decided = [
        subject.backlog.retry(&id("a-0")?).await?,
        subject.backlog.discard(&id("a-1")?).await?,
    ];
    expect(decided == [true; 2], || {
        format!("{decided:?} of two parked messages")
    })?;
    let again = [
        subject.backlog.retry(&id("a-0")?).await?,
        subject.backlog.discard(&id("a-2")?).await?,
    ];
    expect(again == [false; 2], || {
        format!("{again:?} of two that are not parked")
    })?;
    subject.expect(&["a-0", "a-2", "a-3"]).await?;
    let left = subject.backlog.parked(10).await?;
    expect(left.is_empty(), || format!("{left:?} is parked"))
}

pub(super) async fn a_key_that_is_held_waits_for_the_decision(subject: Written) -> Checked {
    subject.write(messages("a", 0..3)?).await?;
    for decision in ["retry", "discard"] {
        let lane = subject.one().await?;
        subject.settle(&lane, 0, park(&lane, true)?).await?;
        subject.expect_none("although it is held").await?;
        let id = MessageId::new("a-0")?;
        let decided = match decision {
            "retry" => subject.backlog.retry(&id).await?,
            _ => subject.backlog.discard(&id).await?,
        };
        expect(decided, || format!("there was nothing to {decision}"))?;
    }
    subject.write(messages("a", 3..4)?).await?;
    subject.expect(&["a-1", "a-2", "a-3"]).await
}

pub(super) async fn an_id_is_written_once(subject: Written) -> Checked {
    subject.write(messages("a", 0..2)?).await?;
    subject.write(messages("a", 0..3)?).await?;
    subject.expect(&["a-0", "a-1", "a-2"]).await
}
