//! Calls that ask for a part of the instances.

use std::time::Duration;

use http::StatusCode;
use orchestra::Orchestra;
use orchestra::core::{Labels, Selector};
use orchestra::discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
use orchestra::mesh::error::Kind;

use crate::support::{Counted, get, known, no_retries, status};

/// How many of twenty calls go to each of two instances of version 1 and one of version 2, or the error.
async fn shares(orchestra: &Orchestra, asked: &str) -> Result<[u32; 3], Kind> {
    let mut instances = Vec::new();
    for (id, version) in [("one", "1"), ("two", "1"), ("three", "2")] {
        let labels = Labels::new().with("version", version).unwrap();
        let well = |_| status(StatusCode::OK);
        instances.push(Counted::start(orchestra, id, labels, well).await);
    }
    known(orchestra, "cart", 3).await;
    let client = orchestra.client("cart").unwrap();
    for _ in 0..20 {
        let mut request = get("/");
        let selector: Selector = asked.parse().unwrap();
        request.extensions_mut().insert(selector);
        client.send(request).await.map_err(|error| error.kind())?;
    }
    let calls: Vec<_> = instances.iter().map(Counted::calls).collect();
    Ok(calls.try_into().unwrap())
}

#[tokio::test]
async fn a_subset_is_looked_up_where_the_resolver_has_it_and_matched_where_not() {
    let by = |keys: &[&str], fallback| {
        let selector = SubsetSelector::new(keys.iter().copied());
        Some(SubsetConfig::new([selector], fallback).unwrap())
    };
    let any = || by(&["version"], Fallback::AnyEndpoint);
    let none = || by(&["version"], Fallback::NoFallback);
    let nobody = Err(Kind::NoEndpoint);
    let cases = [
        (none(), "version=1", Ok([true, true, false])),
        (none(), "version=2", Ok([false, false, true])),
        (none(), "version=3", nobody),
        // Only a subset that is looked up has a fallback.
        (any(), "version=3", Ok([true, true, true])),
        (None, "version=3", nobody),
        (by(&["stage"], Fallback::AnyEndpoint), "version=3", nobody),
        (
            by(&["stage"], Fallback::AnyEndpoint),
            "version=2",
            Ok([false, false, true]),
        ),
        // What labels cannot express is matched.
        (any(), "version!=2", Ok([true, true, false])),
        (any(), "version in (2,3)", Ok([false, false, true])),
        (any(), "version>2", nobody),
    ];
    for (subsets, asked, expected) in cases {
        let case = format!("{asked} of {subsets:?}");
        let orchestra = Orchestra::builder()
            .policy(no_retries())
            .seed(3)
            .resolver(move |_, config| match &subsets {
                Some(subsets) => config.subsets(subsets.clone()),
                None => config,
            })
            .build()
            .await
            .unwrap();
        let shares = shares(&orchestra, asked).await;
        let called = shares.map(|shares| shares.map(|calls| calls > 0));
        assert_eq!(called, expected, "{case}");
        orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}
