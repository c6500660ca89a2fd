//! The dialogue files of `smtp`, run against the whole of reception over a socket, with real TLS.
#![allow(clippy::unwrap_used)]

mod common;

use common::SocketPeer;
use std::path::Path;

#[test]
fn all_hold_over_a_socket() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../smtp/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let (mut run, mut wrong) = (0, String::new());
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        // A file cannot hold a signed token or a client's key; `e2e/test_submitters.py` logs in with both.
        if text.contains("\ngiven token ") || text.contains("\ngiven client certificate ") {
            continue;
        }
        if let Err(mismatch) = smtp::dialogue::run(&text, &mut SocketPeer::new()) {
            wrong.push_str(&format!("{name}, {mismatch}\n"));
        }
        run += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(run >= 25, "only {run} dialogues");
}
