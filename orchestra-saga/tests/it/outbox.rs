//! The outbox: laws, what a relay does about failures, and crashes between any two of its steps.

#[cfg(feature = "test-util")]
mod conforming;
mod crashing;
mod failing;
#[cfg(feature = "sqlite")]
mod inbox;
#[cfg(feature = "sqlite")]
mod killing;
mod sharing;
mod world;

use orchestra_saga::ErrorKind;
use orchestra_saga::outbox::{MAX_HEADER, MAX_HEADERS, MAX_PAYLOAD, Message, MessageId};

#[test]
fn what_is_no_message_is_refused() {
    let valid = Message::new("orders.paid", "caf\u{e9} 7", "x").expect("valid");
    let long = "x".repeat(256);
    let mut refused = vec![
        Message::new("", "key", ""),
        Message::new("a..b", "key", ""),
        Message::new("a b", "key", ""),
        Message::new("orders.*", "key", ""),
        Message::new("orders.>", "key", ""),
        Message::new(&long, "key", ""),
        Message::new("topic", "", ""),
        Message::new("topic", "two\nlines", ""),
        Message::new("topic", &long, ""),
        Message::new("topic", "key", vec![0; MAX_PAYLOAD + 1]),
        valid.clone().header("", "x"),
        valid.clone().header("a b", "x"),
        valid.clone().header("name", "x\r\nother: y"),
        valid.clone().header("name", "x".repeat(MAX_HEADER)),
    ];
    let mut full = valid;
    for number in 0..MAX_HEADERS {
        full = full.header("name", number.to_string()).expect("room");
    }
    refused.push(full.header("name", "one more"));
    for answer in refused {
        let error = answer.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidMessage, "{error}");
        assert!(!error.is_retryable());
    }
    assert!(MessageId::new("").is_err() && MessageId::new("a b").is_err());
    assert_ne!(MessageId::random(), MessageId::random());
}
