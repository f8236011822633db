use std::collections::BTreeSet;
use std::sync::Arc;

use orchestra_core::{Labels, Operator, Requirement, Selector};
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().fold(Labels::new(), |labels, (key, value)| {
        labels.with(key, value).unwrap()
    })
}

fn matches(selector: &str, pairs: &[(&str, &str)]) -> bool {
    selector
        .parse::<Selector>()
        .unwrap()
        .matches(&labels(pairs))
}

/// The table of `k8s.io/apimachinery/pkg/labels/selector_test.go`, as far as its cases are valid labels.
#[test]
fn selectors_match_as_in_kubernetes() {
    for (selector, pairs, expected) in [
        ("", &[("x", "y")][..], true),
        ("x=y", &[("x", "y")], true),
        ("x=y,z=w", &[("x", "y"), ("z", "w")], true),
        ("x!=y,z!=w", &[("x", "z"), ("z", "a")], true),
        ("notin=in", &[("notin", "in")], true),
        ("x", &[("x", "z")], true),
        ("!x", &[("y", "z")], true),
        ("x>1", &[("x", "2")], true),
        ("x<1", &[("x", "0")], true),
        ("x=z", &[], false),
        ("x=y", &[("x", "z")], false),
        ("x=y,z=w", &[("x", "w"), ("z", "w")], false),
        ("x!=y,z!=w", &[("x", "z"), ("z", "w")], false),
        ("x", &[("y", "z")], false),
        ("!x", &[("x", "z")], false),
        ("x>1", &[("x", "0")], false),
        ("x<1", &[("x", "2")], false),
        ("x in (a,b)", &[("x", "b")], true),
        ("x in (a,b)", &[("x", "c")], false),
        ("x in (a,b)", &[], false),
        ("x notin (a,b)", &[("x", "c")], true),
        ("x notin (a,b)", &[], true),
        ("x notin (a,b)", &[("x", "a")], false),
        ("x=", &[("x", "")], true),
        ("x=", &[], false),
        ("x in (,a)", &[("x", "")], true),
        ("x>1", &[("x", "two")], false),
        ("x>1", &[], false),
        ("x<1", &[], false),
    ] {
        assert_eq!(
            matches(selector, pairs),
            expected,
            "{selector:?} on {pairs:?}"
        );
    }
}

#[test]
fn selectors_parse_and_print_as_in_kubernetes() {
    for (text, printed) in [
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        ("x!=a,y=b", "x!=a,y=b"),
        ("x==a", "x=a"),
        (" x = a , y ", "x=a,y"),
        ("x in (b,a)", "x in (a,b)"),
        ("x in (a)", "x=a"),
        ("x notin (a)", "x!=a"),
        ("x notin (a,c,b)", "x notin (a,b,c)"),
        ("! x", "!x"),
        ("x>1,y<-2", "x>1,y<-2"),
        ("in in (in)", "in=in"),
        ("z,a", "a,z"),
        ("example.com/x=1", "example.com/x=1"),
    ] {
        assert_eq!(
            text.parse::<Selector>().unwrap().to_string(),
            printed,
            "{text:?}"
        );
    }
    for text in [
        "x=a||y=b",
        "x==a==b",
        "!x=a",
        "x<a",
        "x in",
        "x in a",
        "x in (a",
        "x in a)",
        "x,,y",
        ",x",
        "x,",
        "x>",
        "x y",
        "a/b/c",
        "/x",
        "-x",
        "x=-",
        "x in ()a",
        "x=a b",
        "x>9223372036854775808",
    ] {
        assert!(text.parse::<Selector>().is_err(), "{text:?}");
    }
}

#[test]
fn an_error_tells_where() {
    assert_eq!("x=a, y ? b".parse::<Selector>().unwrap_err().position(), 7);
    assert!(
        "x".repeat(1 << 20)
            .parse::<Selector>()
            .unwrap_err()
            .to_string()
            .contains("64 KiB")
    );
}

#[test]
fn a_label_out_of_bounds_is_refused() {
    let labels = Labels::new;
    assert!(labels().with(&"k".repeat(64), "v").is_err());
    assert!(labels().with("k", &"v".repeat(64)).is_err());
    assert!(
        labels()
            .with(&format!("{}/k", "p".repeat(254)), "v")
            .is_err()
    );
    assert!(labels().with("Up/k", "v").is_err());
    assert!(labels().with("k", "a b").is_err());
    assert!(labels().with("k", "").is_ok());
    assert!(Requirement::new("k", Operator::In(BTreeSet::new())).is_err());
}

#[test]
fn a_changed_copy_leaves_the_original() {
    let one = labels(&[("a", "1")]);
    let two = one.clone().with("a", "2").unwrap();
    assert_eq!((one.value("a"), two.value("a")), (Some("1"), Some("2")));
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let values = || {
        prop::collection::btree_set("[a-c]{0,1}|[0-9]{1,2}", 1..4).prop_map(|set| {
            set.iter()
                .map(|v| Arc::from(v.as_str()))
                .collect::<BTreeSet<Arc<str>>>()
        })
    };
    let operator = prop_oneof![
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
        (-20_i64..20).prop_map(Operator::Gt),
        (-20_i64..20).prop_map(Operator::Lt),
    ];
    ("[a-d]|in|notin", operator).prop_map(|(key, op)| Requirement::new(&key, op).unwrap())
}

fn any_labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-d]|in|notin", "[a-c]{0,1}|-?[0-9]{1,2}", 0..5).prop_map(
        |pairs| {
            pairs.iter().fold(Labels::new(), |labels, (key, value)| {
                labels.clone().with(key, value).unwrap_or(labels)
            })
        },
    )
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(requirements in prop::collection::vec(any_requirement(), 0..6)) {
        let selector: Selector = requirements.into_iter().collect();
        let text = selector.to_string();
        prop_assert_eq!(text.parse::<Selector>().unwrap(), selector, "{}", text);
    }

    #[test]
    fn opposite_operators_never_agree(labels in any_labels(), requirement in any_requirement()) {
        let opposite = match requirement.operator().clone() {
            Operator::In(values) => Operator::NotIn(values),
            Operator::NotIn(values) => Operator::In(values),
            Operator::Exists => Operator::DoesNotExist,
            Operator::DoesNotExist => Operator::Exists,
            _ => return Ok(()),
        };
        let opposite = Requirement::new(requirement.key(), opposite).unwrap();
        prop_assert_ne!(requirement.matches(&labels), opposite.matches(&labels));
    }

    #[test]
    fn a_selector_is_the_conjunction_of_its_requirements(
        labels in any_labels(), requirements in prop::collection::vec(any_requirement(), 0..6),
    ) {
        let all = requirements.iter().all(|requirement| requirement.matches(&labels));
        let selector: Selector = requirements.into_iter().collect();
        prop_assert_eq!(selector.matches(&labels), all);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,40}|[a-c!=<>(), ]{0,30}") {
        let _unused = text.parse::<Selector>();
    }
}
