//! What a prepared transaction is called.

use std::fmt;

use uuid::Uuid;

use crate::id::{SagaId, StepName};
use crate::step::Call;

/// Which part of which saga a transaction is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) saga: SagaId,
    pub(super) step: StepName,
    pub(super) iteration: u32,
}

impl Key {
    pub(super) fn of(call: &Call) -> Self {
        Self {
            saga: call.saga,
            step: call.step.clone(),
            iteration: call.iteration,
        }
    }

    pub(super) fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.saga.to_bytes())
    }

    pub(super) fn number(&self) -> i32 {
        i32::try_from(self.iteration).unwrap_or(i32::MAX)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of saga {}", self.step, self.saga)
    }
}

/// Whose transactions these are: at most 64 of the letters of a step's name, which no quoting concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespace(StepName);

impl Namespace {
    pub(super) fn new(text: &str) -> Option<Self> {
        StepName::new(text).ok().map(Self)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What all its transactions begin with.
    pub(super) fn prefix(&self) -> String {
        format!("orchestra/{}/", self.as_str())
    }

    /// The identifier of a transaction, at most 183 of the 199 bytes that PostgreSQL allows. Neither part
    /// of it can contain a quote or a backslash, so it may stand between quotes as it is.
    pub(super) fn gid(&self, key: &Key) -> String {
        let (saga, step) = (key.uuid(), &key.step);
        let (prefix, iteration) = (self.prefix(), key.iteration);
        format!("{prefix}{}/{iteration}/{step}", saga.simple())
    }

    /// What a transaction of this namespace is, if it is one.
    pub(super) fn read(&self, gid: &str) -> Option<Key> {
        let mut parts = gid.strip_prefix(&self.prefix())?.splitn(3, '/');
        let saga = parts.next()?.parse().ok()?;
        let iteration = parts.next()?.parse().ok()?;
        let step = StepName::new(parts.next()?).ok()?;
        let key = Key {
            saga,
            step,
            iteration,
        };
        // Others may write what looks alike.
        (self.gid(&key) == gid).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn namespace(text: &str) -> Namespace {
        Namespace::new(text).expect("valid")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_fits(
            space in "[a-zA-Z0-9_.-]{1,64}",
            step in "[a-zA-Z0-9_.-]{1,64}",
            saga: [u8; 16],
            iteration: u32,
        ) {
            let step = StepName::new(step).expect("valid");
            let key = Key { saga: SagaId::from_bytes(saga), step, iteration };
            let gid = namespace(&space).gid(&key);
            prop_assert!(gid.len() < 200);
            prop_assert!(!gid.contains(['\'', '\\']));
            prop_assert_eq!(namespace(&space).read(&gid), Some(key));
            prop_assert_eq!(namespace(&format!("x{}", &space[1..])).read(&gid).is_some(), space.starts_with('x'));
        }

        #[test]
        fn what_others_wrote_is_not_ours(gid in ".{0,200}") {
            prop_assert_eq!(namespace("bank").read(&gid), None);
        }
    }

    #[test]
    fn only_the_very_text_is_read() {
        let saga = "00000000000000000000000000000001";
        let read = |rest: &str| namespace("bank").read(&format!("orchestra/bank/{rest}"));
        assert!(read(&format!("{saga}/0/take")).is_some());
        for other in [
            "",
            "x",
            &format!("{saga}/00/take"),
            &format!("{saga}/0/ta/ke"),
            &format!("{saga}/0"),
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        let hyphens = "00000000-0000-0000-0000-000000000001/0/take";
        assert_eq!(read(hyphens), None, "it would be another transaction");
        assert!(Namespace::new("it's").is_none() && Namespace::new("").is_none());
    }
}
