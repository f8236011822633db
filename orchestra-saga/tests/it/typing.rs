//! What the types of a definition forbid, and what the compiler says then.

#[test]
fn mistakes_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/correct.rs");
    cases.compile_fail("tests/ui/mistakes/*.rs");
}
