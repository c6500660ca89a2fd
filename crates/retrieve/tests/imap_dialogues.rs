//! The dialogues of `crates/imap/dialogues`, held with the real driver over mailboxes in memory.
//!
//! `C:` lines are sent with CR LF, `S:` lines must come; `~` in them stands for any text.
//! `given` prepares, `when` is what happens elsewhere meanwhile, `then closed` is the end.
#![allow(clippy::unwrap_used)]

mod imap_world;

use imap_world::{Client, HELLO, NESTED, World};
use mailbox::Flags;
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../imap/dialogues");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "dialogue"));
    files.sort();
    files
}

fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('~');
    let Some(mut rest) = pieces.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(i) => rest = &rest[i + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn patterns_match() {
    assert!(matches("* ~ EXISTS", "* 1 EXISTS") && matches("a", "a") && matches("a ~", "a b"));
    assert!(!matches("a", "ab") && !matches("* ~ EXISTS", "* 1 RECENT") && !matches("a~b~c", "acb"));
}

async fn message(world: &World, words: &str) {
    let (name, flag) = words.split_once(' ').unwrap_or((words, ""));
    let text = match name {
        "hello" => HELLO,
        "nested" => NESTED,
        other => panic!("no message named {other}"),
    };
    let flags = Flags::by_name(flag).unwrap_or(Flags::NONE);
    world.deliver(text, flags, None).await;
}

/// A world as its `given` lines want it.
async fn prepare(text: &str) -> World {
    let givens: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("given ")).collect();
    let world = World::new(|o| {
        if givens.contains(&"no login without TLS") {
            o.allow_plaintext_auth = false;
        }
    })
    .await;
    for given in givens {
        if let Some(words) = given.strip_prefix("message ") {
            message(&world, words).await;
        } else if given == "second factor" {
            let secret = world.directory.new_totp_secret().unwrap();
            world
                .directory
                .set_second_factor(world.bob, Some(secret))
                .await
                .unwrap();
        } else {
            assert_eq!(given, "no login without TLS", "unknown given");
        }
    }
    world
}

async fn happen(world: &World, what: &str) {
    let (verb, words) = what.split_once(' ').unwrap();
    match verb {
        "delivered" => message(world, words).await,
        "expunged" => world.expunge(words.parse().unwrap()).await,
        "flagged" => world.flag(words.parse().unwrap()).await,
        other => panic!("cannot {other}"),
    }
}

async fn hold(name: &str, text: &str) {
    let world = prepare(text).await;
    let mut client: Client = world.connect();
    for (n, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", n + 1);
        if let Some(said) = line.strip_prefix("C:") {
            let said = said.strip_prefix(' ').unwrap_or(said);
            client.send(format!("{said}\r\n").as_bytes()).await;
        } else if let Some(expected) = line.strip_prefix("S:") {
            let expected = expected.strip_prefix(' ').unwrap_or(expected);
            let got = client
                .try_line()
                .await
                .unwrap_or_else(|| panic!("{place}: closed"));
            assert!(
                matches(expected, &got),
                "{place}: expected {expected:?}, got {got:?}"
            );
        } else if let Some(what) = line.strip_prefix("when ") {
            happen(&world, what).await;
        } else if line == "then closed" {
            assert_eq!(client.try_line().await, None, "{place}");
        } else {
            assert!(
                line.is_empty() || line.starts_with('#') || line.starts_with("given "),
                "{place}: {line:?}"
            );
        }
    }
}

#[tokio::test]
async fn all_hold() {
    let files = files();
    assert!(files.len() >= 20, "{} files", files.len());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with(&format!("# {name}: ")),
            "{name} lacks its first line"
        );
        hold(&name, &text).await;
    }
}
