//! What the registries that are kept in a store of texts share: the bounds, and how a lease is refused.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::instance::Registration;
use crate::registry::Lease;

/// The longest text of labels, locality and probe together.
const MAX_TEXT: usize = 4 * 1024;

/// Refuses a ttl of zero, one above `max_ttl`, and more text than fits a record.
pub(super) fn check(asked: &Registration, max_ttl: Duration) -> Result<()> {
    let Registration {
        service, id, ttl, ..
    } = asked;
    let invalid = |message| Err(Error::new(ErrorKind::Invalid, message));
    if ttl.is_zero() || *ttl > max_ttl {
        return invalid(format!(
            "ttl of instance {id} of service {service} is {ttl:?}, not in 0..={max_ttl:?}"
        ));
    }
    let path = asked.probe.path.as_deref().map_or(0, str::len);
    let text = asked.labels.to_string().len() + asked.locality.to_string().len() + path;
    if text > MAX_TEXT {
        return invalid(format!(
            "labels, locality and probe of instance {id} of service {service} take {text} bytes of {MAX_TEXT}"
        ));
    }
    Ok(())
}

pub(super) fn lost(lease: &Lease) -> Error {
    let Lease { service, id, .. } = lease;
    let message = format!("the lease of instance {id} of service {service} is gone");
    Error::new(ErrorKind::LeaseLost, message)
}

pub(super) fn replaced(lease: &Lease, by: impl std::fmt::Display) -> Error {
    let message = format!(
        "incarnation {} of instance {} of service {} was replaced by {by}",
        lease.incarnation, lease.id, lease.service
    );
    Error::new(ErrorKind::Replaced, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Registration {
        let (service, id) = ("a".parse().unwrap(), "a-1".parse().unwrap());
        let endpoint = "127.0.0.1:80".parse().unwrap();
        Registration::new(service, id, endpoint, Duration::from_secs(3))
    }

    #[test]
    fn bounds_are_inclusive() {
        let max = Duration::from_secs(3);
        assert!(check(&asked(), max).is_ok());
        let mut zero = asked();
        zero.ttl = Duration::ZERO;
        let mut long = asked();
        long.ttl = max + Duration::from_nanos(1);
        let probe = |length: usize| crate::ProbeTarget::default().path("x".repeat(length));
        let room = MAX_TEXT - asked().locality.to_string().len();
        assert!(check(&asked().probe(probe(room)), max).is_ok());
        for refused in [zero, long, asked().probe(probe(room + 1))] {
            let error = check(&refused, max).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
