use http::{HeaderMap, HeaderName, HeaderValue};

/// What a header must be like; names ignore case, as they do in HTTP.
///
/// ```
/// use http::{HeaderMap, HeaderName, HeaderValue};
/// use orchestra_mesh::route::HeaderMatch;
///
/// let canary = HeaderMatch::exact(HeaderName::from_static("x-canary"), HeaderValue::from_static("1"));
/// let mut headers = HeaderMap::new();
/// headers.insert("X-Canary", "1".parse()?);
/// assert!(canary.matches(&headers));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    name: HeaderName,
    value: Option<HeaderValue>,
}

impl HeaderMatch {
    /// One of the header's lines has this value.
    pub const fn exact(name: HeaderName, value: HeaderValue) -> Self {
        Self {
            name,
            value: Some(value),
        }
    }

    /// The header is there, whatever its value.
    pub const fn present(name: HeaderName) -> Self {
        Self { name, value: None }
    }

    /// Whether these headers are like that.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.name),
            Some(value) => headers
                .get_all(&self.name)
                .iter()
                .any(|other| other == value),
        }
    }
}
