//! What the documentation says is shown by tests that are there.

use std::path::{Path, PathBuf};

const FAILURES: &str = include_str!("../../FAILURES.md");

/// The source of the module that a path of the documentation names.
fn source(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (target, module) = path.split_once("::").expect("a target and a module");
    let directory = match target {
        "journal" => root.join("src/store/journal/tests"),
        target => root.join("tests").join(target),
    };
    directory
        .join(module.replace("::", "/"))
        .with_extension("rs")
}

#[test]
fn every_line_of_the_failure_matrix_names_a_test_that_is_there() {
    let rows = FAILURES
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("shown by"));
    let mut tests = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let shown = cells.last().expect("a cell");
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(
            cells.len() == 3 && !names.is_empty(),
            "without a test: {row}"
        );
        for name in names {
            let (module, test) = name.rsplit_once("::").expect("a path");
            let text = std::fs::read_to_string(source(module)).expect(module);
            let is_test = text.split("#[").any(|item| {
                let is_marked = item.starts_with("test]") || item.starts_with("tokio::test");
                is_marked && item.contains(&format!("fn {test}("))
            });
            assert!(is_test, "no test {name}");
            tests += 1;
        }
    }
    assert!(tests > 40, "{tests}");
}
