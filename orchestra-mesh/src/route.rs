//! Which destination a request goes to.
//!
//! A [`Route`] is a conjunction: host, path, method and headers must all match; alternatives are further
//! routes. When several match, the precedence is that of the Gateway API: exact host, then the longest
//! wildcard host, then no host; within that an exact path, then the longest prefix; then a method; then
//! the most headers; then the order of the list. [`Table`] compiles the list into hash maps, so a lookup
//! costs as many steps as the host has labels times the path has segments, however many routes there are.

mod header;
mod host;
mod path;
mod table;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use orchestra_core::ServiceName;

pub use header::HeaderMatch;
pub use host::HostPattern;
pub use path::PathPattern;
pub(crate) use path::has_dot_segment;
pub use table::{Query, Table};

use crate::split::Split;

/// What a request must look like, and where it goes then.
///
/// ```
/// use http::Method;
/// use orchestra_mesh::route::{PathPattern, Query, Route, Table};
///
/// let table = Table::new([
///     Route::to("orders", "orders".parse()?).path(PathPattern::prefix("/orders")?),
///     Route::to("place", "checkout".parse()?)
///         .host("*.shop.example".parse()?)
///         .path(PathPattern::exact("/orders")?)
///         .method(Method::POST),
/// ])?;
/// let headers = http::HeaderMap::new();
/// let query = Query::new("/orders/7", &Method::GET, &headers).host("eu.shop.example");
/// assert_eq!(table.find(&query).map(|route| route.name()), Some("orders"));
/// let query = Query::new("/orders", &Method::POST, &headers).host("eu.shop.example:8080");
/// assert_eq!(table.find(&query).map(|route| route.name()), Some("place"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    name: Arc<str>,
    hosts: Vec<HostPattern>,
    path: PathPattern,
    method: Option<Method>,
    headers: Vec<HeaderMatch>,
    split: Split,
    timeout: Option<Duration>,
}

impl Route {
    /// Sends everything that matches to one service.
    pub fn to(name: impl AsRef<str>, service: ServiceName) -> Self {
        Self::split(name, Split::only(service))
    }

    /// Sends what matches to several services by weight.
    pub fn split(name: impl AsRef<str>, split: Split) -> Self {
        Self {
            name: Arc::from(name.as_ref()),
            hosts: Vec::new(),
            path: PathPattern::everything(),
            method: None,
            headers: Vec::new(),
            split,
            timeout: None,
        }
    }

    /// Matches this host; given several times, any of them. Without, every host matches.
    #[must_use]
    pub fn host(mut self, host: HostPattern) -> Self {
        self.hosts.push(host);
        self
    }

    /// Matches this path. Without, every path matches.
    #[must_use]
    pub fn path(mut self, path: PathPattern) -> Self {
        self.path = path;
        self
    }

    /// Matches this method alone.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Matches this header; given several times, all of them.
    #[must_use]
    pub fn header(mut self, header: HeaderMatch) -> Self {
        self.headers.push(header);
        self
    }

    /// The most time for the whole call, if it is shorter than what the service's client allows.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The name, for events and errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shares of its destinations.
    pub fn destinations(&self) -> &Split {
        &self.split
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether method and headers match; the table has seen to host and path.
    fn matches_rest(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|header| header.matches(headers))
    }
}
