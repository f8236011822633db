//! From the name of a service to that of its records.

use orchestra_core::ServiceName;

use crate::error::{Error, ErrorKind, Result};

const PLACE: &str = "{service}";
/// The longest name in its text form, without the closing dot (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A DNS name with a place for the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    before: String,
    after: String,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let fail = |reason: &str| {
            let shown: String = text.chars().take(2 * MAX_NAME).collect();
            let message = format!("template {shown:?} of DNS names {reason}");
            Err(Error::new(ErrorKind::Invalid, message))
        };
        let Some((before, after)) = text.split_once(PLACE) else {
            return fail("has no place for the {service}");
        };
        if after.contains(PLACE) {
            return fail("has more than one place for the {service}");
        }
        let template = Self {
            before: before.to_owned(),
            after: after.to_owned(),
        };
        match check(&template.with("s")) {
            Ok(()) => Ok(template),
            Err(reason) => fail(reason),
        }
    }

    /// The absolute name of this service's records: no search domain is ever tried.
    pub(super) fn name(&self, service: &ServiceName) -> Result<String> {
        let name = self.with(service.as_str());
        match check(&name) {
            Ok(()) => Ok(name + "."),
            Err(reason) => {
                let message = format!("DNS name of service {service} {reason}");
                Err(Error::new(ErrorKind::Invalid, message))
            }
        }
    }

    fn with(&self, service: &str) -> String {
        [&self.before, service, &self.after].concat()
    }
}

fn check(name: &str) -> Result<(), &'static str> {
    if name.len() > MAX_NAME {
        return Err("is longer than 253 bytes");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("has an empty label");
        }
        if label.len() > MAX_LABEL {
            return Err("has a label longer than 63 bytes");
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.bytes().all(allowed) {
            return Err("has a character other than letters, digits, hyphen and underscore");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(template: &str, service: &str) -> Result<String> {
        Template::parse(template)?.name(&service.parse().unwrap())
    }

    #[test]
    fn service_takes_its_place() {
        assert_eq!(name("{service}", "payments").unwrap(), "payments.");
        assert_eq!(
            name("_{service}._tcp.example.", "payments").unwrap(),
            "_payments._tcp.example."
        );
        assert_eq!(
            name("{service}.svc.example", "eu.payments").unwrap(),
            "eu.payments.svc.example."
        );
    }

    #[test]
    fn template_needs_one_place_and_valid_labels() {
        for wrong in [
            "",
            "svc.example",
            "{service}.{service}",
            "{service}..example",
            ".{service}",
            "{service}.exa mple",
            "{service}.example..",
        ] {
            let error = Template::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong:?}");
        }
    }

    #[test]
    fn service_that_is_no_dns_label_is_invalid() {
        let long = "a".repeat(64);
        let many = ["a"; 125].join(".");
        for service in [long.as_str(), "a..b", many.as_str()] {
            let error = name("{service}.svc.example", service).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{service}");
        }
    }
}
