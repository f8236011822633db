//! Golden values: the tables of Envoy's documentation of load balancer subsets, and its `subset_test.cc`.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.fold(Labels::new(), |labels, pair| {
        let (key, value) = pair.split_once('=').unwrap();
        labels.with(key, value).unwrap()
    })
}

fn members(texts: &[&str]) -> Vec<Labels> {
    texts.iter().map(|text| labels(text)).collect()
}

fn config<const N: usize>(selectors: [SubsetSelector; N], fallback: Fallback) -> SubsetConfig {
    SubsetConfig::new(selectors, fallback).unwrap()
}

fn own(fallback: Fallback) -> SelectorFallback {
    SelectorFallback::Own(fallback)
}

#[test]
fn the_documented_example() {
    let members = members(&[
        "v=1.0,stage=prod",
        "v=1.0,stage=prod",
        "v=1.1,stage=canary",
        "v=1.2-pre,stage=dev",
    ]);
    let config = config(
        [
            SubsetSelector::new(["v", "stage"]),
            SubsetSelector::new(["stage"]).fallback(own(Fallback::NoFallback)),
        ],
        Fallback::DefaultSubset(labels("stage=prod")),
    );
    let plan = SubsetPlan::new(&config, &members);
    let golden = [
        ("stage=canary", Match::Subset(&[2])),
        ("v=1.2-pre,stage=dev", Match::Subset(&[3])),
        ("v=1.0", Match::Default(&[0, 1])),
        ("other=x", Match::Default(&[0, 1])),
        ("", Match::Default(&[0, 1])),
        ("stage=test", Match::Nobody),
        // A selector's keys and one more are not the selector's keys.
        ("v=1.0,stage=prod,zone=a", Match::Default(&[0, 1])),
    ];
    for (asked, found) in golden {
        assert_eq!(plan.find(&labels(asked)), found, "{asked}");
    }
    assert_eq!(plan.len(), 6);
}

#[test]
fn a_general_fallback_serves_calls_that_match_nothing() {
    let members = members(&["version=1.0", "version=1.1", "version=new"]);
    let find = |fallback, asked| {
        let config = config([SubsetSelector::new(["version"])], fallback);
        match SubsetPlan::new(&config, &members).find(&labels(asked)) {
            Match::Subset(members) | Match::Default(members) => Some(members.to_vec()),
            Match::Any => Some(vec![0, 1, 2]),
            Match::Nobody => None,
        }
    };
    let default = || Fallback::DefaultSubset(labels("version=new"));
    assert_eq!(find(Fallback::NoFallback, "version=1.1"), Some(vec![1]));
    assert_eq!(find(Fallback::NoFallback, "version=1.2"), None);
    assert_eq!(find(Fallback::NoFallback, ""), None);
    assert_eq!(
        find(Fallback::AnyEndpoint, "version=1.2"),
        Some(vec![0, 1, 2])
    );
    assert_eq!(find(default(), "version=1.2"), Some(vec![2]));
}

#[test]
fn each_selector_may_have_its_own_fallback() {
    let members = members(&["env=prod,version=1", "env=dev,version=2"]);
    let config = config(
        [
            SubsetSelector::new(["version"]).fallback(own(Fallback::AnyEndpoint)),
            // Its keys begin with those of the next, which keeps its fallback all the same.
            SubsetSelector::new(["env", "version"]),
            SubsetSelector::new(["env"])
                .fallback(own(Fallback::DefaultSubset(labels("version=2")))),
        ],
        Fallback::NoFallback,
    );
    let plan = SubsetPlan::new(&config, &members);
    assert_eq!(plan.find(&labels("version=9")), Match::Any);
    assert_eq!(plan.find(&labels("env=test")), Match::Default(&[1]));
    assert_eq!(plan.find(&labels("env=prod,version=2")), Match::Nobody);
}

#[test]
fn a_fallback_to_fewer_keys_is_a_second_try_with_its_own_fallback() {
    let members = members(&["stage=prod,version=1", "stage=prod,version=2", "stage=dev"]);
    let config = config(
        [
            SubsetSelector::new(["stage", "version", "build"])
                .fallback(SelectorFallback::keys_subset(["version", "stage"])),
            SubsetSelector::new(["stage", "version"])
                .fallback(SelectorFallback::keys_subset(["stage"])),
            SubsetSelector::new(["stage"]).fallback(own(Fallback::AnyEndpoint)),
            SubsetSelector::new(["version", "zone"])
                .fallback(SelectorFallback::keys_subset(["zone"])),
        ],
        Fallback::DefaultSubset(labels("version=2")),
    );
    let plan = SubsetPlan::new(&config, &members);
    let golden = [
        ("stage=prod,version=2,build=7", Match::Subset(&[1])),
        ("stage=prod,version=3,build=7", Match::Subset(&[0, 1])),
        ("stage=dev,version=1", Match::Subset(&[2])),
        ("stage=test,version=1", Match::Any),
        // Nobody divides by the zone alone.
        ("version=1,zone=a", Match::Default(&[1])),
    ];
    for (asked, found) in golden {
        assert_eq!(plan.find(&labels(asked)), found, "{asked}");
    }
}

#[test]
fn panic_mode_replaces_an_empty_default_subset_only() {
    let members = members(&["version=1"]);
    let find = |fallback| {
        let config = config([], fallback).panic_mode_any();
        SubsetPlan::new(&config, &members).find(&Labels::new()) == Match::Any
    };
    assert!(find(Fallback::DefaultSubset(labels("version=default"))));
    assert!(!find(Fallback::DefaultSubset(labels("version=1"))));
    assert!(!find(Fallback::NoFallback));
}

#[test]
fn a_default_subset_without_labels_is_everybody() {
    let config = config([], Fallback::DefaultSubset(Labels::new()));
    let plan = SubsetPlan::new(&config, &members(&["a=1", "b=2"]));
    assert_eq!(plan.find(&labels("a=1")), Match::Default(&[0, 1]));
}

#[test]
fn of_single_host_subsets_the_first_member_serves() {
    let selector = SubsetSelector::new(["key"]).single_host_per_subset();
    let config = config([selector], Fallback::NoFallback);
    let plan = SubsetPlan::new(&config, &members(&["key=a", "key=b", "key=a", "key=a"]));
    assert_eq!(plan.find(&labels("key=a")), Match::Subset(&[0]));
    assert_eq!(plan.duplicates(), 2);
}

#[test]
fn the_first_of_several_wishes_that_anybody_matches_is_granted() {
    let config = config(
        [
            SubsetSelector::new(["version"]),
            SubsetSelector::new(["hardware"]),
        ],
        Fallback::NoFallback,
    );
    let plan = SubsetPlan::new(&config, &members(&["version=1", "version=2,hardware=c64"]));
    let wishes = members(&["version=3", "hardware=c64", "version=1"]);
    assert_eq!(plan.find_first(&wishes), Match::Subset(&[1]));
    assert_eq!(plan.find_first(&wishes[..1]), Match::Nobody);
    assert_eq!(plan.find_first([]), Match::Nobody);
}

#[test]
fn beyond_the_greatest_number_of_subsets_calls_fall_back() {
    let config = config([SubsetSelector::new(["id"])], Fallback::AnyEndpoint).max_subsets(2);
    let plan = SubsetPlan::new(&config, &members(&["id=a", "id=b", "id=c", "id=a", "id=c"]));
    assert_eq!((plan.len(), plan.unindexed()), (2, 2));
    assert_eq!(plan.find(&labels("id=a")), Match::Subset(&[0, 3]));
    assert_eq!(plan.find(&labels("id=c")), Match::Any);
}

#[test]
fn selectors_that_make_no_sense_are_refused() {
    let keys = |keys: &[&'static str]| SubsetSelector::new(keys.iter().copied());
    let fewer = |of: &[&'static str], fewer: &[&'static str]| {
        keys(of).fallback(SelectorFallback::keys_subset(fewer.iter().copied()))
    };
    let refused = [
        vec![keys(&[])],
        vec![keys(&["a", "b"]), keys(&["b", "a"])],
        vec![fewer(&["a", "b"], &[])],
        vec![fewer(&["a", "b"], &["a", "b"])],
        vec![fewer(&["a", "b"], &["c"])],
        vec![keys(&["a", "b"]).single_host_per_subset()],
    ];
    for selectors in refused {
        let result = SubsetConfig::new(selectors, Fallback::NoFallback);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let many = (0..65).map(|index| SubsetSelector::new([format!("key-{index}").as_str()]));
    assert!(SubsetConfig::new(many, Fallback::NoFallback).is_err());
}

const KEYS: [&str; 3] = ["a", "b", "c"];

fn some_labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof![Just(None), (0..3_u8).prop_map(Some)];
    [value.clone(), value.clone(), value].prop_map(|values| {
        let pairs = KEYS.into_iter().zip(values);
        pairs.fold(Labels::new(), |labels, (key, value)| match value {
            Some(value) => labels.with(key, &value.to_string()).unwrap(),
            None => labels,
        })
    })
}

fn some_keys() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(&KEYS, 1..=3)
}

fn some_fallback() -> impl Strategy<Value = Fallback> {
    prop_oneof![
        Just(Fallback::NoFallback),
        Just(Fallback::AnyEndpoint),
        some_labels().prop_map(Fallback::DefaultSubset),
    ]
}

type Wish = (Vec<&'static str>, Option<Fallback>, Option<usize>);

fn some_selectors() -> impl Strategy<Value = Vec<Wish>> {
    let one = (
        some_keys(),
        proptest::option::of(some_fallback()),
        proptest::option::of(0..7_usize),
    );
    proptest::collection::vec(one, 0..6).prop_map(|mut selectors: Vec<Wish>| {
        selectors.sort_by(|a, b| a.0.cmp(&b.0));
        selectors.dedup_by(|a, b| a.0 == b.0);
        selectors
    })
}

/// The keys at the set bits, if they are some and not all.
fn fewer(keys: &[&'static str], bits: usize) -> Option<Vec<&'static str>> {
    let kept = keys.iter().enumerate();
    let kept: Vec<_> = kept
        .filter(|(index, _)| bits >> index & 1 == 1)
        .map(|(_, key)| *key)
        .collect();
    (!kept.is_empty() && kept.len() < keys.len()).then_some(kept)
}

fn fallback_of((keys, fallback, bits): &Wish) -> SelectorFallback {
    match (bits.and_then(|bits| fewer(keys, bits)), fallback) {
        (Some(fewer), _) => SelectorFallback::keys_subset(fewer),
        (None, Some(fallback)) => own(fallback.clone()),
        (None, None) => SelectorFallback::General,
    }
}

/// The members that a call may go to, by walking over all of them.
fn model(
    selectors: &[Wish],
    general: &Fallback,
    members: &[Labels],
    asked: &BTreeMap<&str, &str>,
) -> Vec<usize> {
    let with = |wanted: &BTreeMap<&str, &str>| -> Vec<usize> {
        let has = |labels: &Labels| wanted.iter().all(|(k, v)| labels.value(k) == Some(*v));
        (0..members.len())
            .filter(|&index| has(&members[index]))
            .collect()
    };
    let fall = |fallback: &Fallback| match fallback {
        Fallback::NoFallback => Vec::new(),
        Fallback::AnyEndpoint => (0..members.len()).collect(),
        Fallback::DefaultSubset(labels) => with(&labels.iter().collect()),
    };
    let asked_keys: Vec<&str> = asked.keys().copied().collect();
    let Some(selector) = selectors.iter().find(|wish| wish.0 == asked_keys) else {
        return fall(general);
    };
    let found = with(asked);
    if !found.is_empty() {
        return found;
    }
    match fallback_of(selector) {
        SelectorFallback::General => fall(general),
        SelectorFallback::Own(fallback) => fall(&fallback),
        SelectorFallback::KeysSubset(keys) => {
            let mut fewer = asked.clone();
            fewer.retain(|key, _| keys.iter().any(|kept| **kept == **key));
            model(selectors, general, members, &fewer)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_finds_what_a_walk_over_all_members_finds(
        selectors in some_selectors(),
        general in some_fallback(),
        members in proptest::collection::vec(some_labels(), 0..12),
        asked in some_labels(),
    ) {
        let built = selectors
            .iter()
            .map(|wish| SubsetSelector::new(wish.0.iter().copied()).fallback(fallback_of(wish)));
        let config = SubsetConfig::new(built, general.clone()).unwrap();
        let plan = SubsetPlan::new(&config, &members);
        let found: Vec<usize> = match plan.find(&asked) {
            Match::Subset(found) | Match::Default(found) => {
                found.iter().map(|&position| position as usize).collect()
            }
            Match::Any => (0..members.len()).collect(),
            Match::Nobody => Vec::new(),
        };
        let asked = asked.iter().collect();
        prop_assert_eq!(found, model(&selectors, &general, &members, &asked));
    }
}
