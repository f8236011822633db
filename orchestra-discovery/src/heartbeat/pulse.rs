//! The pure part: what to do next, and how long to wait for it.

use std::time::Duration;

use orchestra_core::{Backoff, Jitter};

use crate::error::{Error, ErrorKind};
use crate::registry::Lease;

pub(super) enum Act {
    Register,
    Renew(Lease),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Wait(Duration),
    End,
}

#[derive(Debug)]
pub(super) struct Pulse {
    ttl: Duration,
    lease: Option<Lease>,
    was_held: bool,
    /// A registration got no answer: it may still arrive, behind one that was answered.
    may_be_late: bool,
    failures: u32,
}

impl Pulse {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            lease: None,
            was_held: false,
            may_be_late: false,
            failures: 0,
        }
    }

    pub(super) fn interval(&self) -> Duration {
        self.ttl / 3
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub(super) fn act(&self) -> Act {
        self.lease.clone().map_or(Act::Register, Act::Renew)
    }

    pub(super) fn held(&mut self, lease: Lease, draw: u64) -> Next {
        if self.lease.replace(lease).is_some() {
            // It held for an interval: whoever replaces it now is somebody else.
            self.may_be_late = false;
        }
        self.was_held = true;
        self.failures = 0;
        Next::Wait(self.spread(draw))
    }

    /// Up to a tenth less than the interval, so that processes started together do not renew together.
    fn spread(&self, draw: u64) -> Duration {
        let tenth = Backoff::fixed(self.interval() / 10).jitter(Jitter::Full);
        let less = tenth.delay(1, Duration::ZERO, draw);
        self.interval().saturating_sub(less)
    }

    pub(super) fn failed(&mut self, error: &Error, draw: u64) -> Next {
        self.failures = self.failures.saturating_add(1);
        match error.kind() {
            ErrorKind::Replaced if std::mem::take(&mut self.may_be_late) => {
                self.lease = None;
                return Next::Wait(Duration::ZERO);
            }
            ErrorKind::Replaced => return self.end(),
            ErrorKind::LeaseLost => self.lease = None,
            // Who never got in is told so; who once was in outlives a registry that is being repaired.
            _ if !self.was_held && !error.is_retryable() => return self.end(),
            _ if self.lease.is_none() => self.may_be_late = true,
            _ => {}
        }
        // A lapsed lease is registered anew at once: every moment without it is a moment unlisted.
        if error.kind() == ErrorKind::LeaseLost && self.failures == 1 {
            return Next::Wait(Duration::ZERO);
        }
        let asked = error.class().retry_after().unwrap_or_default();
        Next::Wait(self.backoff(draw).max(asked))
    }

    fn end(&mut self) -> Next {
        self.lease = None;
        Next::End
    }

    fn backoff(&self, draw: u64) -> Duration {
        let interval = self.interval();
        Backoff::exponential(interval / 16, 2.0)
            .cap(interval)
            .jitter(Jitter::Equal)
            .delay(self.failures, Duration::ZERO, draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Incarnation;

    const TTL: Duration = Duration::from_secs(30);

    fn lease() -> Lease {
        let (service, id) = ("a".parse().unwrap(), "a-1".parse().unwrap());
        Lease::new(service, id, Incarnation::new(1), TTL)
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "no")
    }

    #[test]
    fn renews_within_a_third_of_the_ttl() {
        for draw in [0, u64::MAX / 2, u64::MAX] {
            let next = Pulse::new(TTL).held(lease(), draw);
            let Next::Wait(wait) = next else {
                panic!("{next:?}");
            };
            assert!(
                (Duration::from_secs(9)..=Duration::from_secs(10)).contains(&wait),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn retries_fit_into_the_ttl_many_times() {
        let mut pulse = Pulse::new(TTL);
        pulse.held(lease(), 0);
        let waits = (0..8).map(|_| match pulse.failed(&error(ErrorKind::Unavailable), 0) {
            Next::Wait(wait) => wait,
            Next::End => panic!("a transient failure is no end"),
        });
        let waits: Vec<_> = waits.collect();
        assert!(waits.iter().all(|wait| *wait <= TTL / 3), "{waits:?}");
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    }

    #[test]
    fn lost_lease_is_registered_anew_at_once() {
        let mut pulse = Pulse::new(TTL);
        pulse.held(lease(), 0);
        assert_eq!(
            pulse.failed(&error(ErrorKind::LeaseLost), 0),
            Next::Wait(Duration::ZERO)
        );
        assert!(matches!(pulse.act(), Act::Register));
    }

    #[test]
    fn replaced_lease_ends_it() {
        let mut pulse = Pulse::new(TTL);
        pulse.held(lease(), 0);
        assert_eq!(pulse.failed(&error(ErrorKind::Replaced), 0), Next::End);
        assert_eq!(pulse.lease(), None);
    }

    #[test]
    fn first_refusal_ends_it_and_a_later_one_does_not() {
        let refused = error(ErrorKind::Unauthorized);
        assert_eq!(Pulse::new(TTL).failed(&refused, 0), Next::End);
        let mut pulse = Pulse::new(TTL);
        pulse.held(lease(), 0);
        assert!(matches!(pulse.failed(&refused, 0), Next::Wait(_)));
    }
}
