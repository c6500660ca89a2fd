//! docs/RFCS.md tells the truth about what proves each row: the files that it names are there, and every
//! dialogue file stands in it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What stands between backticks.
fn code_words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn dialogues() -> BTreeSet<String> {
    std::fs::read_dir(root().join("crates/smtp/dialogues"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// The table's rows: each its cells.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .filter(|cells: &Vec<&str>| !cells[0].starts_with("---") && cells[0] != "RFC")
        .collect()
}

#[test]
fn every_proof_exists() {
    let text = std::fs::read_to_string(root().join("docs/RFCS.md")).unwrap();
    let dialogues = dialogues();
    let rows = rows(&text);
    assert!(rows.len() >= 25, "{} rows", rows.len());
    for cells in rows {
        let [rfc, _what, status, proofs] = cells[..] else {
            panic!("not four cells: {cells:?}");
        };
        let known = ["whole", "partly: ", "not offered: "];
        assert!(
            known.iter().any(|k| status.starts_with(k)),
            "{rfc}: status {status:?}"
        );
        let proofs = code_words(proofs);
        assert!(
            !proofs.is_empty() || status.starts_with("not"),
            "{rfc} has no proof"
        );
        for proof in proofs {
            let exists = match proof.split_once("::") {
                _ if dialogues.contains(proof) => true,
                // A test by its name: file::function.
                Some((file, name)) => std::fs::read_to_string(root().join(file)).is_ok_and(|source| {
                    source.contains(&format!("fn {name}(")) || source.contains(&format!("def {name}("))
                }),
                None => proof.contains('/') && root().join(proof).exists(),
            };
            assert!(exists, "{rfc}: there is no {proof}");
        }
    }
}

#[test]
fn every_dialogue_is_named() {
    let text = std::fs::read_to_string(root().join("docs/RFCS.md")).unwrap();
    let named: BTreeSet<&str> = code_words(&text).into_iter().collect();
    let missing: Vec<String> = dialogues()
        .into_iter()
        .filter(|name| !named.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/RFCS.md does not name {missing:?}");
}
