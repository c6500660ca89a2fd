//! The bytes of messages and errands. Every value begins with a version byte; ids stand in the key.
//!
//! Version 2. Numbers are big-endian; `n` is a length or number of 7 bits an octet, the lowest first,
//! bit 7 where more follow; a text is its length as `n` and its octets.
//!
//! | a message | what |
//! |---|---|
//! | 1 | version |
//! | 1 | bits: 0 8-bit body, 1 SMTPUTF8, 2 Message-ID, 3 login, 4 ENVID, 5 RET there |
//! | 8 | when it was accepted, microseconds |
//! | 16, n | blob, its octets |
//! | text | reverse-path, empty for the null one |
//! | text each | Message-ID, login, ENVID, RET: those that are there |
//! | the rest | prefix |
//!
//! | an errand | what |
//! |---|---|
//! | 1 | version |
//! | 1 | bits: 0 told of the delay, 1 ORCPT, 2 NOTIFY, 3 last outcome, 4 its host, 5 its status there |
//! | 1, 8 | state: 0 waiting, 1 delivered, 2 relayed, 3 bounced, 4 expired, 5 dropped; its time |
//! | text | by whom it was dropped, when it was |
//! | 8 | when it entered the queue, microseconds |
//! | n, n | attempts, epoch of the last settled lease |
//! | text | recipient |
//! | text each | ORCPT, NOTIFY: those that are there |
//! | 8, text | last outcome, when it is there: when, reply |
//! | text | its host, when it is there |
//! | 1, 2, 2 | its status, when it is there |
//!
//! Version 1 was JSON behind the version byte (in a message, behind a 4-octet length and the
//! prefix). It is read, and becomes version 2 when the value is next written. Decoding is total:
//! damaged bytes give an error, never a panic.

use crate::{Body, Errand, ErrandState, Error, LastOutcome, Message};
use mail::{EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp};
use store::{BlobId, Key};

const VERSION_JSON: u8 = 1;
const VERSION: u8 = 2;

pub(crate) fn encode_message(m: &Message) -> Vec<u8> {
    let optional = [&m.message_id, &m.login, &m.envid, &m.ret];
    let mut out = Vec::with_capacity(96 + m.prefix.len() + optional.map(text_len).iter().sum::<usize>());
    out.push(VERSION);
    out.push(bits([
        m.body == Body::EightBit,
        m.smtputf8,
        m.message_id.is_some(),
        m.login.is_some(),
        m.envid.is_some(),
        m.ret.is_some(),
    ]));
    put_time(&mut out, m.received_at);
    out.extend_from_slice(&m.blob.0);
    put_number(&mut out, m.blob_len);
    match &m.reverse_path {
        ReversePath::Null => put_text(&mut out, ""),
        ReversePath::Address(address) => put_text(&mut out, &address.to_string()),
    }
    for text in optional.into_iter().flatten() {
        put_text(&mut out, text);
    }
    out.extend_from_slice(&m.prefix);
    out
}

pub(crate) fn decode_message(key: &Key, value: &[u8]) -> Result<Message, Error> {
    let id = key.reader().u64().map(QueueId);
    let decoded = match (id, value) {
        (None, _) => Err("the key holds no queue id".to_owned()),
        (Some(id), [VERSION, rest @ ..]) => message(id, rest).ok_or_else(cut_off),
        (_, [VERSION_JSON, rest @ ..]) => message_json(rest),
        _ => Err("its version is unknown".to_owned()),
    };
    decoded.map_err(|what| damaged(key, what))
}

fn message(id: QueueId, value: &[u8]) -> Option<Message> {
    let mut r = Reader(value);
    let [eight_bit, smtputf8, message_id, login, envid, ret] = r.bits()?;
    Some(Message {
        id,
        received_at: r.time()?,
        blob: BlobId(r.array()?),
        blob_len: r.number()?,
        reverse_path: match r.text()? {
            "" => ReversePath::Null,
            address => ReversePath::Address(EmailAddress::parse(address).ok()?),
        },
        message_id: r.text_if(message_id)?,
        login: r.text_if(login)?,
        envid: r.text_if(envid)?,
        ret: r.text_if(ret)?,
        body: if eight_bit { Body::EightBit } else { Body::SevenBit },
        smtputf8,
        prefix: r.0.to_vec(),
    })
}

fn message_json(rest: &[u8]) -> Result<Message, String> {
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    let (prefix, json) = rest.split_at_checked(len).ok_or_else(cut_off)?;
    let mut message: Message = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    message.prefix = prefix.to_vec();
    Ok(message)
}

pub(crate) fn encode_errand(e: &Errand) -> Vec<u8> {
    let last = e.last.as_ref();
    let mut out = Vec::with_capacity(96 + last.map_or(0, |l| l.reply.len()));
    out.push(VERSION);
    out.push(bits([
        e.delay_told,
        e.original_recipient.is_some(),
        e.notify.is_some(),
        last.is_some(),
        last.is_some_and(|l| l.host.is_some()),
        last.is_some_and(|l| l.status.is_some()),
    ]));
    let (tag, at) = match &e.state {
        ErrandState::Waiting { next_attempt } => (0, next_attempt),
        ErrandState::Delivered { at } => (1, at),
        ErrandState::Relayed { at } => (2, at),
        ErrandState::Bounced { at } => (3, at),
        ErrandState::Expired { at } => (4, at),
        ErrandState::Dropped { at, .. } => (5, at),
    };
    out.push(tag);
    put_time(&mut out, *at);
    if let ErrandState::Dropped { by, .. } = &e.state {
        put_text(&mut out, by);
    }
    put_time(&mut out, e.first_queued);
    put_number(&mut out, u64::from(e.attempts));
    put_number(&mut out, e.epoch);
    put_text(&mut out, &e.recipient.to_string());
    for text in [&e.original_recipient, &e.notify].into_iter().flatten() {
        put_text(&mut out, text);
    }
    if let Some(last) = last {
        put_time(&mut out, last.at);
        put_text(&mut out, &last.reply);
        last.host.iter().for_each(|host| put_text(&mut out, host));
        if let Some(status) = last.status {
            out.push(status.class);
            out.extend_from_slice(&status.subject.to_be_bytes());
            out.extend_from_slice(&status.detail.to_be_bytes());
        }
    }
    out
}

pub(crate) fn decode_errand(key: &Key, value: &[u8]) -> Result<Errand, Error> {
    let mut parts = key.reader();
    let (id, no) = (parts.u64().map(QueueId), parts.u32());
    let decoded = match (id, no, value) {
        (Some(id), Some(no), [VERSION, rest @ ..]) => errand(id, no, rest).ok_or_else(cut_off),
        (_, _, [VERSION_JSON, json @ ..]) => serde_json::from_slice(json).map_err(|e| e.to_string()),
        (Some(_), Some(_), _) => Err("its version is unknown".to_owned()),
        _ => Err("the key holds no errand".to_owned()),
    };
    decoded.map_err(|what| damaged(key, what))
}

fn errand(message: QueueId, no: u32, value: &[u8]) -> Option<Errand> {
    let mut r = Reader(value);
    let [delay_told, original_recipient, notify, last, host, status] = r.bits()?;
    let (tag, at) = (r.u8()?, r.time()?);
    let errand = Errand {
        message,
        no,
        state: match tag {
            0 => ErrandState::Waiting { next_attempt: at },
            1 => ErrandState::Delivered { at },
            2 => ErrandState::Relayed { at },
            3 => ErrandState::Bounced { at },
            4 => ErrandState::Expired { at },
            5 => ErrandState::Dropped {
                at,
                by: r.text()?.to_owned(),
            },
            _ => return None,
        },
        first_queued: r.time()?,
        attempts: u32::try_from(r.number()?).ok()?,
        epoch: r.number()?,
        recipient: EmailAddress::parse(r.text()?).ok()?,
        original_recipient: r.text_if(original_recipient)?,
        notify: r.text_if(notify)?,
        last: if last {
            Some(r.outcome(host, status)?)
        } else {
            None
        },
        delay_told,
    };
    r.0.is_empty().then_some(errand)
}

fn cut_off() -> String {
    "it is cut off, or its parts do not fit".to_owned()
}

fn damaged(key: &Key, what: String) -> Error {
    Error::Damaged {
        key: key.clone(),
        what,
    }
}

fn text_len(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, |t| t.len() + 2)
}

fn bits(set: [bool; 6]) -> u8 {
    set.iter().rev().fold(0, |bits, bit| bits << 1 | u8::from(*bit))
}

fn put_time(out: &mut Vec<u8>, at: Timestamp) {
    out.extend_from_slice(&at.0.to_be_bytes());
}

fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What is left of a value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn bits(&mut self) -> Option<[bool; 6]> {
        let bits = self.u8()?;
        (bits < 1 << 6).then(|| std::array::from_fn(|i| bits >> i & 1 == 1))
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp(i64::from_be_bytes(self.array()?)))
    }

    fn number(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let octet = self.u8()?;
            let part = u64::from(octet & 0x7f);
            // The last octet has room for one bit only.
            if part << shift >> shift != part {
                return None;
            }
            n |= part << shift;
            if octet & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn text_if(&mut self, there: bool) -> Option<Option<String>> {
        Some(if there {
            Some(self.text()?.to_owned())
        } else {
            None
        })
    }

    fn outcome(&mut self, host: bool, status: bool) -> Option<LastOutcome> {
        Some(LastOutcome {
            at: self.time()?,
            reply: self.text()?.to_owned(),
            host: self.text_if(host)?,
            status: if status { Some(self.status()?) } else { None },
        })
    }

    fn status(&mut self) -> Option<EnhancedStatus> {
        let class = self.u8()?;
        let subject = u16::from_be_bytes(self.array()?);
        Some(EnhancedStatus::new(
            class,
            subject,
            u16::from_be_bytes(self.array()?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewErrand, keys};
    use proptest::prelude::*;

    /// As version 1 wrote them, octet for octet.
    const MESSAGE_1: &[u8] = b"\x01\x00\x00\x00\rReceived: \xff\r\n{\"id\":\"0000000000005\",\"reverse_path\":{\"Address\":\"alice@gmail.com\"},\"blob\":\"07070707070707070707070707070707\",\"blob_len\":10240,\"received_at\":1800000000000000,\"message_id\":\"m@gmail.com\",\"login\":\"alice\",\"body\":\"eightbit\",\"smtputf8\":true,\"envid\":null,\"ret\":\"HDRS\"}";
    const REPORT_1: &[u8] = b"\x01\x00\x00\x00\x00{\"id\":\"0000000000005\",\"reverse_path\":\"Null\",\"blob\":\"07070707070707070707070707070707\",\"blob_len\":10240,\"received_at\":1800000000000000,\"message_id\":\"m@gmail.com\",\"login\":\"alice\",\"body\":\"eightbit\",\"smtputf8\":true,\"envid\":null,\"ret\":\"HDRS\"}";
    const WAITING_1: &[u8] = b"\x01{\"message\":\"0000000000005\",\"no\":3,\"recipient\":\"bob@example.com\",\"original_recipient\":\"rfc822;b@example.com\",\"notify\":null,\"state\":{\"is\":\"waiting\",\"next_attempt\":1800000000000001},\"attempts\":0,\"first_queued\":1800000000000000,\"last\":null,\"delay_told\":false,\"epoch\":0}";
    const DROPPED_1: &[u8] = b"\x01{\"message\":\"0000000000005\",\"no\":3,\"recipient\":\"bob@example.com\",\"original_recipient\":\"rfc822;b@example.com\",\"notify\":null,\"state\":{\"is\":\"dropped\",\"at\":9,\"by\":\"admin\"},\"attempts\":300,\"first_queued\":1800000000000000,\"last\":{\"at\":8,\"host\":\"mx.example.com\",\"reply\":\"451 4.7.1 sp\xc3\xa4ter\",\"status\":\"4.7.1\"},\"delay_told\":true,\"epoch\":7}";
    /// As version 2 writes them.
    const MESSAGE_2: &[u8] = b"\x02/\x00\x06e\x17(\x98\x80\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x80P\x0falice@gmail.com\x0bm@gmail.com\x05alice\x04HDRSReceived: \xff\x0d\x0a";
    const REPORT_2: &[u8] = b"\x02/\x00\x06e\x17(\x98\x80\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x80P\x00\x0bm@gmail.com\x05alice\x04HDRS";
    const WAITING_2: &[u8] = b"\x02\x02\x00\x00\x06e\x17(\x98\x80\x01\x00\x06e\x17(\x98\x80\x00\x00\x00\x0fbob@example.com\x14rfc822;b@example.com";
    const DROPPED_2: &[u8] = b"\x02;\x05\x00\x00\x00\x00\x00\x00\x00\x09\x05admin\x00\x06e\x17(\x98\x80\x00\xac\x02\x07\x0fbob@example.com\x14rfc822;b@example.com\x00\x00\x00\x00\x00\x00\x00\x08\x11451 4.7.1 sp\xc3\xa4ter\x0emx.example.com\x04\x00\x07\x00\x01";

    fn address(text: &str) -> EmailAddress {
        EmailAddress::parse(text).unwrap()
    }

    fn sample_message() -> Message {
        Message {
            id: QueueId(5),
            reverse_path: ReversePath::Address(address("alice@gmail.com")),
            blob: BlobId([7; 16]),
            blob_len: 10_240,
            prefix: b"Received: \xff\r\n".to_vec(),
            received_at: Timestamp(1_800_000_000_000_000),
            message_id: Some("m@gmail.com".into()),
            login: Some("alice".into()),
            body: Body::EightBit,
            smtputf8: true,
            envid: None,
            ret: Some("HDRS".into()),
        }
    }

    fn sample_errand() -> Errand {
        let new = NewErrand {
            recipient: address("bob@example.com"),
            original_recipient: Some("rfc822;b@example.com".into()),
            notify: None,
            next_attempt: Timestamp(1_800_000_000_000_001),
        };
        Errand::new(&sample_message(), 3, &new)
    }

    #[test]
    fn messages_of_both_versions_are_read() {
        let key = keys::message(QueueId(5));
        let message = sample_message();
        let report = Message {
            reverse_path: ReversePath::Null,
            prefix: Vec::new(),
            ..message.clone()
        };
        for (stored, expected) in [
            (MESSAGE_1, &message),
            (MESSAGE_2, &message),
            (REPORT_1, &report),
            (REPORT_2, &report),
        ] {
            assert_eq!(decode_message(&key, stored).as_ref(), Ok(expected));
        }
        assert_eq!(
            encode_message(&message).escape_ascii().to_string(),
            MESSAGE_2.escape_ascii().to_string()
        );
        assert_eq!(
            encode_message(&report).escape_ascii().to_string(),
            REPORT_2.escape_ascii().to_string()
        );
    }

    #[test]
    fn errands_of_both_versions_are_read() {
        let key = keys::errand(QueueId(5), 3);
        let waiting = sample_errand();
        let dropped = Errand {
            attempts: 300,
            epoch: 7,
            delay_told: true,
            state: ErrandState::Dropped {
                at: Timestamp(9),
                by: "admin".into(),
            },
            last: Some(LastOutcome {
                at: Timestamp(8),
                host: Some("mx.example.com".into()),
                reply: "451 4.7.1 später".into(),
                status: Some(EnhancedStatus::new(4, 7, 1)),
            }),
            ..waiting.clone()
        };
        for (stored, expected) in [
            (WAITING_1, &waiting),
            (WAITING_2, &waiting),
            (DROPPED_1, &dropped),
            (DROPPED_2, &dropped),
        ] {
            assert_eq!(decode_errand(&key, stored).as_ref(), Ok(expected));
        }
        assert_eq!(
            encode_errand(&waiting).escape_ascii().to_string(),
            WAITING_2.escape_ascii().to_string()
        );
        assert_eq!(
            encode_errand(&dropped).escape_ascii().to_string(),
            DROPPED_2.escape_ascii().to_string()
        );
    }

    #[test]
    fn a_value_that_was_cut_or_went_on_is_damaged() {
        let errand_key = keys::errand(QueueId(5), 3);
        for len in 0..DROPPED_2.len() {
            assert!(decode_errand(&errand_key, &DROPPED_2[..len]).is_err(), "{len}");
        }
        let longer = [DROPPED_2, b"x"].concat();
        assert!(decode_errand(&errand_key, &longer).is_err());
        let message_key = keys::message(QueueId(5));
        // Where the prefix begins, any length is as good as another; the row's checksum guards it.
        for len in 0..REPORT_2.len() {
            assert!(decode_message(&message_key, &REPORT_2[..len]).is_err(), "{len}");
        }
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,200}")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in [text(), text(), text(), text()], prefix in proptest::collection::vec(any::<u8>(), 0..300), n in any::<[u64; 3]>(), bools in any::<[bool; 4]>(), tag in 0u8..6, attempts in any::<u32>()) {
            let [message_id, login, envid, ret] = texts.clone();
            let message = Message {
                message_id, login, envid, ret, prefix,
                blob_len: n[0],
                body: if bools[0] { Body::EightBit } else { Body::SevenBit },
                smtputf8: bools[1],
                reverse_path: if bools[2] { ReversePath::Null } else { sample_message().reverse_path },
                received_at: Timestamp(n[1] as i64),
                ..sample_message()
            };
            let key = keys::message(message.id);
            prop_assert_eq!(decode_message(&key, &encode_message(&message)), Ok(message));
            let at = Timestamp(n[1] as i64);
            let [original_recipient, notify, host, by] = texts;
            let errand = Errand {
                original_recipient,
                notify,
                attempts,
                epoch: n[2],
                delay_told: bools[3],
                state: match tag {
                    0 => ErrandState::Waiting { next_attempt: at },
                    1 => ErrandState::Delivered { at },
                    2 => ErrandState::Relayed { at },
                    3 => ErrandState::Bounced { at },
                    4 => ErrandState::Expired { at },
                    _ => ErrandState::Dropped { at, by: by.clone().unwrap_or_default() },
                },
                last: bools[0].then(|| LastOutcome {
                    at,
                    host,
                    reply: by.unwrap_or_default(),
                    status: bools[1].then(|| EnhancedStatus::new(5, n[0] as u16, n[2] as u16)),
                }),
                ..sample_errand()
            };
            let key = keys::errand(errand.message, errand.no);
            prop_assert_eq!(decode_errand(&key, &encode_errand(&errand)), Ok(errand));
        }

        #[test]
        fn damage_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for version in [VERSION_JSON, VERSION] {
                if let Some(first) = bytes.first_mut() {
                    *first = version;
                }
                let _ = decode_message(&keys::message(QueueId(1)), &bytes);
                let _ = decode_errand(&keys::errand(QueueId(1), 0), &bytes);
            }
        }
    }
}
