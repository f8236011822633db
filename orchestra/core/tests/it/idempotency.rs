use orchestra_core::IdempotencyKey;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_key_is_visible_ascii_of_bounded_length(text in "\\PC{0,300}") {
        let valid = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        prop_assert_eq!(IdempotencyKey::new(&text).is_ok(), valid);
    }

    #[test]
    fn a_key_survives_its_text(text in "[!-~]{1,255}") {
        let key = IdempotencyKey::new(&text).unwrap();
        prop_assert_eq!(key.to_string().parse::<IdempotencyKey>().unwrap(), key);
    }
}
