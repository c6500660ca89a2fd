//! Every dialogue file holds against the session machine alone, however its input is cut.
#![allow(clippy::unwrap_used)]

use smtp::dialogue::{MachinePeer, run};
use std::path::Path;

fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "dialogue"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn all_hold() {
    let files = files();
    assert!(files.len() >= 25, "{} files", files.len());
    assert_eq!(files[0].0, "00-the-page.dialogue");
    let mut wrong = String::new();
    for (name, text) in &files {
        for piece in [65_536, 7, 1] {
            if let Err(mismatch) = run(text, &mut MachinePeer::new(piece)) {
                wrong.push_str(&format!("{name} (pieces of {piece} octets), {mismatch}\n"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn each_begins_with_what_it_shows() {
    for (name, text) in files() {
        assert!(
            text.starts_with(&format!("# {name}: ")),
            "{name} lacks its first line"
        );
    }
}

#[test]
fn a_wrong_dialogue_fails() {
    let mut peer = MachinePeer::new(100);
    let mismatch = run("S: 220 *\nC: NOOP\nS: 500 *\n", &mut peer).unwrap_err();
    assert_eq!(mismatch.line, 3, "{mismatch}");
}
