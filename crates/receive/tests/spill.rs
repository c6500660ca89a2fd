//! Large messages go to files while they come in, and small budgets hold.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Setup, Talker, World};
use mailbox::Role as Folder;
use receive::Spilling;

fn spilling(folder: &tempfile::TempDir) -> Setup {
    let mut setup = Setup::default();
    setup.options.spill = Some(Spilling {
        folder: folder.path().to_owned(),
        over_octets: 64 * 1024,
        disk_max_octets: 8 * 1024 * 1024,
        whole_max_octets: 4 * 1024 * 1024,
    });
    // Far less than the message.
    setup.options.memory_max_octets = 1024 * 1024;
    setup
}

/// Says all up to DATA.
fn begun(talker: &mut Talker) {
    assert!(talker.reply().starts_with("220 "));
    talker.ask("EHLO client.example.net");
    talker.ask("MAIL FROM:<a@b.example>");
    talker.ask("RCPT TO:<bob@example.com>");
    assert!(talker.ask("DATA").starts_with("354 "));
}

fn letter(octets: usize) -> Vec<u8> {
    let mut all = b"From: <a@b.example>\r\nSubject: large\r\n\r\n".to_vec();
    let mut n = 0;
    while all.len() < octets {
        all.extend_from_slice(format!("line {n} of a large message\r\n").as_bytes());
        n += 1;
    }
    all
}

#[test]
fn a_large_message_comes_in_whole_with_little_memory() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let bob = world.account("bob@example.com", None);
    let serving = world.serve(spilling(&folder));
    let letters = [letter(3_000_000), letter(1_000), letter(70_000)];
    for letter in &letters {
        let mut talker = Talker::connect(serving.address);
        begun(&mut talker);
        talker.send(&[&letter[..], b".\r\n"].concat());
        let reply = talker.reply();
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let got = world.messages(bob, Folder::Inbox);
    assert_eq!(got.len(), 3);
    for (got, sent) in got.iter().zip(&letters) {
        assert!(got.ends_with(sent), "{} of {} octets", got.len(), sent.len());
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the files have no names");
    serving.end(&world);
}

#[test]
fn who_is_slow_holds_a_file_and_no_memory() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let bob = world.account("bob@example.com", None);
    let mut setup = spilling(&folder);
    setup.options.memory_max_octets = 1024 * 1024;
    let serving = world.serve(setup);
    // Four that stop half way: 600 KiB each would not fit into memory.
    let half = letter(600 * 1024);
    let slow: Vec<Talker> = (0..4)
        .map(|_| {
            let mut talker = Talker::connect(serving.address);
            begun(&mut talker);
            talker.send(&half);
            talker
        })
        .collect();
    let mut talker = Talker::connect(serving.address);
    begun(&mut talker);
    talker.send(&[&letter(2_000_000)[..], b".\r\n"].concat());
    let reply = talker.reply();
    assert!(reply.starts_with("250 "), "{reply}");
    for mut talker in slow {
        talker.send(b".\r\n");
        let reply = talker.reply();
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert_eq!(world.messages(bob, Folder::Inbox).len(), 5);
    serving.end(&world);
}

#[test]
fn the_room_for_files_is_bounded_and_given_back() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.account("bob@example.com", None);
    let mut setup = spilling(&folder);
    if let Some(spilling) = &mut setup.options.spill {
        spilling.disk_max_octets = 1024 * 1024;
    }
    let serving = world.serve(setup);
    let mut talker = Talker::connect(serving.address);
    begun(&mut talker);
    talker.send(&[&letter(3_000_000)[..], b".\r\n"].concat());
    let reply = talker.reply();
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    talker.ask("MAIL FROM:<a@b.example>");
    talker.ask("RCPT TO:<bob@example.com>");
    talker.ask("DATA");
    talker.send(&[&letter(900_000)[..], b".\r\n"].concat());
    let reply = talker.reply();
    assert!(reply.starts_with("250 "), "{reply}");
    serving.end(&world);
}

/// What was lost between two chunks must not be missing in a message that is accepted.
#[test]
fn chunks_for_which_there_is_no_room_are_deferred_as_a_whole() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let bob = world.account("bob@example.com", None);
    let setup = spilling(&folder);
    drop(folder);
    let serving = world.serve(setup);
    let mut talker = Talker::connect(serving.address);
    talker.reply();
    talker.ask("EHLO client.example.net");
    talker.ask("MAIL FROM:<a@b.example>");
    talker.ask("RCPT TO:<bob@example.com>");
    let chunk = letter(200_000);
    talker.send(&[format!("BDAT {}\r\n", chunk.len()).as_bytes(), &chunk].concat());
    // Told with this chunk or with the last one, as the octets come.
    let first = talker.reply();
    let last = talker.ask("BDAT 0 LAST");
    assert!(
        first.starts_with("451 ") || last.starts_with("451 "),
        "{first} / {last}"
    );
    assert!(!last.starts_with("250 "), "{last}");
    assert!(world.messages(bob, mailbox::Role::Inbox).is_empty());
    serving.end(&world);
}

#[test]
fn without_the_folder_the_message_is_deferred() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.account("bob@example.com", None);
    let setup = spilling(&folder);
    drop(folder);
    let serving = world.serve(setup);
    let mut talker = Talker::connect(serving.address);
    begun(&mut talker);
    talker.send(&[&letter(200_000)[..], b".\r\n"].concat());
    let reply = talker.reply();
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    serving.end(&world);
}
