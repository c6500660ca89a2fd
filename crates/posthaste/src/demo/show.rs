//! How the demo looks: colour and layout on a terminal, plain text elsewhere, JSON for machines.
//!
//! Promises: one event is one JSON object on one line; nothing from a peer reaches the terminal as a
//! control character. Never: a decision about what happened; it only tells.

use super::event::{Event, Host, PartResult};
use lab::client::Speaker;
use lab::dns::Asked;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;

/// Columns of the headings' rules and of wrapped sentences.
const WIDTH: usize = 78;

/// Characters of a DNS answer that are shown at most.
const ANSWER_SHOWN_MAX: usize = 70;
/// And how many of these are its end.
const ANSWER_END: usize = 12;

/// The form of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Colour, box drawing.
    Terminal,
    /// Box drawing without colour: a terminal whose owner set NO_COLOR.
    Monochrome,
    /// ASCII, for files and pipes.
    Plain,
    /// One JSON object a line.
    Json,
}

impl Form {
    /// The form that fits standard output: see <https://no-color.org> for NO_COLOR.
    pub fn of_stdout(json: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match (json, std::io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, false) => Form::Plain,
            (false, true) if set("NO_COLOR") || dumb => Form::Monochrome,
            (false, true) => Form::Terminal,
        }
    }
}

/// Writes events.
pub struct Show {
    form: Form,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Show {
    /// Writes to standard output.
    pub fn stdout(form: Form) -> Self {
        Self::to(form, Box::new(std::io::stdout()))
    }

    /// Writes anywhere.
    pub fn to(form: Form, out: Box<dyn Write + Send>) -> Self {
        Self {
            form,
            out: Mutex::new(out),
        }
    }

    /// Shows one event. A reader that went away is not our failure: the demo goes on.
    pub fn event(&self, event: &Event<'_>) {
        let text = match self.form {
            Form::Json => serde_json::to_string(event).unwrap_or_default() + "\n",
            form => Painter { form }.paint(event),
        };
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }

    /// The picture of the way; machines do not get it.
    pub fn picture(&self) {
        if self.form != Form::Json {
            let text = Painter { form: self.form }.paper(PICTURE, Style::Plain);
            let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ = out.write_all(text.as_bytes());
        }
    }
}

/// The way of a message; the numbers are those of the steps that follow.
const PICTURE: &str = "
   alice@gmail.com writes to bob@example.com

   ┌───────────┐  1 compose & send   ┌──────────────────┐
   │   alice   │ ──────────────────▶ │  mail.gmail.com  │
   └───────────┘   587, TLS, AUTH    └────────┬─────────┘
                                              │ 2 DNS: example.com MX?
                                              │ 3 SMTP, STARTTLS, DKIM-signed
                                              ▼
   ┌───────────┐  5 IMAP or POP3     ┌──────────────────┐
   │    bob    │ ◀────────────────── │ mail.example.com │
   └───────────┘    TLS, login       └──────────────────┘
                                       4 SPF, DKIM, DMARC; stored
";

#[derive(Clone, Copy)]
enum Style {
    Heading,
    Client,
    Server,
    Event,
    Good,
    Bad,
    Advice,
    Faint,
    Plain,
}

impl Style {
    /// The SGR parameters (ECMA-48 §8.3.117).
    fn code(self) -> &'static str {
        match self {
            Style::Heading => "1",
            Style::Client => "36",
            Style::Server => "33",
            Style::Event => "35",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Advice => "1;34",
            Style::Faint => "2",
            Style::Plain => "",
        }
    }
}

struct Painter {
    form: Form,
}

impl Painter {
    fn paint(&self, event: &Event<'_>) -> String {
        match event {
            Event::Part { id, title } => self.heading(id, title),
            Event::Remark { text } => self.sentence("  ", text, Style::Plain),
            Event::Line { speaker, text, .. } => self.spoken(*speaker, text),
            Event::Dns { asker, question } => self.dns(asker, question),
            Event::Found { what, lines } => {
                let mut text = self.sentence("  ", what, Style::Faint);
                for line in *lines {
                    text += &self.ink(&format!("    {}\n", clean(line)), Style::Plain);
                }
                text
            }
            Event::Check { what, ok, detail } => self.check(what, *ok, detail),
            Event::Advice { text } => {
                let mark = if self.ascii() { "  => " } else { "  ➜ " };
                self.marked(mark, "     ", &format!("What to change: {text}"), Style::Advice)
            }
            Event::Summary { ok, seconds, parts } => self.summary(*ok, *seconds, parts),
            Event::Connect {
                hosts,
                trust,
                try_this,
            } => self.connect(hosts, trust, try_this),
        }
    }

    fn ascii(&self) -> bool {
        self.form == Form::Plain
    }

    /// Colours a text; the line's end stays outside, so that pagers and copies are clean.
    fn ink(&self, text: &str, style: Style) -> String {
        let code = style.code();
        match self.form {
            Form::Terminal if !code.is_empty() => {
                let body = text.trim_matches('\n');
                let (before, after) = text.split_once(body).unwrap_or((text, ""));
                format!("{before}\x1b[{code}m{body}\x1b[0m{after}")
            }
            Form::Plain => text.chars().map(to_ascii).collect(),
            _ => text.to_owned(),
        }
    }

    /// Several lines, each inked by itself so that pagers keep the colour.
    fn paper(&self, text: &str, style: Style) -> String {
        text.lines().map(|line| self.ink(line, style) + "\n").collect()
    }

    fn heading(&self, id: &str, title: &str) -> String {
        let number = match id.strip_prefix("step-") {
            Some(n) => format!("{n}  "),
            None => String::new(),
        };
        let text = format!("━━ {number}{title} ");
        let rule = "━".repeat(WIDTH.saturating_sub(text.chars().count()));
        format!("\n{}\n", self.ink(&(text + &rule), Style::Heading))
    }

    fn spoken(&self, speaker: Speaker, text: &str) -> String {
        let text = clean(text);
        let line = |who: &str| format!("{}\n", format!("    {who}: {text}").trim_end());
        match speaker {
            Speaker::Client => self.ink(&line("C"), Style::Client),
            Speaker::Server => self.ink(&line("S"), Style::Server),
            Speaker::Event => self.ink(&format!("    ({text})\n"), Style::Event),
        }
    }

    fn dns(&self, asker: &str, question: &Asked) -> String {
        let ask = format!("    {asker} asks: {} {}?\n", clean(&question.name), question.kind);
        let style = if question.found {
            Style::Server
        } else {
            Style::Faint
        };
        let mut text = self.ink(&ask, Style::Client);
        for answer in &question.answer {
            text += &self.ink(&format!("      DNS says: {}\n", shortened(&clean(answer))), style);
        }
        text
    }

    fn check(&self, what: &str, ok: bool, detail: &str) -> String {
        let (mark, style) = match (ok, self.ascii()) {
            (true, true) => ("  ok  ", Style::Good),
            (true, false) => ("  ✔ ", Style::Good),
            (false, true) => ("  NOT ", Style::Bad),
            (false, false) => ("  ✘ ", Style::Bad),
        };
        let text = match ok || detail.is_empty() {
            true => what.to_owned(),
            false => format!("{what}: {detail}"),
        };
        self.marked(mark, &" ".repeat(mark.chars().count()), &text, style)
    }

    fn summary(&self, ok: bool, seconds: f64, parts: &[PartResult]) -> String {
        let title_width = parts.iter().map(|p| p.title.chars().count()).max().unwrap_or(0);
        let mut text = self.heading("", "What came out");
        for part in parts {
            let (mark, style) = if part.ok {
                ("as it should", Style::Good)
            } else {
                ("FAILED", Style::Bad)
            };
            let pad = " ".repeat(title_width - part.title.chars().count());
            text += &self.ink(
                &format!(
                    "  {}{pad}  {:>2} checks  {:>5.2} s  ",
                    part.title, part.checks, part.seconds
                ),
                Style::Plain,
            );
            text += &self.ink(&format!("{mark}\n"), style);
            if let Some(problem) = &part.problem {
                text += &self.sentence("      ", problem, Style::Bad);
            }
        }
        let checks: usize = parts.iter().map(|p| p.checks).sum();
        let failed = parts.iter().filter(|p| !p.ok).count();
        let last = match ok {
            true => format!(
                "\n  All {} parts came out as they should: {checks} checks in {seconds:.1} s.\n",
                parts.len()
            ),
            false => format!("\n  {failed} of {} parts FAILED.\n", parts.len()),
        };
        text + &self.ink(&last, if ok { Style::Good } else { Style::Bad })
    }

    fn connect(&self, hosts: &[Host], trust: &str, try_this: &[String]) -> String {
        let mut text = self.heading("", "Now your own mail program");
        text += &self.sentence(
            "  ",
            &format!("Certificates are vouched for by {trust}"),
            Style::Plain,
        );
        for host in hosts {
            text += &self.ink(&format!("\n  {}\n", host.domain), Style::Heading);
            for service in &host.services {
                let line = format!(
                    "    {:<11} {:<18} {}\n",
                    service.name, service.address, service.security
                );
                text += &self.ink(&line, Style::Plain);
            }
            for (user, password) in &host.users {
                text += &self.ink(&format!("    user {user}  password {password}\n"), Style::Client);
            }
        }
        text += &self.ink("\n  What to type\n", Style::Heading);
        for line in try_this {
            text += &self.ink(&format!("    {line}\n"), Style::Plain);
        }
        text + &self.ink("\n  Ctrl-C ends it; nothing stays behind.\n", Style::Faint)
    }

    /// A sentence wrapped at [`WIDTH`], every line with the same indent.
    fn sentence(&self, indent: &str, text: &str, style: Style) -> String {
        self.marked(indent, indent, text, style)
    }

    /// A sentence wrapped at [`WIDTH`]: `mark` before its first line, `indent` before the others.
    fn marked(&self, mark: &str, indent: &str, text: &str, style: Style) -> String {
        let mut out = String::new();
        let mut line = mark.to_owned();
        let mut words = 0;
        for word in clean(text).split_whitespace() {
            if words > 0 && line.chars().count() + word.chars().count() >= WIDTH {
                out += &self.ink(&format!("{line}\n"), style);
                indent.clone_into(&mut line);
                words = 0;
            }
            if words > 0 {
                line.push(' ');
            }
            line += word;
            words += 1;
        }
        out + &self.ink(&format!("{line}\n"), style)
    }
}

/// Text from a peer without control characters.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// A long record (a DKIM key) cut in its middle.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= ANSWER_SHOWN_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(ANSWER_SHOWN_MAX - ANSWER_END).collect();
    let tail: String = text.chars().skip(count - ANSWER_END).collect();
    format!("{head}...{tail} ({} octets)", text.len())
}

/// Our own drawing characters in ASCII; letters of people's names stay.
fn to_ascii(c: char) -> char {
    match c {
        '─' => '-',
        '━' => '=',
        '│' => '|',
        '┌' | '┐' | '└' | '┘' | '┬' => '+',
        '▶' => '>',
        '◀' => '<',
        '▼' => 'v',
        '→' | '➜' => '>',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn shown(form: Form, events: &[Event<'_>]) -> String {
        let paper = Paper::default();
        let show = Show::to(form, Box::new(paper.clone()));
        show.picture();
        for event in events {
            show.event(event);
        }
        String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
    }

    fn some_events() -> Vec<Event<'static>> {
        vec![
            Event::Part {
                id: "step-1",
                title: "Compose and send",
            },
            Event::Line {
                conversation: "x",
                speaker: Speaker::Client,
                text: "EHLO \x1b[2J→",
            },
            Event::Line {
                conversation: "x",
                speaker: Speaker::Event,
                text: "TLS",
            },
            Event::Check {
                what: "it works",
                ok: false,
                detail: "it did not",
            },
            Event::Advice { text: "use port 587" },
        ]
    }

    #[test]
    fn plain_text_is_ascii_without_escapes() {
        let text = shown(Form::Plain, &some_events());
        assert!(
            text.is_ascii() || text.replace('\u{fffd}', "").is_ascii(),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        for line in [
            "== 1  Compose and send =",
            "    C: EHLO \u{fffd}[2J>\n",
            "    (TLS)\n",
            "NOT it works: it did not\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("  => What to change: use port 587\n"), "{text}");
    }

    #[test]
    fn long_records_are_cut_in_their_middle() {
        let key = format!("v=DKIM1; k=rsa; p={}XYZ", "A".repeat(400));
        let text = shortened(&key);
        assert!(
            text.starts_with("v=DKIM1; k=rsa; p=AAAA") && text.ends_with("AXYZ (421 octets)"),
            "{text}"
        );
        assert_eq!(shortened("v=spf1 mx -all"), "v=spf1 mx -all");
    }

    #[test]
    fn a_peer_cannot_paint_on_the_terminal() {
        let text = shown(Form::Terminal, &some_events());
        assert!(!text.contains("\x1b[2J"));
        assert!(text.contains("\x1b[36m    C: EHLO"));
        assert!(!shown(Form::Monochrome, &some_events()).contains('\x1b'));
    }

    #[test]
    fn json_is_one_object_a_line_and_no_picture() {
        let text = shown(Form::Json, &some_events());
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0]["event"], "part");
        assert_eq!(lines[1]["speaker"], "client");
        assert_eq!(lines[3]["ok"], false);
    }

    #[test]
    fn the_summary_names_what_failed() {
        let part = |id: &str, ok: bool| PartResult {
            id: id.to_owned(),
            title: format!("part {id}"),
            ok,
            checks: 2,
            seconds: 0.25,
            problem: (!ok).then(|| "bob got nothing".to_owned()),
        };
        let parts = [part("a", true), part("b", false)];
        let text = shown(
            Form::Plain,
            &[Event::Summary {
                ok: false,
                seconds: 1.0,
                parts: &parts,
            }],
        );
        assert!(
            text.contains("part a   2 checks   0.25 s  as it should\n"),
            "{text}"
        );
        assert!(text.contains("FAILED\n      bob got nothing\n"), "{text}");
        assert!(text.contains("1 of 2 parts FAILED"), "{text}");
    }
}
