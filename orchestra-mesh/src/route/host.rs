use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A host name, or `*.` and the end of one.
///
/// `*.shop.example` matches any host below `shop.example` at any depth, and not `shop.example` itself.
///
/// ```
/// use orchestra_mesh::route::HostPattern;
///
/// let below: HostPattern = "*.Shop.example".parse()?;
/// assert!(below.matches("a.b.shop.example") && !below.matches("shop.example"));
/// assert!("shop.*".parse::<HostPattern>().is_err());
/// # Ok::<(), orchestra_mesh::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// In lower case, without the `*.`.
    name: Box<str>,
    is_suffix: bool,
}

impl HostPattern {
    /// Whether the host, without a port, matches; case does not matter.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if !self.is_suffix {
            return *host == *self.name;
        }
        host.strip_suffix(&*self.name)
            .is_some_and(|below| below.len() > 1 && below.ends_with('.'))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_suffix(&self) -> bool {
        self.is_suffix
    }
}

impl FromStr for HostPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, is_suffix) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_address = !is_suffix && is_bracketed(name);
        if name.len() > 253 || !(is_address || name.split('.').all(label)) {
            let shown: String = text.chars().take(64).collect();
            return Err(Error::config(format!("{shown:?} is no host pattern")));
        }
        Ok(Self {
            name: name.to_ascii_lowercase().into(),
            is_suffix,
        })
    }
}

/// `[::1]`, as it stands in a `Host` header.
fn is_bracketed(text: &str) -> bool {
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_suffix { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}
