//! The filters of one session, asked in their order; and what each of them has said so far.

use super::link::{Failure, Link, Patience};
use super::{Filter, FilterDialer, OnFailure, When};
use milter::{Change, Command, Kind, Macros, Verdict};
use smtp::{Reply, replies};
use std::sync::Arc;
use std::time::Duration;

/// How long a last word to a filter may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a filter keeps something out.
pub(crate) struct Refusal {
    pub(crate) reply: Reply,
    pub(crate) rule: String,
}

/// What a filter made of a message.
pub(crate) enum Content {
    /// It may go on, with these changes.
    Pass(Vec<Change>),
    /// It is accepted and thrown away.
    Discard,
    Refuse(Refusal),
    /// The filter failed, and that shall not matter.
    Failed(String),
    /// The filter did not want to see it.
    Unseen,
}

/// What a filter still wants to know of the open message.
#[derive(Clone, PartialEq, Eq)]
enum Standing {
    /// There is none.
    None,
    /// Everything.
    Open,
    /// Nothing: it accepted it already.
    Accepted,
    /// Nothing: it throws it away.
    Discards,
    /// It failed, which does not matter.
    Failed(String),
    /// It failed, and so does the message.
    Refuses(Reply, String),
}

/// One filter of the session.
pub(crate) struct Seat {
    pub(crate) filter: Arc<Filter>,
    link: Option<Link>,
    /// What it said of the connection itself, when that was not to go on.
    of_session: Option<Result<(), Reply>>,
    standing: Standing,
    /// Whether MAIL went out and the end of the message did not.
    has_message: bool,
}

/// The filters of one session.
pub(crate) struct Chain {
    pub(crate) seats: Vec<Seat>,
    pub(crate) macros: Macros,
    dialer: Arc<dyn FilterDialer>,
    body_octets_max: usize,
    /// By what the client is known to them: its name and its TLS.
    told: (String, Option<String>),
}

/// What a filter is told when it meets the session.
pub(crate) struct Greeting {
    pub(crate) connect: Command,
    pub(crate) helo: String,
    pub(crate) tls: Option<String>,
}

impl Chain {
    pub(crate) fn new(
        filters: impl Iterator<Item = Arc<Filter>>,
        dialer: Arc<dyn FilterDialer>,
        body_octets_max: usize,
    ) -> Self {
        let seats = filters.map(|filter| Seat {
            filter,
            link: None,
            of_session: None,
            standing: Standing::None,
            has_message: false,
        });
        Self {
            seats: seats.collect(),
            macros: Macros::default(),
            dialer,
            body_octets_max,
            told: (String::new(), None),
        }
    }

    /// Tells every filter of a new message.
    pub(crate) async fn mail(&mut self, greeting: &Greeting, mail: &Command) -> Result<(), Refusal> {
        let now_known = (greeting.helo.clone(), greeting.tls.clone());
        if self.told != now_known {
            // Another name, or TLS now: to a filter it is another session.
            self.close().await;
            self.told = now_known;
        }
        for i in 0..self.seats.len() {
            self.mail_to(i, greeting, mail).await?;
        }
        Ok(())
    }

    async fn mail_to(&mut self, i: usize, greeting: &Greeting, mail: &Command) -> Result<(), Refusal> {
        let (dialer, most) = (self.dialer.clone(), self.body_octets_max);
        let (seat, macros) = (&mut self.seats[i], &self.macros);
        seat.abort().await;
        seat.standing = Standing::None;
        let was_open = seat.link.is_some();
        let mut verdict = seat.meet(dialer.as_ref(), most, greeting, macros, mail).await;
        if was_open && matches!(verdict, Err(Failure::Connection(_))) {
            // It closed an idle connection; that is no fault.
            seat.hang_up();
            verdict = seat.meet(dialer.as_ref(), most, greeting, macros, mail).await;
        }
        seat.settle(verdict)
    }

    /// Tells every filter of a recipient.
    pub(crate) async fn rcpt(&mut self, rcpt: &Command) -> Result<(), Refusal> {
        for seat in &mut self.seats {
            match &seat.standing {
                Standing::Refuses(reply, rule) => {
                    return Err(Refusal {
                        reply: reply.clone(),
                        rule: rule.clone(),
                    });
                }
                Standing::Open => {}
                _ => continue,
            }
            let verdict = seat.ask(rcpt, &self.macros, None).await;
            match verdict {
                // It concerns this recipient alone.
                Ok(Verdict::Reject | Verdict::TempFail | Verdict::Reply(_)) => {
                    return verdict.map_or(Ok(()), |v| seat.refusal(v).map_or(Ok(()), Err));
                }
                other => seat.settle(other)?,
            }
        }
        Ok(())
    }

    /// Tells the filters that asked for it of a recipient that was refused.
    pub(crate) async fn refused_rcpt(&mut self, rcpt: &Command) {
        for seat in &mut self.seats {
            let wants = seat
                .link
                .as_ref()
                .is_some_and(|l| l.client.wants_refused_recipients());
            if wants && seat.standing == Standing::Open {
                let verdict = seat.ask(rcpt, &self.macros, None).await;
                if verdict.is_err() {
                    // Whatever it means is said at the next recipient or at the end.
                    let _ = seat.settle(verdict);
                }
            }
        }
    }

    /// Whether there is a filter that is asked at that time.
    pub(crate) fn has(&self, when: When) -> bool {
        self.seats.iter().any(|s| s.filter.when == when)
    }

    /// Shows a filter the message.
    pub(crate) async fn content(&mut self, i: usize, message: &[u8]) -> Content {
        let (seat, macros) = (&mut self.seats[i], &self.macros);
        match std::mem::replace(&mut seat.standing, Standing::None) {
            Standing::None => return Content::Unseen,
            Standing::Accepted => return Content::Pass(Vec::new()),
            Standing::Discards => return Content::Discard,
            Standing::Failed(why) => return Content::Failed(why),
            Standing::Refuses(reply, rule) => return Content::Refuse(Refusal { reply, rule }),
            Standing::Open => {}
        }
        match seat.show(message, macros).await {
            Ok(Shown::TooLong) => Content::Refuse(Refusal {
                reply: replies::FIELD_TOO_LONG_FOR_FILTER,
                rule: format!("a header field is too long for the filter {}", seat.filter.name),
            }),
            Ok(Shown::Verdict(verdict, changes)) => match verdict {
                Verdict::Continue | Verdict::Accept => Content::Pass(changes),
                Verdict::Discard => Content::Discard,
                other => seat
                    .refusal(other)
                    .map_or(Content::Pass(Vec::new()), Content::Refuse),
            },
            Err(failure) => match seat.fail(&failure) {
                Standing::Refuses(reply, rule) => Content::Refuse(Refusal { reply, rule }),
                _ => Content::Failed(failure.to_string()),
            },
        }
    }

    /// Tells the filters that the open message is none.
    pub(crate) async fn abort(&mut self) {
        for seat in &mut self.seats {
            seat.abort().await;
            seat.standing = Standing::None;
        }
    }

    /// Says goodbye to all filters.
    pub(crate) async fn close(&mut self) {
        for seat in &mut self.seats {
            seat.abort().await;
            if let Some(mut link) = seat.link.take() {
                // Who does not hear it sees the end of the connection.
                let _ = link.tell(&Command::Quit, GOODBYE_TIMEOUT).await;
            }
            seat.hang_up();
        }
    }
}

/// What came of showing a message.
enum Shown {
    Verdict(Verdict, Vec<Change>),
    /// A field does not fit the protocol's packets.
    TooLong,
}

impl Seat {
    /// Opens the connection where there is none, tells of the session, then of the message.
    async fn meet(
        &mut self,
        dialer: &dyn FilterDialer,
        body_octets_max: usize,
        greeting: &Greeting,
        macros: &Macros,
        mail: &Command,
    ) -> Result<Verdict, Failure> {
        if self.link.is_none() && self.of_session.is_none() {
            self.link = Some(Link::open(&self.filter, dialer, body_octets_max).await?);
            for command in [&greeting.connect, &Command::Helo(greeting.helo.clone())] {
                let verdict = self.ask(command, macros, None).await?;
                if verdict != Verdict::Continue {
                    self.of_session = Some(match self.refusal(verdict) {
                        Some(refusal) => Err(refusal.reply),
                        None => Ok(()),
                    });
                    self.link = None;
                    break;
                }
            }
        }
        match &self.of_session {
            // It accepts whatever this client sends, unseen.
            Some(Ok(())) => return Ok(Verdict::Accept),
            Some(Err(reply)) => {
                let (reply, rule) = (reply.clone(), self.rule());
                self.standing = Standing::Refuses(reply, rule);
                return Ok(Verdict::Continue);
            }
            None => {}
        }
        self.has_message = true;
        self.standing = Standing::Open;
        self.ask(mail, macros, None).await
    }

    async fn ask(
        &mut self,
        command: &Command,
        macros: &Macros,
        patience: Option<Patience>,
    ) -> Result<Verdict, Failure> {
        let patience = patience.unwrap_or(Patience::of(self.filter.command_timeout));
        match &mut self.link {
            Some(link) => link.ask(command, macros, patience).await,
            None => Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into()),
        }
    }

    /// What MAIL or RCPT came to.
    fn settle(&mut self, verdict: Result<Verdict, Failure>) -> Result<(), Refusal> {
        let standing = match verdict {
            Ok(Verdict::Continue) => match &self.standing {
                Standing::Refuses(reply, rule) => {
                    let (reply, rule) = (reply.clone(), rule.clone());
                    self.standing = Standing::None;
                    return Err(Refusal { reply, rule });
                }
                _ => return Ok(()),
            },
            Ok(Verdict::Accept) => Standing::Accepted,
            Ok(Verdict::Discard) => Standing::Discards,
            Ok(other) => {
                self.standing = Standing::None;
                return self.refusal(other).map_or(Ok(()), Err);
            }
            Err(failure) => self.fail(&failure),
        };
        self.standing = standing.clone();
        match standing {
            Standing::Refuses(reply, rule) => Err(Refusal { reply, rule }),
            _ => Ok(()),
        }
    }

    /// Hangs up on a filter that failed. What that means is the operator's choice.
    fn fail(&mut self, failure: &Failure) -> Standing {
        tracing::warn!(filter = self.filter.name, error = %failure, "a content filter failed");
        self.hang_up();
        let reply = match self.filter.on_failure {
            OnFailure::Accept => return Standing::Failed(failure.to_string()),
            OnFailure::Defer => replies::FILTER_UNAVAILABLE,
            OnFailure::Refuse => replies::FILTER_UNAVAILABLE_REFUSED,
        };
        Standing::Refuses(
            reply,
            format!("the filter {} failed: {failure}", self.filter.name),
        )
    }

    fn hang_up(&mut self) {
        self.link = None;
        self.has_message = false;
        self.of_session = None;
    }

    async fn abort(&mut self) {
        if !std::mem::take(&mut self.has_message) {
            return;
        }
        if let Some(link) = &mut self.link
            && link.tell(&Command::Abort, GOODBYE_TIMEOUT).await.is_err()
        {
            self.hang_up();
        }
    }

    fn rule(&self) -> String {
        format!("the filter {} refused it", self.filter.name)
    }

    /// The refusal that a verdict is; none when it is none.
    fn refusal(&self, verdict: Verdict) -> Option<Refusal> {
        let reply = match verdict {
            Verdict::Reject => replies::FILTER_REFUSED,
            Verdict::TempFail => replies::FILTER_DEFERRED,
            Verdict::Shutdown => replies::FILTER_SHUTDOWN,
            Verdict::Reply(said) => replies::filter_said(said.code, said.status, said.text),
            Verdict::Continue | Verdict::Accept | Verdict::Discard => return None,
        };
        Some(Refusal {
            reply,
            rule: self.rule(),
        })
    }

    /// Shows the message: header, body, end.
    async fn show(&mut self, message: &[u8], macros: &Macros) -> Result<Shown, Failure> {
        let patience = Some(Patience::of(self.filter.content_timeout));
        let mut verdict = self.ask(&Command::Data, macros, patience).await?;
        let wants = |seat: &Self, kind| seat.link.as_ref().is_some_and(|l| l.client.wants(kind));
        if wants(self, Kind::Header) {
            for field in mail::header::fields(message) {
                if verdict != Verdict::Continue {
                    break;
                }
                let Some(link) = &self.link else { break };
                let Some(command) = Command::header(&link.client, field.name, field.raw_value) else {
                    return Ok(Shown::TooLong);
                };
                verdict = self.ask(&command, macros, patience).await?;
            }
        }
        if verdict == Verdict::Continue {
            verdict = self.ask(&Command::EndOfHeader, macros, patience).await?;
        }
        let body = &message[milter::parts(message).1..];
        for chunk in body.chunks(milter::packet::DATA_OCTETS_MAX) {
            if verdict != Verdict::Continue || !wants(self, Kind::Body) {
                break;
            }
            verdict = self.ask(&Command::Body(chunk.to_vec()), macros, patience).await?;
        }
        if verdict != Verdict::Continue {
            return Ok(Shown::Verdict(verdict, Vec::new()));
        }
        let verdict = self.ask(&Command::EndOfMessage, macros, patience).await?;
        self.has_message = false;
        let changes = self.link.as_mut().map(|l| l.client.take_changes());
        Ok(Shown::Verdict(verdict, changes.unwrap_or_default()))
    }
}
