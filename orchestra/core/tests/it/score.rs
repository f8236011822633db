use orchestra_core::Score;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_number_becomes_a_score(value in prop::num::f64::ANY) {
        let score = Score::clamped(value).value();
        prop_assert!((0.0..=1.0).contains(&score) && score.is_sign_positive());
    }

    #[test]
    fn only_numbers_within_bounds_are_accepted(value in prop::num::f64::ANY) {
        prop_assert_eq!(Score::new(value).is_ok(), (0.0..=1.0).contains(&value));
    }

    #[test]
    fn scores_order_as_their_numbers(a in 0.0..=1.0_f64, b in 0.0..=1.0_f64) {
        let (x, y) = (Score::new(a).unwrap(), Score::new(b).unwrap());
        prop_assert_eq!(Some(x.cmp(&y)), a.partial_cmp(&b));
    }
}

#[test]
fn the_two_zeros_are_one_score() {
    assert_eq!(
        Score::new(-0.0).unwrap().cmp(&Score::ZERO),
        std::cmp::Ordering::Equal
    );
}
