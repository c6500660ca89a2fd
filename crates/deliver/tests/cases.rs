//! docs/OUTBOUND-CASES.md tells the truth about what shows each case: the tests that it names exist.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/OUTBOUND-CASES.md")).unwrap();
    let mut found = 0;
    for name in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = name.split_once("::") else {
            continue;
        };
        // By the file's name alone: one of this crate's.
        let path = match file.contains('/') {
            true => root.join(file),
            false => root.join(format!("crates/deliver/tests/{file}.rs")),
        };
        let source =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("there is no {}", path.display()));
        assert!(source.contains(&format!("fn {test}(")), "there is no {name}");
        found += 1;
    }
    assert!(found > 40, "{found}");
    let tables = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| the "));
    for row in tables.filter(|line| !line.starts_with("|---")) {
        assert!(
            row.starts_with("| | ") || row.contains("::"),
            "no test stands in: {row}"
        );
    }
}
