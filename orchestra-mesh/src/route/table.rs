use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use http::{HeaderMap, Method};

use super::path::Inner;
use super::{HostPattern, Route};
use crate::Error;

/// What routes look at in a request.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Query<'a> {
    host: &'a str,
    path: &'a str,
    method: &'a Method,
    headers: &'a HeaderMap,
}

impl<'a> Query<'a> {
    /// A request without a host.
    pub const fn new(path: &'a str, method: &'a Method, headers: &'a HeaderMap) -> Self {
        Self {
            host: "",
            path,
            method,
            headers,
        }
    }

    /// The host as the request names it; a port is ignored.
    #[must_use]
    pub fn host(mut self, host: &'a str) -> Self {
        self.host = without_port(host);
        self
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Routes, compiled.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Route>,
    exact: HashMap<Box<str>, Paths>,
    suffix: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// The routes of one host: indices in the order of precedence.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Vec<usize>>,
    prefix: HashMap<Box<str>, Vec<usize>>,
}

impl Table {
    /// Compiles routes; two of the same name are an error.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Result<Self, Error> {
        let mut table = Self {
            routes: routes.into_iter().collect(),
            ..Self::default()
        };
        let mut names = HashSet::new();
        for route in &table.routes {
            if !names.insert(route.name()) {
                return Err(Error::config(format!(
                    "two routes are named {:?}",
                    route.name()
                )));
            }
        }
        let mut order: Vec<usize> = (0..table.routes.len()).collect();
        order.sort_by_key(|index| table.routes.get(*index).map(precedence));
        for index in order {
            table.insert(index);
        }
        Ok(table)
    }

    /// The routes in the order they were given.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route of a request.
    pub fn find(&self, query: &Query<'_>) -> Option<&Route> {
        let host = query.host.to_ascii_lowercase();
        let exact = self.exact.get(&*host);
        let suffixes = host.match_indices('.').filter(|(at, _)| *at > 0);
        let suffixes = suffixes.filter_map(|(at, _)| self.suffix.get(host.get(at + 1..)?));
        exact
            .into_iter()
            .chain(suffixes)
            .chain([&self.any])
            .find_map(|paths| paths.find(self, query))
    }

    fn insert(&mut self, index: usize) {
        let Some(route) = self.routes.get(index) else {
            return;
        };
        if route.hosts.is_empty() {
            self.any.insert(route, index);
        }
        for host in &route.hosts {
            let hosts = if host.is_suffix() {
                &mut self.suffix
            } else {
                &mut self.exact
            };
            hosts
                .entry(HostPattern::name(host).into())
                .or_default()
                .insert(route, index);
        }
    }
}

/// Among routes of the same host and path.
fn precedence(route: &Route) -> (bool, Reverse<usize>) {
    (route.method.is_none(), Reverse(route.headers.len()))
}

impl Paths {
    fn insert(&mut self, route: &Route, index: usize) {
        let bucket = match route.path.inner() {
            Inner::Exact(path) => self.exact.entry(path.clone()),
            Inner::Prefix(path) => self.prefix.entry(path.clone()),
        };
        bucket.or_default().push(index);
    }

    fn find<'t>(&self, table: &'t Table, query: &Query<'_>) -> Option<&'t Route> {
        let first = |bucket: &Vec<usize>| {
            let mut routes = bucket.iter().filter_map(|index| table.routes.get(*index));
            routes.find(|route| route.matches_rest(query.method, query.headers))
        };
        let exact = self.exact.get(query.path).and_then(first);
        exact.or_else(|| {
            let path = query.path;
            let ends = path.match_indices('/').map(|(at, _)| at).rev();
            let mut prefixes = [path.len()].into_iter().chain(ends);
            prefixes.find_map(|end| self.prefix.get(path.get(..end)?).and_then(first))
        })
    }
}
