//! A registration and its names as the scripts store them.

use orchestra_core::{InstanceId, ServiceName};

use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Instance, Override, Registration, Status};

pub(super) fn encode(asked: &Registration) -> Result<String> {
    serde_json::to_string(asked).map_err(|error| {
        let message = format!(
            "instance {} of service {} cannot be written as json",
            asked.id, asked.service
        );
        Error::new(ErrorKind::Invalid, message).with_source(error)
    })
}

/// The instance under `service` and `id`; the text must be a registration of just these.
pub(super) fn decode(
    service: &str,
    id: &str,
    text: &[u8],
    incarnation: Incarnation,
) -> Result<Instance, String> {
    let asked: Registration = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if asked.service.as_str() != service || asked.id.as_str() != id {
        return Err("it is of another instance".to_owned());
    }
    Ok(asked.instance(incarnation))
}

pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Starting => "starting",
        Status::Ready => "ready",
        Status::Draining => "draining",
    }
}

pub(super) fn status(name: &str) -> Option<Status> {
    [Status::Starting, Status::Ready, Status::Draining]
        .into_iter()
        .find(|status| status_name(*status) == name)
}

pub(super) fn override_name(forced: Option<Override>) -> &'static str {
    match forced {
        Some(Override::OutOfService) => "out_of_service",
        Some(Override::ForcedHealthy) => "forced_healthy",
        None => "",
    }
}

/// No override is the empty name.
pub(super) fn forced(name: &str) -> Result<Option<Override>, &'static str> {
    let all = [
        None,
        Some(Override::OutOfService),
        Some(Override::ForcedHealthy),
    ];
    let mut all = all.into_iter();
    all.find(|forced| override_name(*forced) == name)
        .ok_or("its override is unknown")
}

/// The two names of a key `service/id`.
pub(super) fn names(key: &str) -> Option<(ServiceName, InstanceId)> {
    let (service, id) = key.split_once('/')?;
    Some((service.parse().ok()?, id.parse().ok()?))
}

pub(super) fn key(service: &ServiceName, id: &InstanceId) -> String {
    format!("{service}/{id}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked() -> Registration {
        let (service, id) = ("a".parse().unwrap(), "a-1".parse().unwrap());
        let endpoint = "127.0.0.1:80".parse().unwrap();
        Registration::new(service, id, endpoint, Duration::from_secs(3))
    }

    #[test]
    fn text_comes_back_as_the_instance() {
        let text = encode(&asked().weight(7)).unwrap();
        let incarnation = Incarnation::new(u64::MAX);
        let instance = decode("a", "a-1", text.as_bytes(), incarnation).unwrap();
        assert_eq!(instance, asked().weight(7).instance(incarnation));
    }

    #[test]
    fn text_of_another_instance_is_none() {
        let text = encode(&asked()).unwrap();
        let found = decode("a", "a-2", text.as_bytes(), Incarnation::new(1));
        assert_eq!(found, Err("it is of another instance".to_owned()));
    }

    #[test]
    fn foreign_text_is_an_error_and_no_panic() {
        for text in ["", "{}", "null", "[1]", "{\"service\":\"!\"}", "\u{0}"] {
            let found = decode("a", "a-1", text.as_bytes(), Incarnation::new(1));
            assert!(found.is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_of_states_come_back() {
        for state in [Status::Starting, Status::Ready, Status::Draining] {
            assert_eq!(status(status_name(state)), Some(state));
        }
        for state in [
            None,
            Some(Override::OutOfService),
            Some(Override::ForcedHealthy),
        ] {
            assert_eq!(forced(override_name(state)), Ok(state));
        }
        assert_eq!(status("up"), None);
        assert!(forced("up").is_err());
    }
}
