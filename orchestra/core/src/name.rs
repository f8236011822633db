//! Names of services, instances and nodes.
//!
//! Each is a validated `Arc<str>`: a clone is one reference count, and a value that exists is valid.
//! Names end up in URLs, file names, metric labels and log lines, so the alphabet is small.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in bytes, the limit of a DNS name.
pub const MAX_LEN: usize = 253;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    reason: &'static str,
}

impl InvalidName {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        // Hostile input may be megabytes long: an error must not carry it all.
        let text = text.chars().take(64).collect();
        Self { kind, text, reason }
    }

    /// What is wrong with the text.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {} {:?}: {}", self.kind, self.text, self.reason)
    }
}

impl std::error::Error for InvalidName {}

fn check(kind: &'static str, text: &str, allowed: fn(u8) -> bool) -> Result<(), InvalidName> {
    let fail = |reason| Err(InvalidName::new(kind, text, reason));
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            if bytes.len() > MAX_LEN {
                return fail("longer than 253 bytes");
            }
            if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
                return fail("must begin and end with a letter or digit");
            }
        }
        _ => return fail("empty"),
    }
    if bytes.iter().all(|&byte| allowed(byte)) {
        Ok(())
    } else {
        fail("holds a character outside its alphabet")
    }
}

fn service_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
}

fn id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $allowed:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates and wraps a name.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
                let text = text.as_ref();
                check($kind, text, $allowed)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    };
}

name! {
    /// The name of a service: lower-case letters, digits, `-` and `.`, as in DNS.
    ///
    /// ```
    /// use orchestra_core::ServiceName;
    ///
    /// let payments = ServiceName::new("payments")?;
    /// assert_eq!(payments.as_str(), "payments");
    /// assert!(ServiceName::new("Payments!").is_err());
    /// # Ok::<(), orchestra_core::InvalidName>(())
    /// ```
    ServiceName, "service name", service_byte
}

name! {
    /// The id of one instance of a service, unique within the service.
    ///
    /// Letters, digits, `-`, `.`, `_` and `:`.
    ///
    /// ```
    /// use orchestra_core::InstanceId;
    ///
    /// let id: InstanceId = "payments-7f3a".parse()?;
    /// assert_eq!(id.to_string(), "payments-7f3a");
    /// # Ok::<(), orchestra_core::InvalidName>(())
    /// ```
    InstanceId, "instance id", id_byte
}

name! {
    /// The id of a machine that runs instances; the alphabet of [`InstanceId`].
    ///
    /// ```
    /// let node = orchestra_core::NodeId::new("node-1")?;
    /// assert_eq!(node.as_ref(), "node-1");
    /// # Ok::<(), orchestra_core::InvalidName>(())
    /// ```
    NodeId, "node id", id_byte
}
