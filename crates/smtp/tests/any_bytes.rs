//! Both machines keep their promises whatever comes in.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

const CLIENT_WORDS: [&str; 47] = [
    "EHLO a.b\r\n",
    "HELO a\r\n",
    "MAIL FROM:<a@b.c>\r\n",
    "MAIL FROM:<>\r\n",
    "MAIL FROM:<a@b.cd> SIZE=100 BODY=8BITMIME\r\n",
    "MAIL FROM:<\u{e9}@b.c> SMTPUTF8\r\n",
    "RCPT TO:<a@b.c>\r\n",
    "RCPT TO:<b@example.com>\r\n",
    "RCPT TO:<postmaster>\r\n",
    "DATA\r\n",
    "From: a\r\n\r\nhi\r\n.\r\n",
    ".\r\n",
    "\r\n.\r\n",
    "..x\r\n",
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\0",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN\r\n",
    "AUTH LOGIN\r\n",
    "AUTH PLAIN AGJvYgB4\r\n",
    "Ym9i\r\n",
    "*\r\n",
    "VRFY x\r\n",
    "LHLO a\r\n",
    "MAIL FROM:<a@b.c> BODY=BINARYMIME\r\n",
    "MAIL FROM:<a@b.c> RET=FULL ENVID=x REQUIRETLS HOLDFOR=5 BY=5;R MT-PRIORITY=1\r\n",
    "RCPT TO:<a@b.c> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;\u{e9}@b.c\r\n",
    "BDAT 5\r\n",
    "BDAT 0\r\n",
    "BDAT 3 LAST\r\n",
    "BDAT 0 LAST\r\n",
    "BDAT 150\r\n",
    "BDAT 6\r\nNOOP\r\n",
    "BDAT 4 LAST\r\n\r\n\n\0",
    "BDAT 5 LAST\r\na: \r\n",
    "BDAT x\r\n",
    "BDAT 5\n",
    "ETRN a\r\n",
    "\r\n",
    "\r",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

const SERVER_WORDS: [&str; 27] = [
    "220 x ESMTP\r\n",
    "250 OK\r\n",
    "250-x\r\n250-SIZE 100\r\n250 PIPELINING\r\n",
    "250-x\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n250 PIPELINING\r\n",
    "250-x\r\n250-AUTH=LOGIN\r\n250 8BITMIME\r\n",
    "250 2.1.0 OK\r\n",
    "354 go\r\n",
    "354-go\r\n354 on\r\n",
    "334 \r\n",
    "235 ok\r\n",
    "421 bye\r\n",
    "450 4.2.1 later\r\n",
    "550 5.1.1 no\r\n",
    "554 no\r\n",
    "221 bye\r\n",
    "250-half\r\n",
    "250",
    "\r\n",
    "\n",
    "xyz\r\n",
    "502 what\r\n",
    "552 5.3.4 too large\r\n",
    "250-x\r\n250-CHUNKING\r\n250 PIPELINING\r\n",
    "250-x\r\n250-BINARYMIME\r\n250-CHUNKING\r\n250 PIPELINING\r\n",
    "250-x\r\n250 CHUNKING\r\n",
    "503 5.5.1 nobody\r\n",
    "250 2.0.0 go on\r\n",
];

fn any_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => proptest::sample::select(words).prop_map(|w| w.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    (any::<[u8; 3]>(), proptest::collection::vec(piece, 0..40))
        .prop_map(|(choice, pieces)| [choice.to_vec(), pieces.concat()].concat())
}

/// A client that gets somewhere: greeting, sender and recipient before the noise.
fn deep() -> impl Strategy<Value = Vec<u8>> {
    (any_of(&CLIENT_WORDS), 0usize..6).prop_map(|(noise, depth)| {
        let start = &CLIENT_WORDS[..1].concat();
        let binary = CLIENT_WORDS[30];
        let mail = [start, [CLIENT_WORDS[3], binary][depth % 2], CLIENT_WORDS[6]].concat();
        let data = format!("{mail}DATA\r\n");
        let chunk = format!("{mail}BDAT 9\r\nSubject: ");
        let befores = [
            "",
            start.as_str(),
            mail.as_str(),
            mail.as_str(),
            data.as_str(),
            chunk.as_str(),
        ];
        let before = befores[depth];
        [&noise[..3], before.as_bytes(), &noise[3..]].concat()
    })
}

fn deep_server() -> impl Strategy<Value = Vec<u8>> {
    any_of(&SERVER_WORDS).prop_map(|noise| {
        let offers = [2, 22, 23, 24][usize::from(noise[1]) % 4];
        let before = [SERVER_WORDS[0], SERVER_WORDS[offers]].concat();
        [&noise[..3], before.as_bytes(), &noise[3..]].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn server(data in deep()) {
        smtp::fuzz::server(&data);
    }

    #[test]
    fn client(data in deep_server()) {
        smtp::fuzz::client(&data);
    }

    #[test]
    fn client_from_the_start(data in any_of(&SERVER_WORDS)) {
        smtp::fuzz::client(&data);
    }
}
