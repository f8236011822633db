use orchestra_core::{Locality, Proximity};
use proptest::prelude::*;

fn any_locality() -> impl Strategy<Value = Locality> {
    ("[ab]{0,1}", "[ab]{0,1}", "[ab]{0,1}")
        .prop_map(|(region, zone, subzone)| Locality::new(&region).zone(&zone).subzone(&subzone))
}

proptest! {
    #[test]
    fn proximity_is_symmetric(a in any_locality(), b in any_locality()) {
        prop_assert_eq!(a.proximity(&b), b.proximity(&a));
    }

    #[test]
    fn nearness_needs_every_outer_part(a in any_locality(), b in any_locality()) {
        let same = a.parts().iter().zip(b.parts()).take_while(|(a, b)| a.is_some() && **a == *b).count();
        let expected =
            [Proximity::Remote, Proximity::Region, Proximity::Zone, Proximity::Subzone][same];
        prop_assert_eq!(a.proximity(&b), expected);
    }
}

#[test]
fn the_unknown_is_near_to_nothing() {
    assert_eq!(
        Locality::default().proximity(&Locality::default()),
        Proximity::Remote
    );
    assert_eq!(Locality::default().to_string(), "unknown");
}
