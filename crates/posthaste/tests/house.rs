//! The rules of the house that a reviewer would nag about, as tests: floors, file headers, calls
//! that only the edge may make, the map, long functions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floor of each crate (docs/ARCHITECTURE.md). A crate may use only crates of lower floors.
const FLOORS: &[(&str, u8)] = &[
    ("mail", 0),
    ("sasl", 1),
    ("smtp", 2),
    ("imap", 2),
    ("pop3", 2),
    ("milter", 1),
    ("store", 1),
    ("dns", 1),
    ("tls", 2),
    ("directory", 2),
    ("mailbox", 2),
    ("queue", 2),
    ("judge", 2),
    ("journey", 2),
    ("limits", 2),
    ("mtasts", 2),
    ("tlsrpt", 2),
    ("listen", 3),
    ("webhook", 3),
    ("letterbox", 3),
    ("receive", 4),
    ("deliver", 4),
    ("retrieve", 4),
    ("web", 4),
    ("admin", 4),
    ("lab", 4),
    ("bench", 4),
    ("posthaste", 5),
    ("powercut", 5),
];

/// Lines of a function at most; a test may be a longer table or tale.
const FUNCTION_LINES_MAX: usize = 100;
const TEST_LINES_MAX: usize = 180;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut out = Vec::new();
    walk(&root().join("crates"), &mut out);
    assert!(out.len() > 50, "the sources were not found");
    out
}

fn crate_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("crates")).unwrap();
    inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn arrows_point_down() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let floor = *floors
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no floor: add it to FLOORS"));
        seen += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if let Some(below) = floors.get(on)
                && dependency["kind"].is_null()
            {
                assert!(
                    *below < floor,
                    "{name} (floor {floor}) may not use {on} (floor {below})"
                );
            }
        }
    }
    assert_eq!(seen, FLOORS.len(), "FLOORS and the workspace's members differ");
}

#[test]
fn every_file_opens_with_its_reason() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//!"),
            "{} does not open with //!",
            path.display()
        );
    }
}

#[test]
fn calls_that_only_the_edge_may_make() {
    // What is banned, where it may stand all the same, what to use instead.
    let banned: &[(&str, &[&str], &str)] = &[
        (
            "SystemTime::now",
            &["posthaste", "lab", "bench"],
            "the mail::Clock that is handed in",
        ),
        ("env::var", &["posthaste", "lab"], "an options struct"),
        (
            "tokio::spawn",
            &[
                "listen",
                "receive",
                "deliver",
                "retrieve",
                "admin",
                "posthaste",
                "lab",
            ],
            "nothing: floors 0 to 2 know no runtime",
        ),
        ("process::exit", &["posthaste"], "an error"),
    ];
    for (path, text) in sources() {
        let name = crate_of(&path);
        let is_test = path
            .components()
            .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "examples");
        let production = text.split("#[cfg(test)]").next().unwrap_or("");
        for (call, allowed, instead) in banned {
            let stands = production
                .lines()
                .any(|l| l.contains(call) && !l.trim_start().starts_with("//"));
            assert!(
                !stands || is_test || allowed.contains(&name.as_str()),
                "{}: {call} may not stand here; use {instead}",
                path.display()
            );
        }
    }
}

#[test]
fn no_marks_are_left() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[ig", "nore"),
    ];
    for (path, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
    }
}

#[test]
fn the_map_names_every_crate() {
    let map = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (name, _) in FLOORS {
        assert!(
            map.contains(&format!("`{name}`")),
            "docs/ARCHITECTURE.md does not name `{name}`"
        );
        assert!(
            manifest.contains(&format!("\"crates/{name}\"")),
            "the manifest does not list {name}"
        );
    }
}

#[test]
fn functions_stay_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let is_test = path.components().any(|c| c.as_os_str() == "tests");
        let lines_max = if is_test {
            TEST_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        };
        let mut open: Option<(usize, String, String)> = None;
        for (number, line) in text.lines().enumerate() {
            match &open {
                None => {
                    let trimmed = line.trim_start();
                    let starts = [
                        "fn ",
                        "pub fn ",
                        "async fn ",
                        "pub async fn ",
                        "pub(crate) fn ",
                        "pub(crate) async fn ",
                        "const fn ",
                        "pub const fn ",
                    ];
                    if starts.iter().any(|s| trimmed.starts_with(s)) && !line.trim_end().ends_with([';', '}'])
                    {
                        let indent = line[..line.len() - trimmed.len()].to_owned();
                        open = Some((number, format!("{indent}}}"), trimmed.to_owned()));
                    }
                }
                Some((start, end, name)) if line == end => {
                    if number - start > lines_max {
                        long.push(format!(
                            "{}:{} {} lines: {name}",
                            path.display(),
                            start + 1,
                            number - start
                        ));
                    }
                    open = None;
                }
                Some(_) => {}
            }
        }
    }
    assert!(
        long.is_empty(),
        "functions over {FUNCTION_LINES_MAX} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn the_format_page_lists_every_table() {
    let page = std::fs::read_to_string(root().join("docs/STORE-FORMAT.md")).unwrap();
    let mut rows = 0;
    for (path, text) in sources() {
        if path.file_name().is_some_and(|name| name == "keys.rs") {
            for row in text.lines().filter_map(|l| l.strip_prefix("//! | 0x")) {
                assert!(
                    page.contains(&format!("| 0x{row}")),
                    "docs/STORE-FORMAT.md lacks: | 0x{row}"
                );
                rows += 1;
            }
        }
    }
    assert!(rows > 20, "the tables were not found");
}
