//! What the messages say, and under which subjects.

use std::sync::Arc;

use orchestra_core::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::instance::{Incarnation, Instance, Override, Registration, Status};
use crate::source::{Change, Removal, RemovalReason, Scope};

/// An instance, under its own subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) service: ServiceName,
    pub(super) id: InstanceId,
}

impl Key {
    pub(super) fn new(service: &ServiceName, id: &InstanceId) -> Self {
        Self {
            service: service.clone(),
            id: id.clone(),
        }
    }

    /// Names may have dots, and a subject is split at them.
    fn token(&self) -> String {
        let id = self.id.as_str().replace('.', "/").replace(':', "=");
        format!("{}.{id}", service_token(&self.service))
    }

    fn parse(token: &str) -> Option<Self> {
        let (service, id) = token.split_once('.')?;
        Some(Self {
            service: service.replace('/', ".").parse().ok()?,
            id: id.replace('/', ".").replace('=', ":").parse().ok()?,
        })
    }
}

fn service_token(service: &ServiceName) -> String {
    service.as_str().replace('.', "/")
}

#[derive(Debug)]
pub(super) struct Subjects {
    instances: String,
    overrides: String,
    leases: String,
}

impl Subjects {
    pub(super) fn new(bucket: &str) -> Self {
        Self {
            instances: format!("$KV.{bucket}.i."),
            overrides: format!("$KV.{bucket}.o."),
            leases: format!("$KV.{bucket}-leases."),
        }
    }

    pub(super) fn instance(&self, key: &Key) -> String {
        format!("{}{}", self.instances, key.token())
    }

    pub(super) fn forced(&self, key: &Key) -> String {
        format!("{}{}", self.overrides, key.token())
    }

    pub(super) fn lease(&self, key: &Key) -> String {
        format!("{}{}", self.leases, key.token())
    }

    pub(super) fn instances(&self, scope: &Scope) -> String {
        format!("{}{}", self.instances, filter(scope))
    }

    pub(super) fn leases(&self, scope: &Scope) -> String {
        format!("{}{}", self.leases, filter(scope))
    }

    /// The instance that a message of the first bucket is about, unless it is an override.
    pub(super) fn parse_instance(&self, subject: &str) -> Option<Key> {
        Key::parse(subject.strip_prefix(&self.instances)?)
    }

    pub(super) fn parse_lease(&self, subject: &str) -> Option<Key> {
        Key::parse(subject.strip_prefix(&self.leases)?)
    }
}

fn filter(scope: &Scope) -> String {
    match scope {
        Scope::Service(name) => format!("{}.*", service_token(name)),
        Scope::All => ">".to_owned(),
    }
}

/// A change of an instance; a replacement says both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gone: Option<Gone>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) present: Option<Present>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gone {
    pub(super) incarnation: Incarnation,
    pub(super) reason: RemovalReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Present {
    /// That of the message when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<Incarnation>,
    /// The sequence of the lease as it was taken.
    pub(super) grant: u64,
    pub(super) status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) forced: Option<Override>,
    pub(super) registration: Registration,
}

impl Present {
    fn instance(&self, sequence: u64) -> Instance {
        let own = Incarnation::new(sequence);
        let mut instance = self.registration.instance(self.incarnation.unwrap_or(own));
        instance.status = self.status;
        instance.forced = self.forced;
        instance
    }
}

impl Record {
    pub(super) fn gone(incarnation: Incarnation, reason: RemovalReason) -> Self {
        Self {
            gone: Some(Gone {
                incarnation,
                reason,
            }),
            present: None,
        }
    }

    /// The record under `key`; an empty one says that somebody deleted it.
    pub(super) fn parse(key: &Key, payload: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if let Some(Present { registration, .. }) = &record.present
            && (registration.service != key.service || registration.id != key.id)
        {
            return Err("it is of another instance".to_owned());
        }
        Ok(record)
    }

    pub(super) fn changes(&self, key: &Key, sequence: u64) -> Vec<Change> {
        let gone = self.gone.as_ref().map(|gone| {
            Change::Removed(Removal {
                service: key.service.clone(),
                id: key.id.clone(),
                incarnation: gone.incarnation,
                reason: gone.reason,
            })
        });
        let present = self
            .present
            .as_ref()
            .map(|present| Change::Upserted(Arc::new(present.instance(sequence))));
        gone.into_iter().chain(present).collect()
    }
}

/// What is held of an instance: a record that says that it is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) key: Key,
    /// That of the message.
    pub(super) sequence: u64,
    pub(super) present: Present,
}

impl Held {
    pub(super) fn new(key: Key, sequence: u64, record: Record) -> Option<Self> {
        let present = record.present?;
        Some(Self {
            key,
            sequence,
            present,
        })
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        let own = Incarnation::new(self.sequence);
        self.present.incarnation.unwrap_or(own)
    }

    pub(super) fn instance(&self) -> Instance {
        self.present.instance(self.sequence)
    }
}

/// A lease as it was taken (its own sequence is its grant), or as it was renewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(service: &str, id: &str) -> Key {
        Key {
            service: service.parse().unwrap(),
            id: id.parse().unwrap(),
        }
    }

    fn present(id: &str) -> Present {
        let endpoint = "127.0.0.1:80".parse().unwrap();
        let key = key("a", id);
        Present {
            incarnation: None,
            grant: 4,
            status: Status::Draining,
            forced: Some(Override::OutOfService),
            registration: Registration::new(key.service, key.id, endpoint, Duration::from_secs(1)),
        }
    }

    #[test]
    fn subjects_come_back_and_have_two_tokens() {
        let subjects = Subjects::new("b");
        for key in [
            key("a", "x"),
            key("a.b", "c"),
            key("a", "b.c"),
            key("a", "h:1_2.3"),
        ] {
            let subject = subjects.instance(&key);
            assert_eq!(subject.split('.').count(), 5, "{subject}");
            assert_eq!(subjects.parse_instance(&subject), Some(key.clone()));
            assert_eq!(
                subjects.parse_lease(&subjects.lease(&key)),
                Some(key.clone())
            );
            assert_eq!(subjects.parse_instance(&subjects.forced(&key)), None);
        }
        let (one, other) = (key("a.b", "c"), key("a", "b.c"));
        assert_ne!(subjects.instance(&one), subjects.instance(&other));
        let service = Scope::Service("a.b".parse().unwrap());
        assert_eq!(subjects.instances(&service), "$KV.b.i.a/b.*");
        assert_eq!(subjects.leases(&Scope::All), "$KV.b-leases.>");
    }

    #[test]
    fn replacement_is_a_removal_and_then_an_instance() {
        let mut record = Record::gone(Incarnation::new(3), RemovalReason::Replaced);
        record.present = Some(present("a-1"));
        let key = key("a", "a-1");
        let text = serde_json::to_vec(&record).unwrap();
        let record = Record::parse(&key, &text).unwrap();
        let [Change::Removed(gone), Change::Upserted(instance)] = &*record.changes(&key, 9) else {
            panic!("{record:?}");
        };
        assert_eq!(
            (gone.incarnation, gone.reason),
            (Incarnation::new(3), RemovalReason::Replaced)
        );
        assert_eq!(instance.incarnation, Incarnation::new(9));
        assert_eq!(instance.status, Status::Draining);
        assert_eq!(instance.forced, Some(Override::OutOfService));
    }

    #[test]
    fn later_messages_keep_the_incarnation() {
        let mut later = present("a-1");
        later.incarnation = Some(Incarnation::new(5));
        let record = Record {
            gone: None,
            present: Some(later),
        };
        let held = Held::new(key("a", "a-1"), 9, record).unwrap();
        assert_eq!(held.incarnation(), Incarnation::new(5));
        assert_eq!(held.instance().incarnation, Incarnation::new(5));
    }

    #[test]
    fn foreign_records_are_errors_and_no_panic() {
        let other = Record {
            gone: None,
            present: Some(present("a-2")),
        };
        let other = serde_json::to_vec(&other).unwrap();
        for payload in [&b""[..], b"none of ours", b"{\"present\":{}}", &other] {
            assert!(Record::parse(&key("a", "a-1"), payload).is_err());
        }
        let nothing = Record::parse(&key("a", "a-1"), b"{}").unwrap();
        assert_eq!(nothing.changes(&key("a", "a-1"), 1), []);
    }
}
