//! The rules of the family that a stable tool can check; `ARCHITECTURE.md` states them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const SIBLINGS: [&str; 5] = ["discovery", "scheduler", "saga", "mesh", "observe"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn packages() -> BTreeMap<String, Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|p| (p["name"].as_str().unwrap().to_owned(), p.clone()))
        .collect()
}

/// The names of a package's dependencies that are not for its tests, `(name, optional)`.
fn dependencies(package: &Value) -> Vec<(String, bool)> {
    package["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|d| {
            (
                d["name"].as_str().unwrap().to_owned(),
                d["optional"].as_bool().unwrap(),
            )
        })
        .collect()
}

/// Every Rust file below `folder`, with its text up to the unit tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, code));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no source");
    found
}

fn library_sources() -> Vec<(String, String)> {
    let mut all = sources("orchestra/src");
    all.extend(sources("orchestra/core/src"));
    for crate_name in SIBLINGS {
        all.extend(sources(&format!("orchestra-{crate_name}/src")));
    }
    all
}

/// The lines of code, without comments, in which `pattern` occurs.
fn lines_with<'a>(text: &'a str, pattern: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .filter(move |line| line.contains(pattern))
}

#[test]
fn no_sibling_depends_on_another() {
    let packages = packages();
    for crate_name in SIBLINGS {
        let package = &packages[&format!("orchestra-{crate_name}")];
        for (name, _) in dependencies(package) {
            let family = name.starts_with("orchestra");
            assert!(
                !family || name == "orchestra-core",
                "orchestra-{crate_name} depends on {name}"
            );
        }
    }
}

#[test]
fn core_requires_nothing_and_awaits_nothing() {
    for (name, optional) in dependencies(&packages()["orchestra-core"]) {
        assert!(optional, "orchestra-core requires {name}");
    }
    for (file, text) in sources("orchestra/core/src") {
        assert_eq!(lines_with(&text, "async ").next(), None, "{file}");
        assert_eq!(lines_with(&text, ".await").next(), None, "{file}");
    }
}

/// The modules that decide, by crate. They are told the time and the draw, and do no I/O.
const DECISIONS: &[(&str, &[&str])] = &[
    (
        "discovery",
        &["instance", "gate", "balance", "resolver", "slab"],
    ),
    (
        "scheduler",
        &[
            "workload",
            "resources",
            "node",
            "cluster",
            "filter",
            "score",
            "schedule",
            "reconcile",
        ],
    ),
    (
        "saga",
        &[
            "definition",
            "event",
            "machine",
            "retry",
            "status",
            "barrier/verdict",
            "outbox/judge",
        ],
    ),
    (
        "mesh",
        &[
            "route", "split", "breaker", "budget", "retry", "deadline", "pick",
        ],
    ),
    ("observe", &["label", "mask", "sample", "propagate"]),
];

#[test]
fn decisions_read_no_clock_no_chance_and_no_environment() {
    let forbidden = [
        "Instant::now",
        "SystemTime",
        "std::env",
        "env::var",
        "fastrand",
        "rand::",
        "tokio::time",
        "tokio::net",
        "tokio::fs",
        "tokio::task",
        "std::fs",
        "std::net::Tcp",
        ".now()",
        "async fn",
    ];
    for (crate_name, modules) in DECISIONS {
        for module in *modules {
            let file = format!("orchestra-{crate_name}/src/{module}.rs");
            let mut parts = vec![(
                file.clone(),
                std::fs::read_to_string(root().join(&file)).unwrap(),
            )];
            if root()
                .join(format!("orchestra-{crate_name}/src/{module}"))
                .is_dir()
            {
                parts.extend(sources(&format!("orchestra-{crate_name}/src/{module}")));
            }
            for (file, text) in parts {
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
                for pattern in forbidden {
                    let line = lines_with(code, pattern).next();
                    assert_eq!(line, None, "{file} decides and uses {pattern}");
                }
            }
        }
    }
}

#[test]
fn there_is_no_global_state() {
    for (file, text) in library_sources() {
        for line in text.lines().map(str::trim) {
            let is_static = ["static ", "pub static ", "pub(crate) static "]
                .iter()
                .any(|prefix| line.starts_with(prefix));
            let mutable = [
                "Mutex",
                "RwLock",
                "OnceLock",
                "LazyLock",
                "Atomic",
                "Cell",
                "static mut",
            ]
            .iter()
            .any(|kind| line.contains(kind));
            assert!(!(is_static && mutable), "{file}: {line}");
            assert!(!line.starts_with("thread_local!"), "{file}: {line}");
        }
    }
}

#[test]
fn no_task_is_spawned_without_an_owner() {
    for (file, text) in library_sources() {
        for pattern in ["tokio::spawn(", "task::spawn(", "Handle::current().spawn("] {
            assert_eq!(lines_with(&text, pattern).next(), None, "{file}");
        }
    }
}

#[test]
fn a_feature_only_adds() {
    for (file, text) in library_sources() {
        assert_eq!(lines_with(&text, "cfg(not(feature").next(), None, "{file}");
    }
}

#[test]
fn only_the_counting_allocator_is_unsafe() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""));
    for (name, package) in packages() {
        let own = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let inherits = own.contains("[lints]\nworkspace = true");
        assert!(
            inherits || own.contains("unsafe_code = \"deny\""),
            "{name} may use unsafe code"
        );
    }
    let mut all = library_sources();
    all.extend(sources("orchestra/testkit/src"));
    all.extend(sources("examples"));
    for (file, text) in all {
        let lifted = lines_with(&text, "expect(unsafe_code").next().is_some()
            || lines_with(&text, "allow(unsafe_code").next().is_some();
        let exempt = file.ends_with("testkit/src/alloc.rs") || file.ends_with("invariants.rs");
        assert!(!lifted || exempt, "{file} lifts the ban on unsafe code");
    }
}

#[test]
fn versions_move_in_lock_step() {
    let packages = packages();
    let first = &packages["orchestra"]["version"];
    for (name, package) in &packages {
        assert_eq!(&package["version"], first, "{name}");
    }
}

#[test]
fn exactly_the_family_is_published() {
    for (name, package) in packages() {
        let family = SIBLINGS.map(|sibling| format!("orchestra-{sibling}"));
        let public = ["orchestra", "orchestra-core"].contains(&&*name) || family.contains(&name);
        assert_eq!(package["publish"] == Value::Null, public, "{name}");
    }
}
