use futures_util::future::join_all;

use super::{Checked, Published, expect};
use crate::error::Result;
use crate::outbox::{Message, MessageId};

impl Published {
    fn message(&self, key: &str, number: u32) -> Result<Message> {
        let id = MessageId::new(format!("{}-{number}", self.topic))?;
        let payload = format!("{key} {number} \u{0}\u{fc}\r\n");
        let message = Message::new(&self.topic, key, payload)?.with_id(id);
        message
            .header("Number", number.to_string())?
            .header("Name", "caf\u{e9}")
    }

    async fn expect(&self, wanted: &[Message]) -> Checked {
        let seen = self.reader.read(wanted.len() + 1).await?;
        expect(seen == wanted, || {
            format!("{seen:?} where {wanted:?} was published")
        })
    }
}

pub(super) async fn an_accepted_message_is_there_whole(subject: Published) -> Checked {
    let message = subject.message("caf\u{e9} 7", 1)?;
    subject.publisher.publish(&message).await?;
    subject.expect(&[message]).await
}

pub(super) async fn messages_keep_their_order(subject: Published) -> Checked {
    let mut wanted = Vec::new();
    for number in 0..20 {
        let message = subject.message("key", number)?;
        subject.publisher.publish(&message).await?;
        wanted.push(message);
    }
    subject.expect(&wanted).await
}

pub(super) async fn a_repetition_is_no_error_and_shown_once(subject: Published) -> Checked {
    let (first, second) = (subject.message("key", 1)?, subject.message("key", 2)?);
    for message in [&first, &first, &second, &first] {
        subject.publisher.publish(message).await?;
    }
    if subject.publisher.deduplicates() {
        return subject.expect(&[first, second]).await;
    }
    let seen = subject.reader.read(4).await?;
    let place = |wanted: &Message| seen.iter().position(|message| message == wanted);
    let in_order = matches!((place(&first), place(&second)), (Some(a), Some(b)) if a < b);
    expect(in_order, || format!("{seen:?} after repetitions"))
}

pub(super) async fn messages_at_once_all_arrive(subject: Published) -> Checked {
    let wanted = (0..16)
        .map(|number| subject.message(&format!("key-{number}"), number))
        .collect::<Result<Vec<_>>>()?;
    let publishing = wanted
        .iter()
        .map(|message| subject.publisher.publish(message));
    join_all(publishing)
        .await
        .into_iter()
        .collect::<Result<()>>()?;
    let mut seen = subject.reader.read(wanted.len() + 1).await?;
    seen.sort_by(|a, b| a.headers().cmp(b.headers()));
    let mut wanted = wanted;
    wanted.sort_by(|a, b| a.headers().cmp(b.headers()));
    expect(seen == wanted, || {
        format!("{seen:?} where {wanted:?} were published at once")
    })
}
