//! What becomes of a key after its messages were tried, decided from what is known.

use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::{Backoff, ErrorClass};

use super::{Message, Next, Poison};
use crate::error::{Error, ErrorKind};

/// The rules of a relay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) tries: NonZeroU32,
    pub(super) backoff: Backoff,
    pub(super) poison: Poison,
}

/// How far a key got.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress<'a> {
    /// How often its first message had failed before.
    pub(super) failures: u32,
    /// Whether anything was sent, so that another message is the first now.
    pub(super) advanced: bool,
    /// The message at which it ended, and why.
    pub(super) stopped: Option<(&'a Message, &'a Error)>,
    /// Whether the broker took another message while it did not take this one.
    pub(super) others_pass: bool,
}

/// How the key goes on.
///
/// A message is parked only on evidence against *it*: that the broker refuses it, or is silent about it
/// while others pass. While the broker is away from everybody nothing is counted, so an outage of any
/// length parks nothing.
pub(super) fn judge(progress: &Progress<'_>, rules: &Rules, draw: u64) -> Next {
    let Some((message, error)) = progress.stopped else {
        // A first message that was not even tried keeps its count.
        return match progress.failures {
            failures @ 1.. if !progress.advanced => Next::After {
                delay: Duration::ZERO,
                failures,
            },
            _ => Next::Due,
        };
    };
    let before = if progress.advanced {
        0
    } else {
        progress.failures
    };
    let park = || Next::Park {
        id: message.id().clone(),
        error: error.to_string(),
        holds: rules.poison == Poison::Hold,
    };
    let after = |failures: u32| Next::After {
        delay: rules.backoff.delay(failures.max(1), Duration::ZERO, draw),
        failures,
    };
    match error.class() {
        ErrorClass::Permanent => park(),
        ErrorClass::Throttled { after: Some(delay) } => Next::After {
            delay,
            failures: before,
        },
        ErrorClass::Throttled { after: None } => after(before),
        _ if error.kind() == ErrorKind::Unavailable && !progress.others_pass => after(before),
        _ if before.saturating_add(1) >= rules.tries.get() => park(),
        _ => after(before + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::MessageId;

    fn message() -> Message {
        let message = Message::new("topic", "key", "").expect("valid");
        message.with_id(MessageId::new("m-1").expect("valid"))
    }

    fn rules(poison: Poison) -> Rules {
        Rules {
            tries: NonZeroU32::new(3).expect("three"),
            backoff: Backoff::fixed(Duration::from_secs(2)),
            poison,
        }
    }

    fn judged(failures: u32, advanced: bool, kind: ErrorKind, others_pass: bool) -> Next {
        let (message, error) = (message(), Error::new(kind, "no"));
        let progress = Progress {
            failures,
            advanced,
            stopped: Some((&message, &error)),
            others_pass,
        };
        judge(&progress, &rules(Poison::StepAside), 0)
    }

    fn again(failures: u32) -> Next {
        let delay = Duration::from_secs(2);
        Next::After { delay, failures }
    }

    #[test]
    fn a_refusal_counts_and_the_last_try_parks() {
        assert_eq!(judged(0, false, ErrorKind::Undelivered, false), again(1));
        assert_eq!(judged(1, false, ErrorKind::Undelivered, false), again(2));
        let parked = judged(2, false, ErrorKind::Undelivered, false);
        assert!(matches!(parked, Next::Park { ref id, holds: false, .. } if id.as_str() == "m-1"));
    }

    #[test]
    fn what_failed_before_was_another_message_if_any_was_sent() {
        assert_eq!(judged(2, true, ErrorKind::Undelivered, true), again(1));
    }

    #[test]
    fn an_outage_is_held_against_no_message() {
        assert_eq!(judged(2, false, ErrorKind::Unavailable, false), again(2));
        assert_eq!(judged(0, false, ErrorKind::Overloaded, false), again(0));
    }

    #[test]
    fn silence_about_one_message_while_others_pass_counts() {
        assert_eq!(judged(0, false, ErrorKind::Unavailable, true), again(1));
        let parked = judged(2, false, ErrorKind::Unavailable, true);
        assert!(matches!(parked, Next::Park { .. }));
    }

    #[test]
    fn what_can_never_be_sent_is_parked_at_once() {
        let parked = judged(0, false, ErrorKind::InvalidMessage, false);
        assert!(matches!(parked, Next::Park { .. }));
    }

    #[test]
    fn a_relay_that_holds_says_so() {
        let (message, error) = (message(), Error::new(ErrorKind::InvalidMessage, "no"));
        let progress = Progress {
            failures: 0,
            advanced: false,
            stopped: Some((&message, &error)),
            others_pass: true,
        };
        let next = judge(&progress, &rules(Poison::Hold), 0);
        assert!(matches!(next, Next::Park { holds: true, .. }));
    }

    #[test]
    fn a_key_that_did_not_fail_is_due_and_one_that_was_not_tried_keeps_its_count() {
        let ended = |failures, advanced| {
            let progress = Progress {
                failures,
                advanced,
                stopped: None,
                others_pass: false,
            };
            judge(&progress, &rules(Poison::StepAside), 0)
        };
        assert_eq!(ended(0, false), Next::Due);
        assert_eq!(ended(2, true), Next::Due);
        let delay = Duration::ZERO;
        assert_eq!(ended(2, false), Next::After { delay, failures: 2 });
    }
}
