//! Zone files read into records (RFC 1035 §5.1), with the line named when one is wrong.
//!
//! Promises: any text gives records or an error with its line; nothing is guessed silently.
//! Never: `$INCLUDE` (a zone file must not reach into the file system).

use super::zone::TTL_SECS_DEFAULT;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Octets of one character-string at most (RFC 1035 §3.3). A longer text is cut into several.
const STRING_OCTETS_MAX: usize = 255;

/// What is wrong in a zone file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct ZoneError {
    /// The line, from 1; 0 when the text did not come from a file.
    pub line: usize,
    /// What is wrong.
    pub kind: ZoneErrorKind,
}

/// What can be wrong in a zone file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneErrorKind {
    /// A `"` or `(` without its end.
    #[error("a quote or parenthesis is not closed")]
    Unclosed,
    /// The first entry starts with white space: it has no name to continue.
    #[error("the entry has no name, and none came before it")]
    NoOwner,
    /// Not a domain name.
    #[error("`{0}` is not a domain name")]
    Name(String),
    /// A name without a dot at its end, and no `$ORIGIN` before it.
    #[error("`{0}` is relative, and no $ORIGIN came before it; write a dot at its end or set $ORIGIN")]
    Relative(String),
    /// No record type that we serve.
    #[error("`{0}` is not a record type served here (A, AAAA, CNAME, MX, NS, PTR, SOA, TLSA, TXT)")]
    Type(String),
    /// The data does not fit the type.
    #[error("{kind} wants {wanted}")]
    Data {
        /// The record's type.
        kind: RecordType,
        /// What should stand there.
        wanted: &'static str,
    },
    /// A directive other than `$ORIGIN` and `$TTL`.
    #[error("`{0}` is not served here; only $ORIGIN and $TTL are")]
    Directive(String),
    /// The name lies in none of the zones.
    #[error("`{0}` lies in none of the zones")]
    OutsideZones(String),
}

impl ZoneError {
    pub(super) fn new(line: usize, kind: ZoneErrorKind) -> Self {
        Self { line, kind }
    }
}

/// What a zone file says.
pub(super) struct ZoneFile {
    /// From `$ORIGIN` lines.
    pub(super) origins: Vec<String>,
    /// In the order of the file.
    pub(super) records: Vec<Record>,
}

/// One word of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    text: Vec<u8>,
    quoted: bool,
}

impl Token {
    fn word(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// One entry: its words, the line it begins on, and whether it begins with white space.
struct Entry {
    line: usize,
    continues_owner: bool,
    tokens: Vec<Token>,
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<ZoneFile, ZoneError> {
    let mut file = ZoneFile {
        origins: Vec::new(),
        records: Vec::new(),
    };
    let mut reader = Reader {
        origin: None,
        ttl_secs: TTL_SECS_DEFAULT,
        owner: None,
    };
    for entry in entries(text)? {
        let line = entry.line;
        reader
            .entry(entry, &mut file)
            .map_err(|kind| ZoneError::new(line, kind))?;
    }
    Ok(file)
}

/// Cuts the text into entries: quotes, escapes, comments and parentheses end here.
fn entries(text: &str) -> Result<Vec<Entry>, ZoneError> {
    let mut out = Vec::new();
    let mut current: Option<Entry> = None;
    let mut depth = 0usize;
    let mut line = 1usize;
    let mut at_line_start = true;
    let mut bytes = text.bytes().peekable();
    while let Some(b) = bytes.next() {
        let continues_owner = at_line_start && matches!(b, b' ' | b'\t');
        let entry = current.get_or_insert_with(|| Entry {
            line,
            continues_owner,
            tokens: Vec::new(),
        });
        at_line_start = false;
        match b {
            b'\n' => {
                line += 1;
                if depth == 0 {
                    at_line_start = true;
                    out.extend(current.take().filter(|e| !e.tokens.is_empty()));
                }
            }
            b' ' | b'\t' | b'\r' => {}
            b';' => while bytes.next_if(|c| *c != b'\n').is_some() {},
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'"' => {
                let mut value = Vec::new();
                loop {
                    match bytes.next() {
                        Some(b'"') => break,
                        Some(b'\\') => value.extend(escape(&mut bytes)),
                        Some(b'\n') | None => return Err(ZoneError::new(line, ZoneErrorKind::Unclosed)),
                        Some(c) => value.push(c),
                    }
                }
                entry.tokens.push(Token {
                    text: value,
                    quoted: true,
                });
            }
            first => {
                let mut value = vec![first];
                while let Some(c) = bytes.next_if(|c| !b" \t\r\n;()\"".contains(c)) {
                    value.push(c);
                }
                entry.tokens.push(Token {
                    text: value,
                    quoted: false,
                });
            }
        }
    }
    if depth > 0 {
        return Err(ZoneError::new(line, ZoneErrorKind::Unclosed));
    }
    out.extend(current.filter(|e| !e.tokens.is_empty()));
    Ok(out)
}

/// What follows a backslash: three digits of an octet, or the character itself (RFC 1035 §5.1).
fn escape(bytes: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Option<u8> {
    let mut value = 0u16;
    for n in 0..3 {
        match bytes.next_if(u8::is_ascii_digit) {
            Some(digit) => value = value * 10 + u16::from(digit - b'0'),
            None if n == 0 => return bytes.next(),
            None => break,
        }
    }
    u8::try_from(value).ok()
}

/// What earlier lines say about later ones.
struct Reader {
    origin: Option<Name>,
    ttl_secs: u32,
    owner: Option<Name>,
}

impl Reader {
    fn entry(&mut self, entry: Entry, file: &mut ZoneFile) -> Result<(), ZoneErrorKind> {
        let mut tokens = entry.tokens.into_iter();
        let mut next = || {
            tokens.next().unwrap_or(Token {
                text: Vec::new(),
                quoted: false,
            })
        };
        if !entry.continues_owner {
            let first = next();
            let word = first.word();
            if !first.quoted && word.starts_with('$') {
                return self.directive(&word, &next().word(), file);
            }
            self.owner = Some(self.name(&word)?);
        }
        let owner = self.owner.clone().ok_or(ZoneErrorKind::NoOwner)?;
        // TTL and class may stand in either order, or be left out (RFC 1035 §5.1).
        let mut ttl_secs = self.ttl_secs;
        let mut word = next().word();
        loop {
            if let Ok(secs) = word.parse::<u32>() {
                ttl_secs = secs;
            } else if !word.eq_ignore_ascii_case("IN") {
                break;
            }
            word = next().word();
        }
        let kind: RecordType = word
            .to_ascii_uppercase()
            .parse()
            .map_err(|_| ZoneErrorKind::Type(word.clone()))?;
        let data = self.data(kind, &word, &tokens.collect::<Vec<_>>())?;
        file.records.push(Record::from_rdata(owner, ttl_secs, data));
        Ok(())
    }

    fn directive(&mut self, word: &str, value: &str, file: &mut ZoneFile) -> Result<(), ZoneErrorKind> {
        if word.eq_ignore_ascii_case("$ORIGIN") {
            let name = self.name(value)?;
            file.origins.push(name.to_ascii());
            self.origin = Some(name);
            Ok(())
        } else if word.eq_ignore_ascii_case("$TTL") {
            self.ttl_secs = value
                .parse()
                .map_err(|_| ZoneErrorKind::Directive(format!("$TTL {value}")))?;
            Ok(())
        } else {
            Err(ZoneErrorKind::Directive(word.to_owned()))
        }
    }

    /// A name, made absolute.
    fn name(&self, text: &str) -> Result<Name, ZoneErrorKind> {
        let bad = || ZoneErrorKind::Name(text.to_owned());
        match &self.origin {
            Some(origin) if text == "@" => Ok(origin.clone()),
            _ if text.ends_with('.') => Name::from_ascii(text).map_err(|_| bad()),
            Some(origin) if !text.is_empty() => Name::from_ascii(text)
                .and_then(|n| n.append_domain(origin))
                .map_err(|_| bad()),
            None if !text.is_empty() => Err(ZoneErrorKind::Relative(text.to_owned())),
            _ => Err(bad()),
        }
    }

    fn data(&self, kind: RecordType, word: &str, tokens: &[Token]) -> Result<RData, ZoneErrorKind> {
        let wants = |wanted: &'static str| ZoneErrorKind::Data { kind, wanted };
        let words: Vec<String> = tokens.iter().map(Token::word).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (kind, words.as_slice()) {
            (RecordType::A, [ip]) => ip
                .parse()
                .map(|ip| RData::A(A(ip)))
                .map_err(|_| wants("one IPv4 address")),
            (RecordType::AAAA, [ip]) => ip
                .parse()
                .map(|ip| RData::AAAA(AAAA(ip)))
                .map_err(|_| wants("one IPv6 address")),
            (RecordType::CNAME, [name]) => Ok(RData::CNAME(CNAME(self.name(name)?))),
            (RecordType::NS, [name]) => Ok(RData::NS(NS(self.name(name)?))),
            (RecordType::PTR, [name]) => Ok(RData::PTR(PTR(self.name(name)?))),
            (RecordType::MX, [preference, name]) => {
                let preference = preference
                    .parse()
                    .map_err(|_| wants("a preference (0 to 65535) and a name"))?;
                Ok(RData::MX(MX::new(preference, self.name(name)?)))
            }
            (RecordType::TXT, [_, ..]) => Ok(RData::TXT(txt(tokens))),
            (RecordType::TLSA, [usage, selector, matching, hex @ ..]) if !hex.is_empty() => {
                let number = |text: &str| text.parse::<u8>().map_err(|_| wants(TLSA_WANTS));
                let data = octets(&hex.concat()).ok_or_else(|| wants(TLSA_WANTS))?;
                Ok(RData::TLSA(TLSA::new(
                    number(usage)?.into(),
                    number(selector)?.into(),
                    number(matching)?.into(),
                    data,
                )))
            }
            (RecordType::SOA, [mname, rname, numbers @ ..]) if numbers.len() == 5 => {
                let number = |n: usize| {
                    numbers[n]
                        .parse::<u32>()
                        .map_err(|_| wants("two names and five numbers of seconds"))
                };
                let secs = |n: usize| number(n).map(|v| i32::try_from(v).unwrap_or(i32::MAX));
                Ok(RData::SOA(SOA::new(
                    self.name(mname)?,
                    self.name(rname)?,
                    number(0)?,
                    secs(1)?,
                    secs(2)?,
                    secs(3)?,
                    number(4)?,
                )))
            }
            (RecordType::A, _) => Err(wants("one IPv4 address")),
            (RecordType::AAAA, _) => Err(wants("one IPv6 address")),
            (RecordType::CNAME | RecordType::NS | RecordType::PTR, _) => Err(wants("one name")),
            (RecordType::MX, _) => Err(wants("a preference (0 to 65535) and a name")),
            (RecordType::TXT, _) => Err(wants("at least one text, in quotes when it holds a space or `;`")),
            (RecordType::TLSA, _) => Err(wants(TLSA_WANTS)),
            (RecordType::SOA, _) => Err(wants("two names and five numbers of seconds")),
            _ => Err(ZoneErrorKind::Type(word.to_owned())),
        }
    }
}

const TLSA_WANTS: &str = "three numbers (usage, selector, matching type) and octets in hexadecimal";

fn octets(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [_, _] => u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok(),
            _ => None,
        })
        .collect()
}

/// The texts of a TXT record, those too long for one character-string cut.
fn txt(tokens: &[Token]) -> TXT {
    let strings = tokens
        .iter()
        .flat_map(|token| match token.text.as_slice() {
            [] => vec![&[][..]],
            text => text.chunks(STRING_OCTETS_MAX).collect(),
        })
        .collect();
    TXT::from_bytes(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Record {
        let file = parse(text).unwrap();
        assert_eq!(file.records.len(), 1, "{text}");
        file.records[0].clone()
    }

    #[test]
    fn every_type_reads() {
        for (line, kind, shown) in [
            ("a.test. 60 IN A 192.0.2.1", RecordType::A, "192.0.2.1"),
            ("a.test. IN 60 AAAA 2001:db8::1", RecordType::AAAA, "2001:db8::1"),
            ("a.test. MX 10 mail.a.test.", RecordType::MX, "10 mail.a.test."),
            ("a.test. 60 in mx 0 .", RecordType::MX, "0 ."),
            ("a.test. CNAME b.test.", RecordType::CNAME, "b.test."),
            ("a.test. NS ns.test.", RecordType::NS, "ns.test."),
            ("1.2.0.192.in-addr.arpa. PTR a.test.", RecordType::PTR, "a.test."),
            ("a.test. TXT \"v=spf1 -all\"", RecordType::TXT, "v=spf1 -all"),
            (
                "_25._tcp.a.test. TLSA 3 1 1 ( 0aFF\n 01 )",
                RecordType::TLSA,
                "3 1 1 0aff01",
            ),
            (
                "a.test. SOA ns.a.test. host.a.test. ( 1 2 ; refresh\n 3 4 5 )",
                RecordType::SOA,
                "ns.a.test. host.a.test. 1 2 3 4 5",
            ),
        ] {
            let record = one(line);
            assert_eq!(record.record_type(), kind, "{line}");
            assert_eq!(record.data.to_string(), shown, "{line}");
        }
    }

    #[test]
    fn origin_ttl_and_continued_names() {
        let file = parse(
            "$ORIGIN example.com.\n$TTL 30\n@ MX 10 mail\n  TXT \"x\"\nmail 5 A 192.0.2.1 ; the host\n\n",
        )
        .unwrap();
        let lines: Vec<String> = file
            .records
            .iter()
            .map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data))
            .collect();
        assert_eq!(
            lines,
            [
                "example.com. 30 MX 10 mail.example.com.",
                "example.com. 30 TXT x",
                "mail.example.com. 5 A 192.0.2.1",
            ]
        );
        assert_eq!(file.origins, ["example.com."]);
    }

    #[test]
    fn texts_keep_their_octets_and_are_cut_at_255() {
        let record = one("a.test. TXT ( \"a;b \\\"c\\\" \\255\"\n \"second\" )");
        let RData::TXT(txt) = &record.data else { panic!() };
        assert_eq!(&*txt.txt_data[0], b"a;b \"c\" \xff");
        assert_eq!(&*txt.txt_data[1], b"second");
        let record = one(&format!("a.test. TXT \"{}\"", "k".repeat(300)));
        let RData::TXT(txt) = &record.data else { panic!() };
        assert_eq!([txt.txt_data[0].len(), txt.txt_data[1].len()], [255, 45]);
    }

    #[test]
    fn wrong_lines_are_named() {
        use ZoneErrorKind::*;
        for (text, line, kind) in [
            ("a.test. TXT \"open", 1, Unclosed),
            ("\na.test. SOA (", 2, Unclosed),
            ("  A 192.0.2.1", 1, NoOwner),
            ("a A 192.0.2.1", 1, Relative("a".into())),
            ("a..b. A 192.0.2.1", 1, Name("a..b.".into())),
            ("a.test. A 192.0.2.1\na.test. SRV 1 2 3 b.", 2, Type("SRV".into())),
            ("a.test. WHAT 1", 1, Type("WHAT".into())),
            ("a.test.", 1, Type(String::new())),
            ("$INCLUDE /etc/passwd", 1, Directive("$INCLUDE".into())),
            (
                "a.test. A one",
                1,
                Data {
                    kind: RecordType::A,
                    wanted: "one IPv4 address",
                },
            ),
            (
                "a.test. TLSA 3 1 1 0af",
                1,
                Data {
                    kind: RecordType::TLSA,
                    wanted: TLSA_WANTS,
                },
            ),
            (
                "a.test. TXT",
                1,
                Data {
                    kind: RecordType::TXT,
                    wanted: "at least one text, in quotes when it holds a space or `;`",
                },
            ),
        ] {
            assert_eq!(parse(text).err(), Some(ZoneError::new(line, kind)), "{text:?}");
        }
    }
}
