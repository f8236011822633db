//! Input that is wrong, foolish or hostile gets a typed error or what is documented for it, and takes no memory.
//!
//! What single backends make of it is with them: a file's mistakes in `source::file`, records of strangers in
//! the suites of etcd, NATS and Redis, answers of DNS in `dns`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use orchestra_core::{Endpoint, InstanceId, Labels, Locality, ServiceName};
use orchestra_discovery::cache::SourceOptions;
use orchestra_discovery::locality::ZoneConfig;
use orchestra_discovery::resolver::{Config, Zoning};
use orchestra_discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
use orchestra_discovery::{
    Cache, Change, ErrorKind, Event, Instance, MemoryRegistry, Registry, Resolver, Revision,
    RoundRobin, Scope, Snapshot,
};
use orchestra_testkit::retained;

use crate::cache::{at, config};
use crate::common::{asked, calm, draw, instance, service, snapshot, with_members};
use crate::doubles::heard;

const TEN_MEGABYTES: usize = 10 << 20;
const TTL: Duration = Duration::from_secs(9);

fn shares(resolver: &Resolver, picks: u64) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for number in 0..picks {
        let call = draw(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let id = resolver.pick(&call).unwrap().instance().id.to_string();
        *shares.entry(id).or_default() += 1;
    }
    shares
}

fn round_robin() -> Config {
    Config::default().balancer(std::sync::Arc::new(RoundRobin::default()))
}

#[test]
fn an_id_given_twice_is_one_instance_the_one_of_the_greatest_incarnation() {
    let ghost = |incarnation, weight| {
        let mut ghost = instance("p-1", incarnation);
        ghost.weight = weight;
        ghost
    };
    let members = [
        ghost(1, 100),
        ghost(3, 1),
        ghost(2, 100),
        instance("p-2", 1),
    ];
    let resolver = with_members(round_robin(), members);
    let incarnations: Vec<_> = resolver
        .members()
        .iter()
        .map(|member| member.incarnation.as_u64())
        .collect();
    assert_eq!(incarnations, [3, 1]);
    assert_eq!(
        shares(&resolver, 100),
        [("p-1".to_owned(), 50), ("p-2".to_owned(), 50)].into()
    );
    // Nor does a change bring the id a second time, or an older one back.
    let again = [ghost(2, 9), ghost(3, 1)].map(|it| Change::Upserted(it.into()));
    resolver.advance(Revision::new(2), &again);
    assert_eq!(resolver.members().len(), 2);
    assert_eq!(resolver.members()[0].incarnation.as_u64(), 3);
}

#[test]
fn the_greatest_weights_do_not_overflow() {
    let mut heavy = [instance("p-1", 1), instance("p-2", 1), instance("p-3", 1)];
    for (instance, weight) in heavy.iter_mut().zip([u32::MAX, u32::MAX, 0]) {
        instance.weight = weight;
    }
    for config in [Config::default(), round_robin()] {
        let shares = shares(&with_members(config, heavy.clone()), 2_000);
        assert_eq!(shares.len(), 2, "weight zero takes none: {shares:?}");
        assert!(shares.values().all(|&count| count > 800), "{shares:?}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn what_is_no_weight_endpoint_id_or_label_is_no_instance() {
    let written = serde_json::to_value(instance("p-1", 1)).unwrap();
    let read = |field: &str, value: &str| -> Result<Instance, String> {
        let mut written = written.clone();
        written[field] = serde_json::from_str(value).map_err(|error| error.to_string())?;
        serde_json::from_value(written).map_err(|error| error.to_string())
    };
    assert_eq!(read("weight", "7").unwrap().weight, 7);
    for weight in [
        "NaN",
        "-1",
        "-0.5",
        "0.5",
        "1e3",
        "4294967296",
        "1e999",
        "\"1\"",
        "null",
        "[]",
    ] {
        assert!(read("weight", weight).is_err(), "{weight}");
    }
    for endpoint in [
        "\"\"",
        "\"10.0.0.1\"",
        "\"10.0.0.1:70000\"",
        "\"a b:80\"",
        "80",
        "null",
    ] {
        assert!(read("endpoint", endpoint).is_err(), "{endpoint}");
    }
    for id in ["\"\"", "\"a\\nb\"", "\"a b\"", "1"] {
        assert!(read("id", id).is_err(), "{id}");
    }
    let label = format!(r#"{{"version": "{}"}}"#, "x".repeat(TEN_MEGABYTES));
    let error = read("labels", &label).unwrap_err();
    assert!(error.len() < 1_000, "{} bytes", error.len());
}

#[test]
fn malformed_addresses_are_errors_that_name_them() {
    let wrong = [
        "",
        ":",
        ":80",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:-1",
        "10.0.0.1:65536",
        "10.0.0.256:80",
        "[::1]",
        "[::1:80",
        "::1:80",
        "[::g]:80",
        "http://10.0.0.1:80",
        "10.0.0.1:80/path",
        "a b:80",
        "-a:80",
        "a..b:80",
        "unix:",
        "unix:relative",
        "10.0.0.1:80\n",
        "10.0.0.1:80\0",
        "\u{ff11}:80",
    ];
    for text in wrong {
        let error = text.parse::<Endpoint>().unwrap_err().to_string();
        let named = text.strip_prefix("unix:").unwrap_or(text);
        assert!(error.contains(&format!("{named:?}")), "{error}");
    }
    let huge = "x".repeat(TEN_MEGABYTES);
    assert!(huge.parse::<Endpoint>().unwrap_err().to_string().len() < 1_000);
}

#[test]
fn ten_megabytes_are_no_label_and_no_name_and_are_not_kept() {
    let huge = "x".repeat(TEN_MEGABYTES);
    let (errors, bytes) = retained(|| {
        [
            Labels::new()
                .with("version", &huge)
                .unwrap_err()
                .to_string(),
            Labels::new().with(&huge, "1").unwrap_err().to_string(),
            huge.parse::<ServiceName>().unwrap_err().to_string(),
            huge.parse::<InstanceId>().unwrap_err().to_string(),
        ]
    });
    assert!(bytes < 4_096, "{bytes} bytes are kept");
    assert!(errors.iter().all(|error| error.len() < 1_000), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_megabytes_of_locality_are_refused_by_the_registry() {
    let registry = MemoryRegistry::default();
    let place = Locality::new(&"x".repeat(TEN_MEGABYTES));
    let error = registry
        .register(asked("p-1", TTL).locality(place))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().len() < 1_000);
}

fn placed(number: u32, zone: &str) -> Instance {
    let mut placed = instance(&format!("p-{number}"), 1);
    placed.locality = Locality::new("eu").zone(zone);
    placed
}

#[test]
fn a_caller_in_a_zone_that_does_not_exist_calls_everywhere() {
    let nowhere = Locality::new("atlantis").zone("z");
    let aware = Zoning::Aware {
        own: nowhere.clone(),
        config: ZoneConfig::default(),
    };
    let weighted = Zoning::Weighted(vec![(nowhere.clone(), u32::MAX)]);
    for zoning in [aware, weighted] {
        let members = (0..8).map(|n| placed(n, if n < 4 { "a" } else { "b" }));
        let resolver = with_members(round_robin().zoning(zoning.clone()), members);
        // Its callers are said to be where nobody is, and then nowhere at all.
        for place in [nowhere.clone(), Locality::default()] {
            let mut caller = instance("c-1", 1);
            caller.locality = place;
            resolver.set_callers(&snapshot([caller]));
            let shares = shares(&resolver, 8_000);
            let even = shares.values().all(|&count| (800..1_200).contains(&count));
            assert!(shares.len() == 8 && even, "{zoning:?}: {shares:?}");
        }
    }
}

/// Whoever registers says where it is, and may say something else each time.
#[test]
fn made_up_zones_take_no_memory() {
    let zoning = Zoning::Aware {
        own: Locality::new("eu").zone("a"),
        config: ZoneConfig::default(),
    };
    for config in [Config::default(), Config::default().zoning(zoning)] {
        let resolver = Resolver::new(service(), calm(config));
        let mut number = 0;
        let mut move_about = |times: u32| {
            for _ in 0..times {
                number += 1;
                let zone = format!("zone-{number}");
                let members = [placed(0, "a"), placed(1, "b"), placed(2, &zone)];
                resolver.apply(&snapshot(members));
                resolver.set_callers(&snapshot([placed(0, "a"), placed(1, &zone)]));
            }
        };
        move_about(2_000);
        let ((), bytes) = retained(|| move_about(2_000));
        assert!(bytes < 4_096, "{bytes} bytes more for 2,000 more zones");
        // Whoever is in one of them is called as others are.
        assert_eq!(shares(&resolver, 1_000).len(), 3);
    }
}

#[test]
fn made_up_labels_are_bounded_told_and_fall_back() {
    let subsets = SubsetConfig::new([SubsetSelector::new(["id"])], Fallback::AnyEndpoint);
    let (heard, listener) = heard();
    let config = Config::default()
        .subsets(subsets.unwrap().max_subsets(2))
        .listener(listener);
    let labelled = |number: u32| {
        let mut labelled = instance(&format!("p-{number}"), 1);
        labelled.labels = Labels::new().with("id", &number.to_string()).unwrap();
        labelled
    };
    let resolver = with_members(config, (0..2).map(labelled));
    let told = || -> Vec<u64> {
        let heard = std::mem::take(&mut *heard.lock());
        let told = heard.iter().filter_map(|event| match event {
            Event::SubsetsExceeded {
                service: of,
                unindexed,
            } => {
                assert_eq!(*of, service());
                Some(*unindexed)
            }
            _ => None,
        });
        told.collect()
    };
    assert!(told().is_empty(), "two have room");
    resolver.apply(&snapshot((0..5).map(labelled)));
    resolver.apply(&snapshot((0..9).map(labelled)));
    assert_eq!(told(), [3], "told when it begins, not with each change");
    let wanted = Labels::new().with("id", "4").unwrap();
    assert!(resolver.pick(&draw(1).subset(&wanted)).is_ok());
    resolver.apply(&snapshot((0..1).map(labelled)));
    assert_eq!(told(), [0]);
}

#[test]
fn calls_for_made_up_subsets_take_no_memory() {
    let subsets = SubsetConfig::new([SubsetSelector::new(["id"])], Fallback::NoFallback);
    let resolver = with_members(
        Config::default().subsets(subsets.unwrap()),
        [instance("p-1", 1)],
    );
    let ask = |from: u32| {
        for number in from..from + 1_000 {
            let asked = Labels::new().with("id", &number.to_string()).unwrap();
            assert!(
                resolver
                    .pick(&draw(1).subset(&asked))
                    .unwrap_err()
                    .no_subset
            );
        }
    };
    ask(0);
    assert_eq!(retained(|| ask(1_000)).1, 0);
}

#[test]
fn service_names_from_requests_take_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let mut bounded = config();
    bounded.max_negative = NonZeroUsize::new(64).unwrap();
    let registry = MemoryRegistry::default();
    let cache = runtime.block_on(async {
        registry
            .register(at("p-1", "10.0.0.1:80", TTL))
            .await
            .unwrap();
        Cache::builder()
            .config(bounded)
            .source(
                "registry",
                std::sync::Arc::new(registry),
                SourceOptions::default(),
            )
            .build()
            .unwrap()
    });
    let ask = |from: u32| {
        runtime.block_on(async {
            for number in from..from + 2_000 {
                let name = format!("made-up-{number:05}").parse().unwrap();
                let answer = cache.lookup(&name).await.unwrap();
                assert!(answer.snapshot.instances().is_empty());
            }
            // What was dropped has ended.
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
    };
    ask(0);
    let ((), bytes) = retained(|| ask(2_000));
    assert!(bytes < 16_384, "{bytes} bytes more for 2,000 more names");
    assert!(cache.services() <= 64);
}

/// Those of another service are passed over, however they come.
#[test]
fn members_of_another_service_are_not_called() {
    let mut stranger = instance("x-1", 1);
    stranger.service = "another".parse().unwrap();
    let resolver = Resolver::new(service(), calm(Config::default()));
    let members = vec![stranger.clone().into(), instance("p-1", 1).into()];
    resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), members));
    resolver.advance(Revision::new(2), &[Change::Upserted(stranger.into())]);
    assert_eq!(shares(&resolver, 100), [("p-1".to_owned(), 100)].into());
}
