//! Drives both state machines with any bytes and checks what must hold for all of them.
//!
//! Called by property tests and by fuzz targets. A broken promise is a panic.

use crate::client::{self, Client, Outgoing};
use crate::command::BodyKind;
use crate::replies;
use crate::reply::Reply;
use crate::server::{Options, Question, Role, Server, Step};
use mail::delivery::{DeliverBy, Notify, OriginalRecipient, Priority, Ret};
use mail::{EmailAddress, QueueId, Recipient, ReversePath, Timestamp};
use std::sync::{Arc, LazyLock};

/// Octets that may wait unread in a server session, beyond what one step of input can cause.
const OUTPUT_OCTETS_MAX: usize = 1 << 20;

static DATA_BEHIND_STARTTLS: LazyLock<Box<[u8]>> = LazyLock::new(|| written(&replies::DATA_BEHIND_STARTTLS));
static READY_FOR_TLS: LazyLock<Box<[u8]>> = LazyLock::new(|| written(&replies::READY_FOR_TLS));

/// What one run of the server showed.
#[derive(PartialEq, Eq, Debug, Default)]
struct Trace {
    events: Vec<String>,
    output: Vec<u8>,
    /// Whether the message that comes in may hold any octet in its body.
    binary: bool,
}

/// The server session, fed with `data`. The first octets choose role and cuts, the rest is input.
///
/// # Panics
/// When a promise is broken: different events for different cuts, an ill-formed reply, a buffer
/// that grows beyond its limit.
pub fn server(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let whole = serve(choice[0], rest, &[rest.len().max(1)]);
    let cuts = [usize::from(choice[1] % 7) + 1, usize::from(choice[2]) + 1];
    let cut = serve(choice[0], rest, &cuts);
    assert_eq!(whole, cut, "another cut of the input gave other events");
    check_replies(&whole.output);
}

fn serve(choice: u8, data: &[u8], cuts: &[usize]) -> Trace {
    let roles = [Role::Mta, Role::Submission, Role::Submissions, Role::Lmtp];
    let role = roles[usize::from(choice) % roles.len()];
    let mut options = Options::new("mail.example.com");
    options.size_max_octets = 200;
    options.discard_max_octets = u64::MAX / 2;
    options.command_octets_max = 100;
    options.auth_octets_max = 150;
    options.recipients_max = 3;
    options.errors_max = 8;
    options.idle_commands_max = 30;
    options.allow_plaintext_auth = choice & 0x80 != 0;
    options.xclient = choice & 0x40 != 0;
    options.mechanisms = sasl::Mechanism::ALL.into_iter().collect();
    // Whether the client waited cannot be told from the bytes alone.
    options.refuse_early_data = false;
    let mut server = Server::new(Arc::new(options), role, role == Role::Submissions, None);
    server.begins_at(Timestamp::from_secs(0));
    let mut trace = Trace::default();
    let mut body = Vec::new();
    let mut rest = data;
    for cut in cuts.iter().cycle() {
        let (piece, behind) = rest.split_at((*cut).min(rest.len()));
        rest = behind;
        let mut input = piece;
        if feed(&mut server, &mut input, &mut trace, &mut body, !rest.is_empty()) || rest.is_empty() {
            break;
        }
    }
    trace
}

/// One piece of input. Answers whether the session is over.
fn feed(
    server: &mut Server,
    input: &mut &[u8],
    trace: &mut Trace,
    body: &mut Vec<u8>,
    more_comes: bool,
) -> bool {
    loop {
        let step = server.step(input);
        let said = server.take_output();
        assert!(said.len() < OUTPUT_OCTETS_MAX, "the output is not bounded");
        // The one place where the cut matters by intent: octets behind STARTTLS are an attack when
        // they came with it, and a broken handshake when they came later.
        let behind_starttls = said.strip_suffix(&DATA_BEHIND_STARTTLS[..]).or_else(|| {
            let more = !input.is_empty() || more_comes;
            said.strip_suffix(&READY_FOR_TLS[..]).filter(|_| more)
        });
        if let Some(before) = behind_starttls {
            trace.output.extend_from_slice(before);
            trace.events.push("octets behind STARTTLS".to_owned());
            return true;
        }
        match step {
            Step::Read => {
                trace.output.extend(said);
                assert!(input.is_empty(), "input was left although more was asked for");
                return false;
            }
            Step::Ask(question) => {
                trace.output.extend(said);
                answer(server, question, trace, body);
            }
            Step::Chunk(octets) => {
                trace.output.extend(said);
                assert!(!octets.is_empty());
                body.extend_from_slice(octets);
                assert!(body.len() <= 200, "more than the size limit was handed out");
            }
            Step::Dropped(why) => {
                trace.output.extend(said);
                body.clear();
                trace.events.push(format!("dropped {why:?}"));
            }
            Step::StartTls => {
                trace.output.extend(said);
                trace.events.push("tls".to_owned());
                server.tls_started();
            }
            Step::Close => {
                trace.output.extend(said);
                trace.events.push("closed".to_owned());
                return true;
            }
        }
    }
}

fn written(reply: &Reply) -> Box<[u8]> {
    let mut written = Vec::new();
    reply.write(&mut written);
    written.into()
}

/// Answers by what was asked, so that every run of the same input answers alike.
fn answer(server: &mut Server, question: Question, trace: &mut Trace, body: &mut Vec<u8>) {
    match question {
        Question::Authenticate { token, request, .. } => {
            trace.events.push(format!("login {:?}", request.user()));
            let user = request.user().unwrap_or_default().to_owned();
            let verdict = match request {
                sasl::Request::Salt { .. } => sasl::Answer::Salted(sasl::Salted {
                    salt: b"salt".to_vec(),
                    iterations: 1,
                    nonce: "server".to_owned(),
                }),
                sasl::Request::Password(_) | sasl::Request::Token(_) if user.len() % 2 == 0 => {
                    sasl::Answer::Accepted(user, None)
                }
                _ => sasl::Answer::Refused(replies::AUTH_FAILED),
            };
            server.authenticated(token, verdict);
        }
        Question::Xclient { token, .. } => server.xclient(token, Ok(None)),
        Question::Sender { token, mail, .. } => {
            trace.events.push(format!("sender {mail:?}"));
            server.sender(
                token,
                verdict(mail.path.to_string().len(), replies::LOOKUP_FAILED),
            );
        }
        Question::Recipient { token, rcpt } => {
            trace.events.push(format!("recipient {rcpt:?}"));
            let length = rcpt.recipient.to_string().len();
            server.recipient(token, verdict(length, replies::unknown_user(&rcpt.recipient)));
        }
        Question::Begin { token, envelope } => {
            trace.events.push(format!("begin {envelope:?}"));
            trace.binary = envelope.mail.body == BodyKind::BinaryMime;
            server.begin(token, verdict(envelope.helo.len(), replies::BUSY));
        }
        Question::Message { token, octets } => {
            assert_eq!(octets, body.len() as u64, "the count is not what was handed out");
            let text = if trace.binary { header_of(body) } else { &body[..] };
            assert!(
                !has_bare_line_ending(text),
                "a bare CR or LF was handed out as good"
            );
            trace.events.push(format!("message {}", body.escape_ascii()));
            body.clear();
            let good = replies::queued(QueueId(octets));
            if octets % 3 == 0 {
                server.message(token, &good);
            } else {
                server.message_each(token, &[good, replies::STORE_FAILED]);
            }
        }
    }
}

fn verdict(seed: usize, refusal: Reply) -> Result<(), Reply> {
    if seed % 5 == 4 { Err(refusal) } else { Ok(()) }
}

/// The header section with its last line ending.
fn header_of(message: &[u8]) -> &[u8] {
    if message.starts_with(b"\r\n") {
        return &message[..2];
    }
    let end = memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |i| i + 4);
    &message[..end]
}

fn has_bare_line_ending(octets: &[u8]) -> bool {
    octets.iter().enumerate().any(|(i, b)| match b {
        b'\n' => i == 0 || octets[i - 1] != b'\r',
        b'\r' => octets.get(i + 1) != Some(&b'\n'),
        _ => *b == 0,
    })
}

/// Every reply must read back with our own reader.
fn check_replies(output: &[u8]) {
    let mut rest = output;
    let mut replies = client::Replies::default();
    loop {
        match replies.next(&mut rest, |_| {}) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => panic!("an ill-formed reply: {error}"),
        }
    }
    assert!(
        output.is_empty() || output.ends_with(b"\r\n"),
        "a reply without its end"
    );
}

/// The client session, fed with `data` as if a server had said it.
///
/// # Panics
/// When a promise is broken: different steps for different cuts, a message told of twice or never,
/// an ill-formed command.
pub fn client(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let whole = talk(choice[0], rest, &[rest.len().max(1)]);
    let cuts = [usize::from(choice[1] % 7) + 1, usize::from(choice[2]) + 1];
    assert_eq!(
        whole,
        talk(choice[0], rest, &cuts),
        "another cut gave other steps"
    );
}

fn talk(choice: u8, data: &[u8], cuts: &[usize]) -> Trace {
    let mut options = client::Options::new("client.example.net");
    options.tls = [
        client::TlsWish::Never,
        client::TlsWish::IfOffered,
        client::TlsWish::Required,
    ][usize::from(choice) % 3];
    options.pipelining = choice & 0x40 == 0;
    options.chunking = choice & 0x80 == 0;
    if choice & 0x20 != 0 {
        options.login = Some(("alice".to_owned(), mail::Secret::new("geheim")));
        options.allow_plaintext_auth = choice & 0x10 != 0;
    }
    let mut sender = Sender {
        client: Client::new(options, false, None),
        body: body(choice),
        at: 0,
        trace: Trace::default(),
        open: 0,
    };
    let mut rest = data;
    let mut cuts = cuts.iter().cycle();
    loop {
        // At most one line at a time: a driver sends the message when it is told to, so what came
        // behind the 354 in the same piece would otherwise be seen earlier than in a later piece.
        let cut = cuts.next().map_or(1, |cut| (*cut).min(rest.len()));
        let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
        let (piece, behind) = rest.split_at(cut.min(line));
        rest = behind;
        let mut input = piece;
        if sender.converse(&mut input, !rest.is_empty()) {
            break;
        }
        if rest.is_empty() {
            sender.client.lost();
            sender.converse(&mut input, false);
            break;
        }
    }
    assert_eq!(sender.open, 0, "a message was never told of");
    sender.trace
}

/// What the client sends; a binary one goes as it is.
const BODY: &[u8] = b".a\nb\r\n..\r.";
/// Octets that are given to the client at once.
const PIECE_OCTETS: usize = 64 * 1024;

/// The message; one in sixteen takes several chunks, and more than may be on their way at once.
fn body(choice: u8) -> Vec<u8> {
    let long = match choice & 0x0f {
        0x0c => (client::CHUNKS_OUTSTANDING_MAX + 1) * client::CHUNK_OCTETS,
        _ => 0,
    };
    [vec![b'x'; long], BODY.to_vec()].concat()
}

/// A driver of the client session.
struct Sender {
    client: Client,
    body: Vec<u8>,
    /// Octets of the body that the session has.
    at: usize,
    trace: Trace,
    /// Messages that were begun and not told of.
    open: u32,
}

impl Sender {
    /// Goes on until more input is needed. Answers whether the session is over.
    fn converse(&mut self, input: &mut &[u8], more_comes: bool) -> bool {
        loop {
            let step = self.client.step(input);
            let sent = self.client.take_output();
            assert!(sent.len() < OUTPUT_OCTETS_MAX, "the output is not bounded");
            self.trace.output.extend(sent);
            match step {
                client::Step::Read => {
                    let said = &self.trace.output;
                    let whole = said.is_empty() || said.ends_with(b"\r\n") || said.ends_with(BODY);
                    assert!(whole || self.body.len() > BODY.len(), "an unfinished command");
                    return false;
                }
                client::Step::StartTls if !input.is_empty() || more_comes => {
                    self.trace.events.push("octets behind STARTTLS".to_owned());
                    return true;
                }
                client::Step::Failed(client::Failure::DataBehindStartTls) => {
                    self.trace.events.push("octets behind STARTTLS".to_owned());
                    return true;
                }
                client::Step::StartTls => self.client.tls_started(),
                client::Step::Ready if self.trace.events.len() >= 4 => self.client.quit(),
                client::Step::Ready => self.begin(),
                client::Step::Body if self.at == self.body.len() => self.client.body_end(),
                client::Step::Body => {
                    let end = self.body.len().min(self.at + PIECE_OCTETS);
                    self.client.body(&self.body[self.at..end]);
                    self.at = end;
                }
                client::Step::Sent(outcome) => {
                    assert_eq!(outcome.recipients.len(), 3);
                    self.open -= 1;
                    self.trace.events.push(format!("{outcome:?}"));
                }
                client::Step::Failed(failure) => {
                    self.trace.events.push(format!("{failure:?}"));
                    return true;
                }
                client::Step::Closed => {
                    self.trace.events.push("closed".to_owned());
                    return true;
                }
            }
        }
    }

    fn begin(&mut self) {
        let recipient = |text: &str| {
            EmailAddress::parse(text)
                .map(Recipient::Address)
                .unwrap_or(Recipient::Postmaster)
        };
        let offered = self.client.capabilities();
        let outgoing = Outgoing {
            sender: ReversePath::Null,
            recipients: vec![recipient("a@b.c"), recipient("d@e.f"), Recipient::Postmaster],
            size_octets: self.body.len() as u64,
            eight_bit: true,
            binary: offered.binary_mime,
            smtputf8: false,
            wishes: client::Wishes {
                envid: Some("a=b +".to_owned()),
                ret: Some(Ret::Full),
                recipients: vec![client::RecipientWishes {
                    notify: Some(Notify::NEVER),
                    original_recipient: OriginalRecipient::parse("utf-8;\u{e9}@b.c"),
                }],
                require_tls: self.client.is_tls(),
                deliver_by: DeliverBy::parse("60;RT").filter(|_| offered.deliver_by.is_some()),
                priority: Priority::new(-9).unwrap_or_default(),
            },
        };
        self.at = 0;
        match self.client.send(outgoing) {
            Ok(()) => self.open += 1,
            Err(why) => {
                self.trace.events.push(format!("{why:?}"));
                self.client.quit();
            }
        }
    }
}
