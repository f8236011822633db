use std::cmp::Reverse;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use orchestra_core::ServiceName;
use orchestra_mesh::route::{HeaderMatch, HostPattern, PathPattern, Query, Route, Table};
use orchestra_mesh::split::Split;
use proptest::prelude::*;

use crate::upstream::{Checked, Failure};

/// A route as the test sees it, to find the best by looking at all.
#[derive(Debug, Clone)]
struct Plain {
    host: Option<String>,
    is_exact: bool,
    path: String,
    method: Option<Method>,
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl Plain {
    fn route(&self, number: usize) -> Result<Route, Failure> {
        let mut route = Route::to(number.to_string(), "x".parse()?);
        let path = if self.is_exact {
            PathPattern::exact(&self.path)?
        } else {
            PathPattern::prefix(&self.path)?
        };
        route = route.path(path);
        if let Some(host) = &self.host {
            route = route.host(host.parse()?);
        }
        if let Some(method) = &self.method {
            route = route.method(method.clone());
        }
        for (name, value) in &self.headers {
            route = route.header(match value {
                Some(value) => HeaderMatch::exact(name.clone(), value.clone()),
                None => HeaderMatch::present(name.clone()),
            });
        }
        Ok(route)
    }

    fn matches(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> bool {
        let host_matches = match &self.host {
            None => true,
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(end) => host.ends_with(end),
                None => host == pattern,
            },
        };
        let own = self.path.trim_end_matches('/');
        let path_matches = if self.is_exact {
            path == self.path
        } else {
            path == own || path.starts_with(&format!("{own}/"))
        };
        host_matches
            && path_matches
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|(name, value)| match value {
                Some(value) => headers.get(name) == Some(value),
                None => headers.contains_key(name),
            })
    }

    /// Greater is better.
    fn rank(&self, number: usize) -> impl Ord {
        let host = self
            .host
            .as_ref()
            .map(|host| (!host.starts_with('*'), host.len()));
        let path = self.path.trim_end_matches('/').len();
        let method = self.method.is_some();
        (
            host,
            self.is_exact,
            path,
            method,
            self.headers.len(),
            Reverse(number),
        )
    }
}

fn host() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a.x", "b.x", "a.b.x", "x", "a.a.b.x", "y"]).prop_map(str::to_owned)
}

fn pattern() -> impl Strategy<Value = Option<String>> {
    let wild = prop::sample::select(vec!["*.x", "*.b.x"]).prop_map(str::to_owned);
    prop::option::of(prop_oneof![host(), wild])
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", ""]);
    prop::collection::vec(segment, 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::GET, Method::POST])
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, Option<HeaderValue>)>> {
    let name = prop::sample::select(vec!["x-a", "x-b"]).prop_map(HeaderName::from_static);
    let value = prop::sample::select(vec!["1", "2"]).prop_map(HeaderValue::from_static);
    prop::collection::vec((name, prop::option::of(value)), 0..3)
}

fn plain() -> impl Strategy<Value = Plain> {
    (
        pattern(),
        any::<bool>(),
        path(),
        prop::option::of(method()),
        headers(),
    )
        .prop_map(|(host, is_exact, path, method, headers)| Plain {
            host,
            is_exact,
            path,
            method,
            headers,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_index_finds_what_a_scan_of_all_routes_finds(
        plain in prop::collection::vec(plain(), 0..24),
        requests in prop::collection::vec((host(), path(), method(), headers()), 1..12),
    ) {
        let routes = plain.iter().enumerate().map(|(number, plain)| plain.route(number));
        let routes = routes.collect::<Result<Vec<_>, _>>();
        let table = Table::new(routes.map_err(|error| TestCaseError::fail(error.to_string()))?)?;
        for (host, path, method, sent) in requests {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.insert(name, value.unwrap_or(HeaderValue::from_static("3")));
            }
            let best = plain
                .iter()
                .enumerate()
                .filter(|(_, plain)| plain.matches(&host, &path, &method, &headers))
                .max_by_key(|(number, plain)| plain.rank(*number))
                .map(|(number, _)| number.to_string());
            let with_port = format!("{}:8080", host.to_uppercase());
            let query = Query::new(&path, &method, &headers).host(&with_port);
            prop_assert_eq!(table.find(&query).map(Route::name), best.as_deref());
        }
    }

    #[test]
    fn shares_are_exact_and_zero_is_never(weights in prop::collection::vec(0_u32..50, 1..6)) {
        let total: u32 = weights.iter().sum();
        let names: Vec<ServiceName> = (0..weights.len())
            .map(|number| ServiceName::new(format!("s{number}")))
            .collect::<Result<_, _>>()?;
        let split = Split::new(names.iter().cloned().zip(weights.iter().copied()));
        prop_assert_eq!(split.is_err(), total == 0);
        let Ok(split) = split else { return Ok(()) };
        let mut counts: HashMap<&ServiceName, u32> = HashMap::new();
        for point in 0..total {
            // The middle of each unit of weight.
            let draw = (u128::from(2 * point + 1) << 63) / u128::from(total);
            let draw = u64::try_from(draw).unwrap_or(u64::MAX);
            *counts.entry(split.choose(&HeaderMap::new(), draw)).or_default() += 1;
        }
        for (name, weight) in names.iter().zip(&weights) {
            prop_assert_eq!(counts.get(name).copied().unwrap_or(0), *weight);
        }
    }

    #[test]
    fn a_ramp_only_adds_users(from in 0_u32..100, step in 0_u32..100, user in "[a-z0-9]{1,12}") {
        let (canary, stable) = (ServiceName::new("canary")?, ServiceName::new("stable")?);
        let at = |percent: u32| {
            let percent = percent.min(100);
            let weights = [(canary.clone(), percent), (stable.clone(), 100 - percent)];
            let sticky = HeaderName::from_static("x-user");
            Split::new(weights).map(|split| split.sticky(sticky, "checkout"))
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::try_from(user)?);
        let (before, after) = (at(from)?, at(from + step)?);
        prop_assert_eq!(before.choose(&headers, 0), before.choose(&headers, u64::MAX));
        if before.choose(&headers, 0) == &canary {
            prop_assert_eq!(after.choose(&headers, 0), &canary);
        }
    }
}

#[test]
fn sticky_shares_are_fair_and_groups_independent() -> Checked {
    let (one, other) = (ServiceName::new("one")?, ServiceName::new("other")?);
    let split = |salt: &str| -> Result<Split, Failure> {
        let split = Split::new([(one.clone(), 1), (other.clone(), 1)])?;
        Ok(split.sticky(HeaderName::from_static("x-user"), salt))
    };
    let (first, second) = (split("first")?, split("second")?);
    let mut counts = [[0_u32; 2]; 2];
    for user in 0..10_000 {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from(user));
        let chosen = |split: &Split| usize::from(split.choose(&headers, 0) == &one);
        counts[chosen(&first)][chosen(&second)] += 1;
    }
    for count in counts.into_iter().flatten() {
        // Four standard deviations of a binomial of 10,000 with 1/4.
        assert!((2_327..=2_673).contains(&count), "{counts:?}");
    }
    Ok(())
}

#[test]
fn routes_that_make_no_sense_are_refused() -> Checked {
    for path in ["", "orders", "/a?b", "/a#b", "/a b", "/\u{e9}"] {
        assert!(PathPattern::prefix(path).is_err(), "{path}");
        assert!(PathPattern::exact(path).is_err(), "{path}");
    }
    for host in ["", "*", "*.", "a.*.b", "a..b", "a b", "http://a"] {
        assert!(host.parse::<HostPattern>().is_err(), "{host}");
    }
    let twice = [Route::to("a", "x".parse()?), Route::to("a", "y".parse()?)];
    let error = Table::new(twice).expect_err("the name is used twice");
    assert_eq!(error.to_string(), "two routes are named \"a\"");
    let heavy = Split::new([("x".parse()?, 1_000_001)]).expect_err("too heavy");
    assert_eq!(heavy.to_string(), "weight 1000001 of x exceeds 1000000");
    Ok(())
}
