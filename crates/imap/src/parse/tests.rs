//! Tables of commands: what they mean, or why they are refused.

use super::*;
use crate::fetch::{FetchItem, Partial, Section, SectionText};
use crate::search::SearchKey;
use proptest::prelude::*;

fn shown(text: &str) -> String {
    match command(text.as_bytes()) {
        Ok(command) => format!("{command:?}"),
        Err(error) => format!("{error}"),
    }
}

#[test]
fn commands() {
    for (text, expected) in [
        ("NOOP", "Noop"),
        ("noop", "Noop"),
        ("NOOP ", "Expected the end of the command"),
        ("", "Unknown command"),
        ("X", "Unknown command"),
        (
            "LOGIN joe \"pass \\\"word\\\\\"",
            "Login { user: \"joe\", password: Secret(…) }",
        ),
        (
            "LOGIN {3}\r\njoe {2+}\r\npw",
            "Login { user: \"joe\", password: Secret(…) }",
        ),
        ("LOGIN joe", "Expected another argument"),
        ("LOGIN joe \"pw", "Expected the end of a quoted string"),
        ("LOGIN joe \"p\\w\"", "Expected \\ or \" behind a \\"),
        ("LOGIN {9}\r\njoe pw", "Expected a literal"),
        (
            "AUTHENTICATE PLAIN",
            "Authenticate { mechanism: Ok(Plain), initial: None }",
        ),
        (
            "AUTHENTICATE login =",
            "Authenticate { mechanism: Ok(Login), initial: Some(Secret(…)) }",
        ),
        (
            "AUTHENTICATE X",
            "Authenticate { mechanism: Err(\"X\"), initial: None }",
        ),
        (
            "SELECT inbox",
            "Select { mailbox: MailboxName(\"INBOX\"), read_only: false }",
        ),
        (
            "EXAMINE \"a b\"",
            "Select { mailbox: MailboxName(\"a b\"), read_only: true }",
        ),
        ("SELECT a&b", "the mailbox name is not valid modified UTF-7"),
        (
            "RENAME a b",
            "Rename { from: MailboxName(\"a\"), to: MailboxName(\"b\") }",
        ),
        ("LIST \"\" \"\"", "List(None)"),
        ("LIST a %", "List(Some(Pattern(['a', '%'])))"),
        (
            "STATUS a (MESSAGES unseen)",
            "Status { mailbox: MailboxName(\"a\"), items: [Messages, Unseen] }",
        ),
        ("STATUS a ()", "Expected a status item"),
        (
            "UID EXPUNGE 3:5",
            "Expunge(Some(SequenceSet { ranges: [(3, 5)], of: PhantomData<mail::ids::Uid> }))",
        ),
        ("UID NOOP", "Expected another argument"),
        ("UID X 1", "Unknown command"),
        (
            "STORE 1 +FLAGS.SILENT (\\Deleted $Junk)",
            "Store { set: Seq(SequenceSet { ranges: [(1, 1)], of: PhantomData<imap::sequence::SeqNum> }), \
             mode: Add, silent: true, flags: [Deleted, Keyword(\"$Junk\")] }",
        ),
        (
            "STORE 1 FLAGS \\Seen \\Recent x",
            "Store { set: Seq(SequenceSet { ranges: [(1, 1)], of: PhantomData<imap::sequence::SeqNum> }), mode: Replace, silent: false, flags: [Seen, Keyword(\"x\")] }",
        ),
        ("STORE 1 FLAGS (\\Foo)", "Expected a flag of RFC 3501"),
        ("STORE 0 FLAGS ()", "Expected a set of message numbers"),
        ("ID NIL", "Id([])"),
        (
            "ID (\"name\" \"x\" \"os\" NIL)",
            "Id([(\"name\", \"x\"), (\"os\", \"\")])",
        ),
        ("ENABLE CONDSTORE", "Enable"),
        ("IDLE", "Idle"),
        ("NOOP\0", "Expected the end of the command"),
        ("LOGIN a\rb c", "Expected another argument"),
    ] {
        assert_eq!(shown(text), expected, "{text:?}");
    }
}

fn fetch_items(text: &str) -> Result<Vec<FetchItem>, ParseError> {
    match command(format!("FETCH 1 {text}").as_bytes())? {
        Command::Fetch { items, .. } => Ok(items),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fetches() {
    let section = |path: &[u32], text| Section {
        path: path.to_vec(),
        text,
    };
    let body = |peek, section, partial| FetchItem::BodySection {
        peek,
        section,
        partial,
    };
    use FetchItem::*;
    for (text, expected) in [
        ("FAST", vec![Flags, InternalDate, Rfc822Size]),
        ("full", vec![Flags, InternalDate, Rfc822Size, Envelope, Body]),
        ("(UID RFC822.SIZE)", vec![Uid, Rfc822Size]),
        ("BODY", vec![Body]),
        ("BODY[]", vec![body(false, Section::whole(), None)]),
        (
            "(BODY.PEEK[1.2.MIME]<5.10>)",
            vec![body(
                true,
                section(&[1, 2], SectionText::Mime),
                Some(Partial { start: 5, length: 10 }),
            )],
        ),
        (
            "BODY[HEADER.FIELDS (From \"To\")]",
            vec![body(
                false,
                Section::of(SectionText::HeaderFields(vec!["From".into(), "To".into()])),
                None,
            )],
        ),
        (
            "BODY[3.TEXT]",
            vec![body(false, section(&[3], SectionText::Text), None)],
        ),
        (
            "BODY[3]",
            vec![body(false, section(&[3], SectionText::Whole), None)],
        ),
    ] {
        assert_eq!(fetch_items(text), Ok(expected), "{text}");
    }
    for bad in [
        "",
        "()",
        "X",
        "BODY[",
        "BODY[0]",
        "BODY[1.]",
        "BODY[MIME]",
        "BODY[X]",
        "BODY[]<1>",
        "BODY[]<1.0>",
        "BODY[HEADER.FIELDS ()]",
        "BODY.PEEK",
        "(FAST)",
    ] {
        assert!(fetch_items(bad).is_err(), "{bad}");
    }
    let deep = format!("BODY[{}1]", "1.".repeat(SECTION_DEPTH_MAX));
    assert_eq!(fetch_items(&deep), Err(ParseError::TooComplex));
}

#[test]
fn searches() {
    let key = |text: &str| match command(format!("SEARCH {text}").as_bytes()) {
        Ok(Command::Search {
            key: SearchKey::And(mut keys),
            ..
        }) if keys.len() == 1 => Ok(format!("{:?}", keys.remove(0))),
        Ok(other) => Ok(format!("{other:?}")),
        Err(error) => Err(error),
    };
    for (text, expected) in [
        ("ALL", "All"),
        ("UNSEEN", "Not(Flag(Seen))"),
        (
            "OR SEEN NOT (DRAFT ANSWERED)",
            "Or(Flag(Seen), Not(And([Flag(Draft), Flag(Answered)])))",
        ),
        (
            "SUBJECT \"Hello World\"",
            "Header(\"SUBJECT\", Needle(\"hello world\"))",
        ),
        ("HEADER X-a {1}\r\nB", "Header(\"X-a\", Needle(\"b\"))"),
        ("SINCE 1-Feb-1994", "Since(Date(8797))"),
        ("SINCE \" 1-Feb-1994\"", ""),
        ("CHARSET utf-8 TEXT é", "Text(Needle(\"é\"))"),
        ("KEYWORD $Forwarded", "Flag(Keyword(\"$Forwarded\"))"),
        ("CHARSET KOI8-R TEXT x", "SearchBadCharset"),
        ("LARGER 10", "Larger(10)"),
        ("NEW", "And([Recent, Not(Flag(Seen))])"),
    ] {
        match expected {
            "" => assert!(key(text).is_err(), "{text}"),
            expected => assert_eq!(key(text).as_deref(), Ok(expected), "{text}"),
        }
    }
    for bad in [
        "",
        "X",
        "OR SEEN",
        "NOT",
        "()",
        "(SEEN",
        "SUBJECT",
        "LARGER x",
        "SINCE 99-Feb-1994",
        "0",
        "UID",
    ] {
        assert!(key(bad).is_err(), "{bad}");
    }
    assert_eq!(key(&"NOT ".repeat(100_000)), Err(ParseError::TooComplex));
    assert_eq!(key(&"(".repeat(100_000)), Err(ParseError::TooComplex));
    assert_eq!(key(&"OR ALL ".repeat(100_000)), Err(ParseError::TooComplex));
    assert_eq!(key(&["ALL"; 2_000].join(" ")), Err(ParseError::TooComplex));
}

#[test]
fn append_heads() {
    let head = |text: &str| append_head(text.as_bytes());
    assert_eq!(head("APPEND {5}"), Ok(None), "the name comes as a literal");
    let full = head("APPEND {5}\r\ninbox (\\Seen x) \"17-Jul-1996 02:44:25 -0700\" {310}")
        .unwrap()
        .unwrap();
    assert!(full.mailbox.is_inbox());
    assert_eq!(full.flags.len(), 2);
    assert_eq!(full.internal_date.map(mail::Timestamp::secs), Some(837_596_665));
    assert!(head("APPEND a {1+}").unwrap().is_some());
    for bad in [
        "APPEND",
        "APPEND a",
        "APPEND a (",
        "APPEND a () \"x\" {1}",
        "APPEND a x {1}",
        "APPEND a() {1}",
    ] {
        assert!(head(bad).is_err(), "{bad}");
    }
}

#[test]
fn tags() {
    let tag = |text: &str| split_tag(text.as_bytes()).map(|(t, rest)| (t.to_string(), rest.to_vec()));
    assert_eq!(tag("a1 NOOP"), Some(("a1".to_owned(), b"NOOP".to_vec())));
    assert_eq!(tag("a"), Some(("a".to_owned(), Vec::new())));
    for bad in ["", " NOOP", "+ NOOP", "a+b NOOP", "a{ NOOP", "* NOOP", "ü NOOP"] {
        assert_eq!(tag(bad), None, "{bad}");
    }
    assert_eq!(tag(&"a".repeat(TAG_OCTETS_MAX + 1)), None);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (split_tag(&text), command(&text), append_head(&text));
    }

    #[test]
    fn any_words_are_answered(words in proptest::collection::vec(prop::sample::select(vec![
        "UID", "FETCH", "SEARCH", "STORE", "1:*", "(", ")", "BODY[", "]", "<0.5>", "HEADER.FIELDS", "NOT", "OR",
        "FLAGS", "\\Seen", "\"x", "\"", "{3}\r\n", "{3+}\r\nabc", "NIL", "APPEND", "a", "STATUS", "LIST", "%", "SINCE", "1-Jan-2020",
    ]), 0..12), spaces in any::<bool>()) {
        let text = words.join(if spaces { " " } else { "" });
        let _ = (command(text.as_bytes()), append_head(text.as_bytes()));
    }
}
