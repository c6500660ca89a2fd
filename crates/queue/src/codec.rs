//! The bytes of messages and errands. Every value begins with a version byte; ids stand in the key.
//!
//! Version 3, of errands also 4. Numbers are big-endian; `n` is a length or number of 7 bits an octet, the lowest first,
//! bit 7 where more follow; a text is its length as `n` and its octets.
//!
//! | a message | what |
//! |---|---|
//! | 1 | version |
//! | 1 | bits: 0 8-bit body, 1 SMTPUTF8, 2 Message-ID, 3 login, 4 ENVID, 5 RET there; 6 further bits follow |
//! | 1 | further bits, when they follow: 0 binary body, 1 REQUIRETLS, 2 deadline, 3 priority there |
//! | 8 | when it was accepted, microseconds |
//! | 16, n | blob, its octets |
//! | text | reverse-path, empty for the null one |
//! | text each | Message-ID, login, ENVID: those that are there |
//! | 1 | RET, when it is there: 0 the header, 1 the whole message |
//! | 8, 1 | deadline, when it is there: microseconds; bits: 0 return, 1 trace |
//! | 1 | priority, when it is there: signed |
//! | the rest | prefix |
//!
//! | an errand | what |
//! |---|---|
//! | 1 | version: 3, or 4 when further bits follow or the state is 6 |
//! | 1 | bits: 0 told of the delay, 1 ORCPT, 2 NOTIFY, 3 last outcome, 4 its host, 5 its status, 6 priority there; 7 told of the deadline |
//! | 1 | further bits, in version 4: 0 put back as suspended, 1 another way there, 2 class of the last outcome there |
//! | 1, 8 | state: 0 waiting, 1 delivered, 2 relayed, 3 bounced, 4 expired, 5 dropped, 6 held; its time |
//! | text | by whom it was dropped or is held, when it was or is |
//! | 8 | when it entered the queue or is released, microseconds |
//! | n, n | attempts, epoch of the last settled lease |
//! | text | recipient |
//! | text | ORCPT, when it is there, as the parameter is written |
//! | 1 | NOTIFY, when it is there; bits: 0 success, 1 failure, 2 delay |
//! | 1 | priority, when it is there: signed |
//! | 8, text | last outcome, when it is there: when, reply |
//! | text | its host, when it is there |
//! | 1, 2, 2 | its status, when it is there |
//! | text | its class, when it is there |
//! | text, 2 | the other way, when it is there: host, port |
//!
//! Version 2 had neither further bits nor bits 6 and 7 of an errand; RET and NOTIFY were texts as the
//! parameters are written. Version 1 was JSON behind the version byte (in a message, behind a 4-octet
//! length and the prefix). Both are read, and become version 3 when the value is next written.
//! Decoding is total: damaged bytes give an error, never a panic.

use crate::{Body, Deadline, Errand, ErrandState, Error, LastOutcome, Message, Via};
use mail::delivery::{ByMode, Notify, OriginalRecipient, Priority, Ret};
use mail::{EmailAddress, EnhancedStatus, QueueId, ReversePath, Timestamp};
use store::{BlobId, Key};

const VERSION_JSON: u8 = 1;
const VERSION_TEXTS: u8 = 2;
const VERSION: u8 = 3;
/// An errand with further bits or held, which the release before would not understand.
const VERSION_FURTHER: u8 = 4;

pub(crate) fn encode_message(m: &Message) -> Vec<u8> {
    let optional = [&m.message_id, &m.login, &m.envid];
    let mut out = Vec::with_capacity(96 + m.prefix.len() + optional.map(text_len).iter().sum::<usize>());
    let priority = (m.priority != Priority::NORMAL).then_some(m.priority);
    let further = bits([
        m.body == Body::Binary,
        m.require_tls,
        m.deliver_by.is_some(),
        priority.is_some(),
    ]);
    out.push(VERSION);
    out.push(bits([
        m.body == Body::EightBit,
        m.smtputf8,
        m.message_id.is_some(),
        m.login.is_some(),
        m.envid.is_some(),
        m.ret.is_some(),
        further != 0,
    ]));
    if further != 0 {
        out.push(further);
    }
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
    if let Some(ret) = m.ret {
        out.push(u8::from(ret == Ret::Full));
    }
    if let Some(by) = m.deliver_by {
        put_time(&mut out, by.at);
        out.push(bits([by.mode == ByMode::Return, by.trace]));
    }
    put_priority(&mut out, priority);
    out.extend_from_slice(&m.prefix);
    out
}

pub(crate) fn decode_message(key: &Key, value: &[u8]) -> Result<Message, Error> {
    let id = key.reader().u64().map(QueueId);
    let decoded = match (id, value) {
        (None, _) => Err("the key holds no queue id".to_owned()),
        (Some(id), [version @ (VERSION | VERSION_TEXTS), rest @ ..]) => {
            message(id, *version, rest).ok_or_else(cut_off)
        }
        (_, [VERSION_JSON, rest @ ..]) => message_json(rest),
        _ => Err("its version is unknown".to_owned()),
    };
    decoded.map_err(|what| damaged(key, what))
}

fn message(id: QueueId, version: u8, value: &[u8]) -> Option<Message> {
    let mut r = Reader(value);
    let [eight_bit, smtputf8, message_id, login, envid, ret, further] = r.bits()?;
    let [binary, require_tls, deadline, priority] = match further {
        true if version == VERSION => r.bits()?,
        true => return None,
        false => [false; 4],
    };
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
        ret: match (ret, version) {
            (false, _) => None,
            (true, VERSION_TEXTS) => Some(Ret::parse(r.text()?)?),
            (true, _) => Some(r.ret()?),
        },
        body: match (binary, eight_bit) {
            (true, _) => Body::Binary,
            (false, true) => Body::EightBit,
            (false, false) => Body::SevenBit,
        },
        smtputf8,
        require_tls,
        deliver_by: if deadline { Some(r.deadline()?) } else { None },
        priority: r.priority_if(priority)?,
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
    let priority = (e.priority != Priority::NORMAL).then_some(e.priority);
    let mut out = Vec::with_capacity(96 + last.map_or(0, |l| l.reply.len()));
    let class = last.and_then(|last| last.class.as_deref());
    let further = bits([e.suspended, e.via.is_some(), class.is_some()]);
    let has_further = further != 0 || e.state.is_held();
    out.push(if has_further { VERSION_FURTHER } else { VERSION });
    out.push(bits([
        e.delay_told,
        e.original_recipient.is_some(),
        e.notify.is_some(),
        last.is_some(),
        last.is_some_and(|l| l.host.is_some()),
        last.is_some_and(|l| l.status.is_some()),
        priority.is_some(),
        e.deadline_told,
    ]));
    out.extend(has_further.then_some(further));
    let (tag, at) = match &e.state {
        ErrandState::Waiting { next_attempt } => (0, next_attempt),
        ErrandState::Delivered { at } => (1, at),
        ErrandState::Relayed { at } => (2, at),
        ErrandState::Bounced { at } => (3, at),
        ErrandState::Expired { at } => (4, at),
        ErrandState::Dropped { at, .. } => (5, at),
        ErrandState::Held { at, .. } => (6, at),
    };
    out.push(tag);
    put_time(&mut out, *at);
    if let ErrandState::Dropped { by, .. } | ErrandState::Held { by, .. } = &e.state {
        put_text(&mut out, by);
    }
    put_time(&mut out, e.first_queued);
    put_number(&mut out, u64::from(e.attempts));
    put_number(&mut out, e.epoch);
    put_text(&mut out, &e.recipient.to_string());
    if let Some(original) = &e.original_recipient {
        put_text(&mut out, &original.to_string());
    }
    if let Some(notify) = e.notify {
        out.push(bits([notify.success, notify.failure, notify.delay]));
    }
    put_priority(&mut out, priority);
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
    if let Some(class) = class {
        put_text(&mut out, class);
    }
    if let Some(via) = &e.via {
        put_text(&mut out, &via.host);
        out.extend_from_slice(&via.port.to_be_bytes());
    }
    out
}

pub(crate) fn decode_errand(key: &Key, value: &[u8]) -> Result<Errand, Error> {
    let mut parts = key.reader();
    let (id, no) = (parts.u64().map(QueueId), parts.u32());
    let decoded = match (id, no, value) {
        (Some(id), Some(no), [version @ (VERSION | VERSION_FURTHER | VERSION_TEXTS), rest @ ..]) => {
            errand(id, no, *version, rest).ok_or_else(cut_off)
        }
        (_, _, [VERSION_JSON, json @ ..]) => serde_json::from_slice(json).map_err(|e| e.to_string()),
        (Some(_), Some(_), _) => Err("its version is unknown".to_owned()),
        _ => Err("the key holds no errand".to_owned()),
    };
    decoded.map_err(|what| damaged(key, what))
}

fn errand(message: QueueId, no: u32, version: u8, value: &[u8]) -> Option<Errand> {
    let mut r = Reader(value);
    let [
        delay_told,
        original_recipient,
        notify,
        last,
        host,
        status,
        priority,
        deadline_told,
    ] = r.bits()?;
    if version == VERSION_TEXTS && (priority || deadline_told) {
        return None;
    }
    let [suspended, via, class] = match version {
        VERSION_FURTHER => r.bits()?,
        _ => [false; 3],
    };
    if class && !last {
        return None;
    }
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
            6 if version == VERSION_FURTHER => ErrandState::Held {
                at,
                by: r.text()?.to_owned(),
            },
            _ => return None,
        },
        first_queued: r.time()?,
        attempts: u32::try_from(r.number()?).ok()?,
        epoch: r.number()?,
        recipient: EmailAddress::parse(r.text()?).ok()?,
        original_recipient: match r.text_if(original_recipient)? {
            Some(text) => Some(OriginalRecipient::parse(&text)?),
            None => None,
        },
        notify: match (notify, version) {
            (false, _) => None,
            (true, VERSION_TEXTS) => Some(Notify::parse(r.text()?)?),
            (true, _) => Some(r.notify()?),
        },
        priority: r.priority_if(priority)?,
        sender: 0,
        last: if last {
            Some(r.outcome(host, status, class)?)
        } else {
            None
        },
        delay_told,
        deadline_told,
        suspended,
        via: if via { Some(r.via()?) } else { None },
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

fn bits<const N: usize>(set: [bool; N]) -> u8 {
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

fn put_priority(out: &mut Vec<u8>, priority: Option<Priority>) {
    out.extend(priority.map(|priority| priority.value() as u8));
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

    fn bits<const N: usize>(&mut self) -> Option<[bool; N]> {
        let bits = u32::from(self.u8()?);
        (bits < 1 << N).then(|| std::array::from_fn(|i| bits >> i & 1 == 1))
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

    fn ret(&mut self) -> Option<Ret> {
        match self.u8()? {
            0 => Some(Ret::Headers),
            1 => Some(Ret::Full),
            _ => None,
        }
    }

    fn notify(&mut self) -> Option<Notify> {
        let [success, failure, delay] = self.bits()?;
        Some(Notify {
            success,
            failure,
            delay,
        })
    }

    fn deadline(&mut self) -> Option<Deadline> {
        let at = self.time()?;
        let [returns, trace] = self.bits()?;
        let mode = if returns { ByMode::Return } else { ByMode::Notify };
        Some(Deadline { at, mode, trace })
    }

    fn priority_if(&mut self, there: bool) -> Option<Priority> {
        match there {
            true => Priority::new(self.u8()? as i8),
            false => Some(Priority::NORMAL),
        }
    }

    fn outcome(&mut self, host: bool, status: bool, class: bool) -> Option<LastOutcome> {
        Some(LastOutcome {
            at: self.time()?,
            reply: self.text()?.to_owned(),
            host: self.text_if(host)?,
            status: if status { Some(self.status()?) } else { None },
            class: self.text_if(class)?,
        })
    }

    fn via(&mut self) -> Option<Via> {
        Some(Via {
            host: self.text()?.to_owned(),
            port: u16::from_be_bytes(self.array()?),
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
    /// As version 2 wrote them.
    const MESSAGE_2: &[u8] = b"\x02/\x00\x06e\x17(\x98\x80\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x80P\x0falice@gmail.com\x0bm@gmail.com\x05alice\x04HDRSReceived: \xff\x0d\x0a";
    const REPORT_2: &[u8] = b"\x02/\x00\x06e\x17(\x98\x80\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x80P\x00\x0bm@gmail.com\x05alice\x04HDRS";
    const WAITING_2: &[u8] = b"\x02\x02\x00\x00\x06e\x17(\x98\x80\x01\x00\x06e\x17(\x98\x80\x00\x00\x00\x0fbob@example.com\x14rfc822;b@example.com";
    const DROPPED_2: &[u8] = b"\x02;\x05\x00\x00\x00\x00\x00\x00\x00\x09\x05admin\x00\x06e\x17(\x98\x80\x00\xac\x02\x07\x0fbob@example.com\x14rfc822;b@example.com\x00\x00\x00\x00\x00\x00\x00\x08\x11451 4.7.1 sp\xc3\xa4ter\x0emx.example.com\x04\x00\x07\x00\x01";

    /// As version 3 writes them.
    const MESSAGE_3: &[u8] = b"\x03/\x00\x06e\x17(\x98\x80\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x80P\x0falice@gmail.com\x0bm@gmail.com\x05alice\x00Received: \xff\x0d\x0a";
    const WISHES_3: &[u8] = b"\x03r\x0f\x00\x06e\x17(\x98\x80\x00\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x80P\x00\x04QQ 1\x01\x00\x00\x00\x00\x00\x00\x00\x09\x03\xfd";
    const WAITING_3: &[u8] = b"\x03\x02\x00\x00\x06e\x17(\x98\x80\x01\x00\x06e\x17(\x98\x80\x00\x00\x00\x0fbob@example.com\x14rfc822;b@example.com";
    const HELD_4: &[u8] = b"\x04\x02\x03\x06\x00\x00\x00\x00\x00\x00\x00\x09\x05admin\x00\x06e\x17(\x98\x80\x00\x00\x00\x0fbob@example.com\x14rfc822;b@example.com\x09192.0.2.1\x09\xdd";
    const DROPPED_3: &[u8] = b"\x03\xff\x05\x00\x00\x00\x00\x00\x00\x00\x09\x05admin\x00\x06e\x17(\x98\x80\x00\xac\x02\x07\x0fbob@example.com\x14rfc822;b@example.com\x05\x09\x00\x00\x00\x00\x00\x00\x00\x08\x11451 4.7.1 sp\xc3\xa4ter\x0emx.example.com\x04\x00\x07\x00\x01";

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
            ret: Some(Ret::Headers),
            require_tls: false,
            deliver_by: None,
            priority: Priority::NORMAL,
        }
    }

    fn sample_errand() -> Errand {
        let new = NewErrand {
            recipient: address("bob@example.com"),
            original_recipient: OriginalRecipient::parse("rfc822;b@example.com"),
            notify: None,
            next_attempt: Timestamp(1_800_000_000_000_001),
        };
        Errand {
            first_queued: Timestamp(1_800_000_000_000_000),
            sender: 0,
            ..Errand::new(&sample_message(), 3, &new)
        }
    }

    /// A message whose sender asked for all there is.
    fn with_wishes() -> Message {
        Message {
            reverse_path: ReversePath::Null,
            message_id: None,
            login: None,
            body: Body::Binary,
            envid: Some("QQ 1".into()),
            ret: Some(Ret::Full),
            require_tls: true,
            deliver_by: Some(Deadline {
                at: Timestamp(9),
                mode: ByMode::Return,
                trace: true,
            }),
            priority: Priority::new(-3).unwrap(),
            prefix: Vec::new(),
            ..sample_message()
        }
    }

    #[test]
    fn messages_of_all_versions_are_read() {
        let key = keys::message(QueueId(5));
        let (message, wishes) = (sample_message(), with_wishes());
        let report = Message {
            reverse_path: ReversePath::Null,
            prefix: Vec::new(),
            ..message.clone()
        };
        for (stored, expected) in [
            (MESSAGE_1, &message),
            (MESSAGE_2, &message),
            (MESSAGE_3, &message),
            (REPORT_1, &report),
            (REPORT_2, &report),
            (WISHES_3, &wishes),
        ] {
            assert_eq!(decode_message(&key, stored).as_ref(), Ok(expected));
        }
        for (message, stored) in [(&message, MESSAGE_3), (&wishes, WISHES_3)] {
            assert_eq!(
                encode_message(message).escape_ascii().to_string(),
                stored.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn errands_of_all_versions_are_read() {
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
                class: None,
            }),
            ..waiting.clone()
        };
        let wishes = Errand {
            notify: Notify::parse("SUCCESS,DELAY"),
            priority: Priority::new(9).unwrap(),
            deadline_told: true,
            ..dropped.clone()
        };
        let held = Errand {
            state: ErrandState::Held {
                at: Timestamp(9),
                by: "admin".into(),
            },
            suspended: true,
            via: Some(Via {
                host: "192.0.2.1".into(),
                port: 2525,
            }),
            ..waiting.clone()
        };
        for (stored, expected) in [
            (WAITING_1, &waiting),
            (WAITING_2, &waiting),
            (WAITING_3, &waiting),
            (DROPPED_1, &dropped),
            (DROPPED_2, &dropped),
            (DROPPED_3, &wishes),
            (HELD_4, &held),
        ] {
            assert_eq!(decode_errand(&key, stored).as_ref(), Ok(expected));
        }
        let mut classed = wishes.clone();
        classed.last.as_mut().unwrap().class = Some("greylisted".into());
        let with_class = [&b"\x04\xff\x04\x05"[..], &DROPPED_3[3..], b"\x0agreylisted"].concat();
        assert_eq!(decode_errand(&key, &with_class).as_ref(), Ok(&classed));
        for (errand, stored) in [
            (&waiting, WAITING_3),
            (&wishes, DROPPED_3),
            (&held, HELD_4),
            (&classed, with_class.as_slice()),
        ] {
            assert_eq!(
                encode_errand(errand).escape_ascii().to_string(),
                stored.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn a_value_that_was_cut_or_went_on_is_damaged() {
        let errand_key = keys::errand(QueueId(5), 3);
        for stored in [DROPPED_2, DROPPED_3, HELD_4] {
            for len in 0..stored.len() {
                assert!(decode_errand(&errand_key, &stored[..len]).is_err(), "{len}");
            }
            let longer = [stored, b"x"].concat();
            assert!(decode_errand(&errand_key, &longer).is_err());
        }
        let message_key = keys::message(QueueId(5));
        // Where the prefix begins, any length is as good as another; the row's checksum guards it.
        for stored in [REPORT_2, WISHES_3] {
            for len in 0..stored.len() {
                assert!(decode_message(&message_key, &stored[..len]).is_err(), "{len}");
            }
        }
    }

    fn orcpt() -> impl Strategy<Value = Option<OriginalRecipient>> {
        let parts = ("rfc822|utf-8|x400", "[ -~]{1,60}");
        proptest::option::of(parts.prop_map(|(addr_type, address)| OriginalRecipient { addr_type, address }))
    }

    fn notify() -> impl Strategy<Value = Option<Notify>> {
        let wishes = proptest::option::of(any::<[bool; 3]>());
        wishes.prop_map(|w| {
            w.map(|[success, failure, delay]| Notify {
                success,
                failure,
                delay,
            })
        })
    }

    fn deadline() -> impl Strategy<Value = Option<Deadline>> {
        let parts = proptest::option::of((any::<i64>(), any::<bool>(), any::<bool>()));
        parts.prop_map(|parts| {
            parts.map(|(at, returns, trace)| Deadline {
                at: Timestamp(at),
                mode: if returns { ByMode::Return } else { ByMode::Notify },
                trace,
            })
        })
    }

    fn wishes() -> impl Strategy<Value = (Option<Deadline>, Option<Ret>, Priority, bool)> {
        let ret = proptest::option::of(any::<bool>());
        let ret = ret.prop_map(|full| full.map(|full| if full { Ret::Full } else { Ret::Headers }));
        let priority = (-9i8..=9).prop_map(|p| Priority::new(p).unwrap());
        (deadline(), ret, priority, any::<bool>())
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,200}")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(texts in [text(), text(), text(), text()], (deliver_by, ret, priority, require_tls) in wishes(), (original_recipient, notify) in (orcpt(), notify()), prefix in proptest::collection::vec(any::<u8>(), 0..300), n in any::<[u64; 3]>(), bools in any::<[bool; 4]>(), tag in 0u8..7, attempts in any::<u32>()) {
            let [message_id, login, envid, _] = texts.clone();
            let message = Message {
                message_id, login, envid, ret, prefix, require_tls, deliver_by, priority,
                blob_len: n[0],
                body: [Body::SevenBit, Body::EightBit, Body::Binary][usize::from(tag % 3)],
                smtputf8: bools[1],
                reverse_path: if bools[2] { ReversePath::Null } else { sample_message().reverse_path },
                received_at: Timestamp(n[1] as i64),
                ..sample_message()
            };
            let key = keys::message(message.id);
            prop_assert_eq!(decode_message(&key, &encode_message(&message)), Ok(message));
            let at = Timestamp(n[1] as i64);
            let [_, _, host, by] = texts;
            let errand = Errand {
                original_recipient,
                notify,
                priority,
                suspended: bools[2],
                via: bools[0].then(|| Via { host: host.clone().unwrap_or_default(), port: n[0] as u16 }),
                deadline_told: require_tls,
                attempts,
                epoch: n[2],
                delay_told: bools[3],
                state: match tag {
                    0 => ErrandState::Waiting { next_attempt: at },
                    1 => ErrandState::Delivered { at },
                    2 => ErrandState::Relayed { at },
                    3 => ErrandState::Bounced { at },
                    4 => ErrandState::Expired { at },
                    5 => ErrandState::Held { at, by: by.clone().unwrap_or_default() },
                    _ => ErrandState::Dropped { at, by: by.clone().unwrap_or_default() },
                },
                last: bools[0].then(|| LastOutcome {
                    at,
                    host,
                    reply: by.unwrap_or_default(),
                    status: bools[1].then(|| EnhancedStatus::new(5, n[0] as u16, n[2] as u16)),
                    class: require_tls.then(|| "mailbox-full".to_owned()),
                }),
                ..sample_errand()
            };
            let key = keys::errand(errand.message, errand.no);
            prop_assert_eq!(decode_errand(&key, &encode_errand(&errand)), Ok(errand));
        }

        #[test]
        fn damage_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for version in [VERSION_JSON, VERSION_TEXTS, VERSION, VERSION_FURTHER] {
                if let Some(first) = bytes.first_mut() {
                    *first = version;
                }
                let _ = decode_message(&keys::message(QueueId(1)), &bytes);
                let _ = decode_errand(&keys::errand(QueueId(1), 0), &bytes);
            }
        }
    }
}
