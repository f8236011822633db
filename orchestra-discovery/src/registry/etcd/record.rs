//! The pure part of what is stored: keys and values.

use std::time::Duration;

use orchestra_core::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Instance, Override, Registration};
use crate::source::Scope;

/// The longest prefix in bytes.
const MAX_PREFIX: usize = 512;
/// The longest value that is written for a new registration: labels, locality and all.
const MAX_WRITTEN: usize = 16 * 1024;
/// The longest value that is read. A change of status or an override may make a written one some bytes longer.
const MAX_READ: usize = 2 * MAX_WRITTEN;

const OVERRIDE: &str = "override";

/// How the keys of one registry are made.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// It ends with a slash.
    prefix: String,
}

/// What a key below the prefix is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Instance(ServiceName, InstanceId),
    Override,
    Foreign,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Result<Self> {
        let visible = prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=MAX_PREFIX).contains(&prefix.len()) {
            let message = format!("the prefix of keys has 1 to {MAX_PREFIX} visible characters");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let mut prefix = prefix.to_owned();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Self { prefix })
    }

    pub(super) fn instance(&self, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}{service}/{id}", self.prefix)
    }

    pub(super) fn forced(&self, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}{service}/{id}/{OVERRIDE}", self.prefix)
    }

    /// The first key of the scope, and the first one after it: names have no slash, so nothing else is between.
    pub(super) fn range(&self, scope: &Scope) -> (String, String) {
        let mut first = self.prefix.clone();
        if let Scope::Service(service) = scope {
            first.push_str(service.as_str());
            first.push('/');
        }
        let mut end = first.clone();
        end.pop();
        // What follows a slash in ASCII.
        end.push('0');
        (first, end)
    }

    pub(super) fn parse(&self, key: &[u8]) -> Key {
        let text = std::str::from_utf8(key).ok();
        let Some(rest) = text.and_then(|text| text.strip_prefix(&self.prefix)) else {
            return Key::Foreign;
        };
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(_), Some(OVERRIDE), None) => Key::Override,
            (Some(service), Some(id), None, None) => match (service.parse(), id.parse()) {
                (Ok(service), Ok(id)) => Key::Instance(service, id),
                _ => Key::Foreign,
            },
            _ => Key::Foreign,
        }
    }

    /// What an instance's key holds, as of the revision that put it there; nothing if it is not understood.
    pub(super) fn read(&self, key: &[u8], value: &[u8], revision: u64) -> Option<Record> {
        let (service, id) = match self.parse(key) {
            Key::Instance(service, id) => (service, id),
            Key::Override => return None,
            Key::Foreign => {
                let key = &*String::from_utf8_lossy(key);
                tracing::warn!(
                    key,
                    "a key below the registry's prefix is not the registry's"
                );
                return None;
            }
        };
        let reason = match decode(value) {
            Ok(Record::Listed(mut instance)) => {
                if instance.incarnation == UNNUMBERED {
                    instance.incarnation = Incarnation::new(revision);
                }
                if instance.service == service && instance.id == id {
                    return Some(Record::Listed(instance));
                }
                "it is of another instance".to_owned()
            }
            Ok(gone) => return Some(gone),
            Err(reason) => reason,
        };
        tracing::warn!(%service, %id, revision, reason, "the value of an instance is not understood");
        None
    }
}

/// Stands for the revision of the put itself, which nobody knows before.
const UNNUMBERED: Incarnation = Incarnation::new(0);

/// What an instance's key holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Listed(Box<Instance>),
    /// It was given back; the key goes with its lease.
    Gone(Incarnation),
}

impl Record {
    /// What registering puts.
    pub(super) fn new(asked: &Registration, forced: Option<Override>) -> Self {
        let mut instance = asked.instance(UNNUMBERED);
        instance.forced = forced;
        Self::Listed(Box::new(instance))
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Invalid, "an instance cannot be written as json")
                .with_source(error)
        })
    }
}

fn decode(value: &[u8]) -> Result<Record, String> {
    if value.len() > MAX_READ {
        return Err(format!("{} bytes are more than {MAX_READ}", value.len()));
    }
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

/// The value of an override's key; one that is not understood is as good as none.
pub(super) fn read_override(value: &[u8]) -> Option<Override> {
    match serde_json::from_slice(value) {
        Ok(forced) => Some(forced),
        Err(error) => {
            tracing::warn!(%error, "the value of an override is not understood");
            None
        }
    }
}

pub(super) fn write_override(forced: Override) -> Result<Vec<u8>> {
    serde_json::to_vec(&forced).map_err(|error| {
        Error::new(ErrorKind::Invalid, "an override cannot be written as json").with_source(error)
    })
}

/// Refuses what is too large to be stored by many.
pub(super) fn check_size(asked: &Registration) -> Result<()> {
    let size = Record::new(asked, None).encode()?.len();
    if size <= MAX_WRITTEN {
        return Ok(());
    }
    let message = format!(
        "instance {} of service {} takes {size} bytes of {MAX_WRITTEN}",
        asked.id, asked.service
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// The ttl in etcd's seconds, rounded up so that nothing lapses early.
pub(super) fn seconds(asked: &Registration, max_ttl: Duration) -> Result<i64> {
    let ttl = asked.ttl;
    let seconds = ttl
        .as_secs()
        .saturating_add(u64::from(ttl.subsec_nanos() > 0));
    match i64::try_from(seconds) {
        Ok(seconds) if !ttl.is_zero() && ttl <= max_ttl => Ok(seconds),
        _ => {
            let message = format!(
                "ttl of instance {} of service {} is {ttl:?}, not above zero and up to {max_ttl:?}",
                asked.id, asked.service
            );
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("shop").unwrap()
    }

    fn asked(ttl: Duration) -> Registration {
        let endpoint = "127.0.0.1:80".parse().unwrap();
        Registration::new(
            "pay".parse().unwrap(),
            "p:1".parse().unwrap(),
            endpoint,
            ttl,
        )
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let (service, id) = ("pay".parse().unwrap(), "p:1".parse().unwrap());
        let keys = keys();
        assert_eq!(keys.instance(&service, &id), "shop/pay/p:1");
        assert_eq!(keys.parse(b"shop/pay/p:1"), Key::Instance(service, id));
        assert_eq!(keys.parse(b"shop/pay/p:1/override"), Key::Override);
        for foreign in [
            "shop/pay",
            "shop/pay/",
            "shop/p a/1",
            "shop/pay/1/2",
            "shops/pay/1",
            "",
        ] {
            assert_eq!(keys.parse(foreign.as_bytes()), Key::Foreign, "{foreign}");
        }
        assert_eq!(keys.parse(b"shop/pay/\xff"), Key::Foreign);
    }

    #[test]
    fn a_range_holds_its_service_and_no_other() {
        let (first, end) = keys().range(&Scope::Service("pay".parse().unwrap()));
        let within = |key: &str| *first <= *key && *key < *end;
        assert!(within("shop/pay/a") && within("shop/pay/zz/override"));
        for other in [
            "shop/pay-b/a",
            "shop/pay.b/a",
            "shop/paz/a",
            "shop/payments/a",
            "shop/pa/a",
        ] {
            assert!(!within(other), "{other}");
        }
        let (first, end) = keys().range(&Scope::All);
        assert!(*"shop/a/b" >= *first && *"shop/zz/b" < *end && *"shop1/a/b" >= *end);
    }

    #[test]
    fn a_prefix_without_slash_gets_one_and_a_bad_one_is_refused() {
        for bad in ["", "with space", "b\u{e4}r", &"x".repeat(513)] {
            assert_eq!(Keys::new(bad).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(Keys::new("/a/").unwrap().prefix, "/a/");
    }

    #[test]
    fn the_incarnation_is_the_revision_unless_the_value_says_otherwise() {
        let keys = keys();
        let value = Record::new(&asked(Duration::from_secs(1)), None)
            .encode()
            .unwrap();
        let Some(Record::Listed(mut first)) = keys.read(b"shop/pay/p:1", &value, 17) else {
            panic!("{}", String::from_utf8_lossy(&value));
        };
        assert_eq!(first.incarnation, Incarnation::new(17));
        first.weight = 3;
        let value = Record::Listed(first.clone()).encode().unwrap();
        let second = keys.read(b"shop/pay/p:1", &value, 29);
        assert_eq!(second, Some(Record::Listed(first)));
    }

    #[test]
    fn a_value_that_is_not_ours_is_nothing() {
        let keys = keys();
        let value = Record::new(&asked(Duration::from_secs(1)), None)
            .encode()
            .unwrap();
        assert_eq!(keys.read(b"shop/pay/p:2", &value, 1), None);
        let negative = String::from_utf8(value)
            .unwrap()
            .replace("\"weight\":1", "\"weight\":-1");
        let large = format!("{{\"gone\":1{}}}", " ".repeat(MAX_READ));
        for value in [
            &negative,
            &large,
            "",
            "{}",
            "null",
            "[",
            "\u{0}",
            "{\"gone\":-1}",
        ] {
            assert_eq!(keys.read(b"shop/pay/p:1", value.as_bytes(), 1), None);
        }
    }

    #[test]
    fn a_ttl_is_rounded_up_and_bounded() {
        let day = Duration::from_secs(86_400);
        for (millis, expected) in [(1, 1), (999, 1), (1_000, 1), (1_001, 2), (2_500, 3)] {
            let asked = asked(Duration::from_millis(millis));
            assert_eq!(seconds(&asked, day).unwrap(), expected, "{millis}");
        }
        for bad in [Duration::ZERO, day + Duration::from_nanos(1), Duration::MAX] {
            let refused = seconds(&asked(bad), day).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
        }
        assert!(seconds(&asked(Duration::MAX), Duration::MAX).is_err());
    }

    #[test]
    fn a_registration_that_is_too_large_is_refused() {
        let mut asked = asked(Duration::from_secs(1));
        assert!(check_size(&asked).is_ok());
        asked.probe = crate::instance::ProbeTarget::default().path("x".repeat(MAX_WRITTEN));
        assert_eq!(check_size(&asked).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
