//! FETCH responses over small messages: sections, partials, envelopes, structures.

use super::*;
use crate::command::Command;
use proptest::prelude::*;

const NESTED: &str = "From: \"Smith, Bob\" <bob@example.com>\r\n\
To: friends: a@b.c, d@e.f;\r\n\
Subject: =?utf-8?Q?caf=C3=A9?=\r\n folded\r\n\
Date: Mon, 7 Feb 1994 21:52:25 -0800\r\n\
Message-ID: <1@example.com>\r\n\
MIME-Version: 1.0\r\n\
Content-Type: multipart/mixed; boundary=out\r\n\r\n\
--out\r\n\
Content-Type: text/plain; charset=utf-8\r\nContent-Language: en, de\r\n\r\n\
one\r\ntwo\r\n\r\n\
--out\r\n\
Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"m.eml\"\r\n\r\n\
Subject: inner\r\nX-A: 1\r\n\r\ninner body\r\n\
--out\r\n\
Content-Type: multipart/alternative; boundary=in\r\n\r\n\
--in\r\n\r\nplain\r\n--in\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPHA+\r\n--in--\r\n\
--out--\r\n";

fn fetch(message: &str, items: &str) -> String {
    let parsed = crate::parse::command(format!("FETCH 1 ({items})").as_bytes()).unwrap();
    let Command::Fetch { items, .. } = parsed else {
        panic!()
    };
    let bytes = message.as_bytes();
    let structure = Structure::of(bytes);
    let data = MessageData {
        seq: SeqNum(1),
        uid: Uid(7),
        flags: &[Flag::Seen, Flag::Keyword("x".into())],
        recent: true,
        internal_date: Timestamp::from_secs(837_596_665),
        octets: bytes.len() as u64,
        content: Some((bytes, &structure)),
    };
    let mut out = String::new();
    for piece in respond(&items, &data) {
        match piece {
            Piece::Text(text) => out.push_str(std::str::from_utf8(&text).unwrap()),
            Piece::Message(range) => out.push_str(&message[range]),
        }
    }
    let inner = out
        .strip_prefix("* 1 FETCH (")
        .and_then(|o| o.strip_suffix(")\r\n"));
    inner.unwrap_or_else(|| panic!("{out}")).to_owned()
}

#[test]
fn what_is_known() {
    assert_eq!(
        fetch("\r\n", "UID FLAGS INTERNALDATE RFC822.SIZE"),
        "UID 7 FLAGS (\\Seen x \\Recent) INTERNALDATE \"17-Jul-1996 09:44:25 +0000\" RFC822.SIZE 2"
    );
}

#[test]
fn sections() {
    for (item, expected) in [
        ("BODY[1]", "BODY[1] {10}\r\none\r\ntwo\r\n"),
        (
            "BODY.PEEK[1.MIME]",
            "BODY[1.MIME] {69}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Language: en, de\r\n\r\n",
        ),
        (
            "BODY[2.HEADER]",
            "BODY[2.HEADER] {26}\r\nSubject: inner\r\nX-A: 1\r\n\r\n",
        ),
        ("BODY[2.TEXT]", "BODY[2.TEXT] {10}\r\ninner body"),
        ("BODY[2.1]", "BODY[2.1] {10}\r\ninner body"),
        (
            "BODY[2.HEADER.FIELDS (x-a)]",
            "BODY[2.HEADER.FIELDS (x-a)] {10}\r\nX-A: 1\r\n\r\n",
        ),
        (
            "BODY[2.HEADER.FIELDS.NOT (X-A)]",
            "BODY[2.HEADER.FIELDS.NOT (X-A)] {18}\r\nSubject: inner\r\n\r\n",
        ),
        ("BODY[2]<9.5>", "BODY[2]<9> {5}\r\ninner"),
        ("BODY[2]<900.5>", "BODY[2]<900> {0}\r\n"),
        ("BODY[3.1]", "BODY[3.1] {5}\r\nplain"),
        ("BODY[3.2]", "BODY[3.2] {4}\r\nPHA+"),
        (
            "BODY[HEADER.FIELDS (Nope)]",
            "BODY[HEADER.FIELDS (Nope)] {2}\r\n\r\n",
        ),
        ("BODY[4]", "BODY[4] NIL"),
        ("BODY[1.1]", "BODY[1.1] NIL"),
        ("BODY[1.HEADER]", "BODY[1.HEADER] NIL"),
        ("BODY[2.2]", "BODY[2.2] NIL"),
    ] {
        assert_eq!(fetch(NESTED, item), expected);
    }
    let whole = fetch(NESTED, "RFC822");
    assert_eq!(whole, format!("RFC822 {{{}}}\r\n{NESTED}", NESTED.len()));
    let (header, body) = NESTED.split_at(NESTED.find("\r\n\r\n").unwrap() + 4);
    assert_eq!(
        fetch(NESTED, "RFC822.HEADER"),
        format!("RFC822.HEADER {{{}}}\r\n{header}", header.len())
    );
    assert_eq!(
        fetch(NESTED, "BODY[TEXT]"),
        format!("BODY[TEXT] {{{}}}\r\n{body}", body.len())
    );
}

#[test]
fn a_plain_message_has_one_part() {
    let plain = "Subject: s\r\n\r\nbody";
    assert_eq!(fetch(plain, "BODY[1]"), "BODY[1] {4}\r\nbody");
    assert_eq!(fetch(plain, "BODY[2]"), "BODY[2] NIL");
    assert_eq!(fetch(plain, "BODY[1.1]"), "BODY[1.1] NIL");
    assert_eq!(
        fetch(plain, "BODY"),
        "BODY (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 4 0)"
    );
    let forwarded = "Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\ninner";
    assert_eq!(fetch(forwarded, "BODY[1.1]"), "BODY[1.1] {5}\r\ninner");
    assert_eq!(
        fetch(forwarded, "BODY[1.HEADER]"),
        "BODY[1.HEADER] {8}\r\nA: b\r\n\r\n"
    );
}

#[test]
fn the_envelope() {
    let bob = "((\"Smith, Bob\" NIL \"bob\" \"example.com\"))";
    assert_eq!(
        fetch(NESTED, "ENVELOPE"),
        format!(
            "ENVELOPE (\"Mon, 7 Feb 1994 21:52:25 -0800\" \"=?utf-8?Q?caf=C3=A9?= folded\" {bob} {bob} {bob} \
             ((NIL NIL \"friends\" NIL)(NIL NIL \"a\" \"b.c\")(NIL NIL \"d\" \"e.f\")(NIL NIL NIL NIL)) \
             NIL NIL NIL \"<1@example.com>\")"
        )
    );
    assert_eq!(
        fetch("\r\n", "ENVELOPE"),
        "ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    );
}

#[test]
fn the_structure() {
    assert_eq!(
        fetch(NESTED, "BODY"),
        "BODY ((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"utf-8\") NIL NIL \"7BIT\" 10 2)\
         (\"MESSAGE\" \"RFC822\" NIL NIL NIL \"7BIT\" 36 \
         (NIL \"inner\" NIL NIL NIL NIL NIL NIL NIL NIL) \
         (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 10 0) 3)\
         ((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"us-ascii\") NIL NIL \"7BIT\" 5 0)\
         (\"TEXT\" \"HTML\" NIL NIL NIL \"BASE64\" 4 0) \"ALTERNATIVE\") \"MIXED\")"
    );
    let extended = fetch(NESTED, "BODYSTRUCTURE");
    for piece in [
        "\"7BIT\" 10 2 NIL NIL (\"en\" \"de\") NIL)",
        " 3 NIL (\"ATTACHMENT\" (\"FILENAME\" \"m.eml\")) NIL NIL)",
        "\"ALTERNATIVE\" (\"BOUNDARY\" \"in\") NIL NIL NIL)",
        "\"MIXED\" (\"BOUNDARY\" \"out\") NIL NIL NIL)",
    ] {
        assert!(extended.contains(piece), "{piece} in {extended}");
    }
    assert_eq!(
        fetch("Content-Type: multipart/mixed; boundary=x\r\n\r\nnothing", "BODY"),
        "BODY ((\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0) \"MIXED\")"
    );
}

#[test]
fn what_must_be_read() {
    let needs = |items: &str| match crate::parse::command(format!("FETCH 1 ({items})").as_bytes()).unwrap() {
        Command::Fetch { items, .. } => items.iter().map(FetchItem::needs).max(),
        _ => None,
    };
    assert_eq!(needs("UID FLAGS RFC822.SIZE INTERNALDATE"), Some(Needs::Nothing));
    assert_eq!(
        needs("ENVELOPE BODY.PEEK[HEADER.FIELDS (A)]"),
        Some(Needs::Header)
    );
    assert_eq!(needs("ENVELOPE BODY.PEEK[1.MIME]"), Some(Needs::Whole));
    assert_eq!(needs("BODY[]<0.10>"), Some(Needs::Whole));
}

proptest! {
    /// Literals say their length truly, and parentheses balance, whatever the message is.
    #[test]
    fn any_message_gives_a_whole_response(message in "[-:;=\"a-c \r\n/]{0,200}", boundary in "[ab]") {
        let message = format!("Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n{message}");
        let response = fetch(&message, "ENVELOPE BODYSTRUCTURE BODY[1] BODY[1.MIME] BODY[HEADER.FIELDS (a b)] BODY[TEXT]<2.9>");
        let mut rest = response.as_bytes();
        let mut depth = 0i32;
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            match first {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'"' => {
                    let mut escaped = false;
                    let end = rest.iter().position(|b| {
                        let ends = *b == b'"' && !escaped;
                        escaped = *b == b'\\' && !escaped;
                        ends
                    });
                    rest = &rest[end.unwrap() + 1..];
                }
                b'{' => {
                    let close = rest.iter().position(|b| *b == b'}').unwrap();
                    let n: usize = std::str::from_utf8(&rest[..close]).unwrap().parse().unwrap();
                    prop_assert_eq!(&rest[close + 1..close + 3], b"\r\n");
                    rest = &rest[close + 3 + n..];
                }
                _ => {}
            }
        }
        prop_assert_eq!(depth, 0);
    }
}
