//! The demo as a program: all its parts come out, in JSON for machines and in words for people.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posthaste"))
        .args(["demo", "--once"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn every_part_comes_out_and_machines_can_read_it() {
    let output = demo(&["--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();

    let summary = events.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["ok"], true);
    let parts = summary["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 12);
    assert!(
        parts
            .iter()
            .all(|part| part["ok"] == true && part["checks"].as_u64() > Some(1))
    );

    let checks = events.iter().filter(|e| e["event"] == "check");
    assert!(checks.clone().count() > 40);
    assert!(checks.clone().all(|check| check["ok"] == true));
    let begun: BTreeSet<_> = events
        .iter()
        .filter(|e| e["event"] == "part")
        .map(|e| e["id"].as_str().unwrap())
        .collect();
    for id in [
        "step-1", "step-2", "step-3", "step-4", "step-5", "journey", "forged", "outage",
    ] {
        assert!(begun.contains(id), "{id}");
    }
    // Each scene of what goes wrong ends with what to change.
    assert_eq!(events.iter().filter(|e| e["event"] == "advice").count(), 6);
}

#[test]
fn a_pipe_gets_plain_text_without_passwords() {
    let output = demo(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.is_ascii(), "drawing characters or colours in a pipe");
    for line in [
        "    C: STARTTLS\n",
        "    C: AUTH PLAIN ********\n",
        "      DNS says: 10 mail.example.com\n",
        "    S: 550 5.7.26 ",
        "    S: 535 5.7.8 ",
        "    S: 534 5.7.9 ",
        "    S: 538 5.7.11 ",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    assert!(
        !text.contains('\x1b') && !text.contains("PLAIN AG"),
        "a password in base64"
    );
}
