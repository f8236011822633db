use proptest::prelude::*;

use super::*;
use crate::instance::{Incarnation, Override, Status};

fn instance(id: &str, endpoint: &str, incarnation: u64) -> Instance {
    let (id, endpoint) = (id.parse().unwrap(), endpoint.parse().unwrap());
    Instance::new(
        "orders".parse().unwrap(),
        id,
        Incarnation::new(incarnation),
        endpoint,
    )
}

fn says<const N: usize>(source: &str, instances: [Instance; N]) -> Statement {
    Statement::new(source, instances.into_iter().map(Arc::new).collect())
}

fn ids(statements: &[Statement]) -> Vec<String> {
    let merged = merge(statements);
    merged
        .iter()
        .map(|merged| merged.instance().id.to_string())
        .collect()
}

#[test]
fn same_endpoint_is_the_same_instance_however_it_is_spelt() {
    let registry = says("registry", [instance("r", "10.0.0.1:80", 3)]);
    for (spelt, expected) in [
        ("10.0.0.1:80", vec!["r"]),
        ("[::ffff:10.0.0.1]:80", vec!["r"]),
        ("10.0.0.1:81", vec!["d", "r"]),
        ("[::10.0.0.1]:80", vec!["d", "r"]),
    ] {
        let dns = says("dns", [instance("d", spelt, 0)]).without_leases();
        assert_eq!(ids(&[registry.clone(), dns]), expected, "{spelt}");
    }
}

#[test]
fn ids_of_one_source_stay_apart_on_one_endpoint() {
    let one = says(
        "a",
        [
            instance("x", "10.0.0.1:80", 1),
            instance("y", "10.0.0.1:80", 2),
        ],
    );
    let two = says("b", [instance("z", "10.0.0.1:80", 1)]);
    assert_eq!(ids(&[one, two]), ["x", "y"]);
}

#[test]
fn duplicate_id_within_a_source_is_its_greatest_incarnation() {
    let twice = says(
        "a",
        [
            instance("x", "10.0.0.1:80", 1),
            instance("x", "10.0.0.2:80", 2),
        ],
    );
    let statements = [twice];
    let merged = merge(&statements);
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0].instance().incarnation, Incarnation::new(2));
}

#[test]
fn id_binds_more_than_an_endpoint_and_nothing_gets_a_double_share() {
    let first = says("a", [instance("x", "10.0.0.1:80", 1)]);
    let second = says(
        "b",
        [
            instance("w", "10.0.0.1:80", 1),
            instance("x", "10.0.0.2:80", 1),
        ],
    );
    let statements = [first, second];
    let merged = merge(&statements);
    assert_eq!(merged.len(), 1);
    assert_eq!(*merged[0].instance(), instance("x", "10.0.0.1:80", 1));
}

#[test]
fn each_field_comes_from_the_first_source_that_states_it() {
    let mut dns = instance("d", "10.0.0.1:80", 0);
    (dns.weight, dns.priority) = (7, 2);
    dns.labels = [("zone", "dns"), ("shard", "4")].try_into().unwrap();
    let mut registry = instance("r", "10.0.0.1:80", 9);
    (registry.weight, registry.status) = (3, Status::Draining);
    registry.forced = Some(Override::OutOfService);
    registry.labels = [("zone", "registry"), ("tier", "gold")].try_into().unwrap();
    let mut file = instance("r", "10.0.0.1:80", 0);
    file.locality = Locality::new("eu").zone("a");
    file.probe = Some(Arc::default());
    let statements = [
        says("dns", [dns]).without_leases(),
        says("registry", [registry]),
        says("file", [file]).without_leases(),
    ];
    let merged = merge(&statements);
    assert_eq!(merged.len(), 1, "endpoint joins dns and registry and file");
    let mut expected = instance("d", "10.0.0.1:80", 9);
    (expected.weight, expected.priority, expected.status) = (7, 2, Status::Draining);
    expected.forced = Some(Override::OutOfService);
    expected.locality = Locality::new("eu").zone("a");
    expected.probe = Some(Arc::default());
    expected.labels = [("zone", "dns"), ("shard", "4"), ("tier", "gold")]
        .try_into()
        .unwrap();
    assert_eq!(*merged[0].instance(), expected);
    let told: Vec<_> = merged[0]
        .provenance()
        .into_iter()
        .map(|(field, source)| format!("{field}: {source}"))
        .collect();
    assert_eq!(
        told,
        [
            "id: dns",
            "endpoint: dns",
            "lease: registry",
            "weight: dns",
            "priority: dns",
            "override: registry",
            "locality: file",
            "probe: file",
            "label shard: dns",
            "label tier: registry",
            "label zone: dns",
        ]
    );
}

fn statements() -> impl Strategy<Value = Vec<Statement>> {
    let one = prop::collection::vec((0..6_u8, 0..6_u8, 0..3_u32), 0..7);
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let said = all.into_iter().enumerate().map(|(rank, rows)| {
            let made = rows.into_iter().map(|(id, host, weight)| {
                let mut made = instance(&format!("i{id}"), &format!("10.0.0.{host}:80"), 1);
                made.weight = weight;
                Arc::new(made)
            });
            Statement::new(format!("s{rank}"), made.collect())
        });
        said.collect()
    })
}

type Parts = Vec<(usize, InstanceId)>;

/// The rules as they are written, by search alone.
fn model(statements: &[Statement]) -> BTreeMap<InstanceId, Parts> {
    let mut found: Vec<(usize, Endpoint, Parts)> = Vec::new();
    for (rank, statement) in statements.iter().enumerate() {
        let mut left: Vec<_> = statement.instances.iter().collect();
        left.retain(|said| {
            let own = found
                .iter_mut()
                .find(|(founder, _, parts)| *founder < rank && parts[0].1 == said.id);
            own.map(|(_, _, parts)| parts.push((rank, said.id.clone())))
                .is_none()
        });
        for said in left {
            let own = found
                .iter_mut()
                .find(|(founder, endpoint, _)| *founder < rank && *endpoint == said.endpoint);
            match own {
                Some((_, _, parts)) if parts.last().unwrap().0 == rank => {}
                Some((_, _, parts)) => parts.push((rank, said.id.clone())),
                None => found.push((rank, said.endpoint.clone(), vec![(rank, said.id.clone())])),
            }
        }
    }
    let keyed = found
        .into_iter()
        .map(|(_, _, parts)| (parts[0].1.clone(), parts));
    keyed.collect()
}

proptest! {
    #[test]
    fn agrees_with_a_search(statements in statements()) {
        let merged = merge(&statements);
        let found: Vec<_> = merged
            .iter()
            .map(|merged| {
                let parts = merged.0.iter().map(|(statement, instance)| {
                    let rank = statement.source[1..].parse::<usize>().unwrap();
                    (rank, instance.id.clone())
                });
                (merged.instance().id.clone(), parts.collect::<Vec<_>>())
            })
            .collect();
        let expected: Vec<_> = model(&statements).into_iter().collect();
        prop_assert_eq!(found, expected);
        let told: Vec<_> = merged.iter().map(Merged::instance).collect();
        prop_assert_eq!(instances(statements.clone()), told);
        for merged in &merged {
            let weight = merged.0.iter().map(|(_, said)| said.weight).find(|&weight| weight != 1);
            prop_assert_eq!(merged.instance().weight, weight.unwrap_or(1));
        }
    }
}
