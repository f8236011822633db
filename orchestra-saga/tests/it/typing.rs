//! What the types of a definition forbid, and what the compiler says then: the one of the workspace's
//! `rust-version`, by whose words `TRYBUILD=overwrite` writes the expected ones anew.

#[test]
fn mistakes_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/correct.rs");
    cases.compile_fail("tests/ui/mistakes/*.rs");
}
