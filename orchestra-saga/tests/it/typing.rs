//! What the types of a definition forbid, and what the compiler says then: the one of the workspace's
//! `rust-version`, by whose words `TRYBUILD=overwrite` writes the expected ones anew.

/// The program of which each mistake changes something.
#[path = "../ui/correct.rs"]
mod correct;

#[test]
fn without_a_mistake_it_compiles_and_runs() {
    correct::main().expect("a valid definition");
}

#[test]
#[ignore = "has the compiler look at all dependencies once more; `.ci/run features` runs it"]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/mistakes/*.rs");
}
