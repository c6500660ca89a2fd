//! Where a part of the demo plays: what it shows, and what it verifies.
//!
//! Promises: a check is about a real result, never about what was printed; the first one that does
//! not come out is kept with its reason, and the part counts as failed.

use super::Broken;
use super::abridge::{Abridged, left_out};
use super::event::{Event, PartResult};
use super::reel::Happening;
use super::show::Show;
use lab::client::{Heard, Observer, Speaker, Watch};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Of a long run of lines from a server, how many are shown at its start.
const HEAD_LINES: usize = 10;
/// And how many at its end.
const TAIL_LINES: usize = 6;

/// The stage of one part.
pub struct Stage {
    show: Arc<Show>,
    id: &'static str,
    title: &'static str,
    since: Instant,
    checks: usize,
    problem: Option<String>,
}

impl Stage {
    /// Begins a part.
    pub fn begin(show: &Arc<Show>, id: &'static str, title: &'static str) -> Self {
        show.event(&Event::Part { id, title });
        Self {
            show: Arc::clone(show),
            id,
            title,
            since: Instant::now(),
            checks: 0,
            problem: None,
        }
    }

    /// A remark.
    pub fn remark(&self, text: &str) {
        self.show.event(&Event::Remark { text });
    }

    /// What a person would change.
    pub fn advice(&self, text: &str) {
        self.show.event(&Event::Advice { text });
    }

    /// Lines found somewhere.
    pub fn found(&self, what: &str, lines: &[String]) {
        self.show.event(&Event::Found { what, lines });
    }

    /// Verifies something; `detail` tells what was there instead.
    pub fn check(&mut self, what: &str, ok: bool, detail: impl FnOnce() -> String) -> bool {
        self.checks += 1;
        let detail = if ok { String::new() } else { detail() };
        self.show.event(&Event::Check {
            what,
            ok,
            detail: &detail,
        });
        if !ok && self.problem.is_none() {
            self.problem = Some(match detail.is_empty() {
                true => what.to_owned(),
                false => format!("{what}: {detail}"),
            });
        }
        ok
    }

    /// Shows something that happened at a server.
    pub fn happening(&self, happening: &Happening) {
        match happening {
            Happening::Line {
                session,
                from_client,
                text,
                ..
            } => {
                let remark = text.strip_prefix('(').and_then(|t| t.strip_suffix(')'));
                let speaker = match (remark, from_client) {
                    (Some(_), _) => Speaker::Event,
                    (None, true) => Speaker::Client,
                    (None, false) => Speaker::Server,
                };
                let text = remark.unwrap_or(text);
                self.show.event(&Event::Line {
                    conversation: session,
                    speaker,
                    text,
                });
            }
            Happening::Asked { host, asked } => {
                self.show.event(&Event::Dns {
                    asker: host,
                    question: asked,
                });
            }
        }
    }

    /// Shows a client's conversation as it happens.
    pub fn watch(&self, conversation: &str) -> Watch {
        let show = Arc::clone(&self.show);
        let run = Mutex::new(Abridged::new(HEAD_LINES, TAIL_LINES));
        let observer = move |heard: &Heard| {
            let conversation = &heard.conversation;
            let line = |speaker, text: &str| {
                show.event(&Event::Line {
                    conversation,
                    speaker,
                    text,
                })
            };
            let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.speaker == Speaker::Server {
                if run.take(&heard.text) {
                    line(Speaker::Server, &heard.text);
                }
                return;
            }
            let (lines, tail) = run.end();
            if lines > 0 {
                line(Speaker::Event, &left_out(lines));
            }
            tail.iter().for_each(|text| line(Speaker::Server, text));
            line(heard.speaker, &heard.text);
        };
        Watch {
            conversation: conversation.to_owned(),
            observer: Some(Arc::new(observer)),
        }
    }

    /// As [`Stage::watch`], but what step 1 has shown already is left out: the greeting, EHLO and
    /// STARTTLS. It begins with the first other command.
    pub fn watch_past_tls(&self, conversation: &str) -> Watch {
        let show = Arc::clone(&self.show);
        let begun = AtomicBool::new(false);
        let Watch {
            conversation,
            observer,
        } = self.watch(conversation);
        let name = conversation.clone();
        let observer = observer.map(|inner| {
            let outer = move |heard: &Heard| {
                let opening = heard.speaker != Speaker::Client
                    || heard.text.starts_with("EHLO")
                    || heard.text == "STARTTLS";
                if !begun.load(Ordering::Relaxed) {
                    if opening {
                        return;
                    }
                    begun.store(true, Ordering::Relaxed);
                    let text = "greeting, EHLO, STARTTLS, TLS handshake and EHLO as in step 1";
                    show.event(&Event::Line {
                        conversation: &name,
                        speaker: Speaker::Event,
                        text,
                    });
                }
                inner(heard);
            };
            Arc::new(outer) as Observer
        });
        Watch {
            conversation,
            observer,
        }
    }

    /// Ends the part; `broken` is what stopped it early.
    pub fn end(mut self, broken: Option<Broken>) -> PartResult {
        if let Some(broken) = broken {
            self.check("the part runs to its end", false, || broken.to_string());
        }
        PartResult {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            ok: self.problem.is_none() && self.checks > 0,
            checks: self.checks,
            seconds: self.since.elapsed().as_secs_f64(),
            problem: self.problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::show::Form;

    #[test]
    fn what_step_one_has_shown_is_not_shown_again() {
        let paper: Arc<Mutex<Vec<u8>>> = Arc::default();
        struct Into(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Into {
            fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(octets);
                Ok(octets.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let show = Arc::new(Show::to(Form::Plain, Box::new(Into(Arc::clone(&paper)))));
        let stage = Stage::begin(&show, "x", "X");
        let observer = stage.watch_past_tls("c").observer.unwrap();
        for (speaker, text) in [
            (Speaker::Server, "220 hello"),
            (Speaker::Client, "EHLO me"),
            (Speaker::Server, "250 hello"),
            (Speaker::Client, "STARTTLS"),
            (Speaker::Client, "AUTH PLAIN"),
            (Speaker::Server, "535 no"),
            (Speaker::Client, "EHLO again"),
        ] {
            observer(&Heard {
                conversation: "c".to_owned(),
                speaker,
                text: text.to_owned(),
            });
        }
        let text = String::from_utf8(paper.lock().unwrap().clone()).unwrap();
        let shown = text.split_once("as in step 1)\n").unwrap().1;
        assert_eq!(shown, "    C: AUTH PLAIN\n    S: 535 no\n    C: EHLO again\n");
        assert!(!text.contains("220 hello"));
    }

    fn stage() -> Stage {
        Stage::begin(
            &Arc::new(Show::to(Form::Json, Box::new(std::io::sink()))),
            "x",
            "X",
        )
    }

    #[test]
    fn a_part_without_checks_or_with_a_failed_one_is_not_ok() {
        assert!(!stage().end(None).ok, "nothing was verified");
        let mut good = stage();
        good.check("a", true, String::new);
        assert!(good.end(None).ok);
        let mut bad = stage();
        bad.check("a", true, String::new);
        bad.check("b", false, || "c".to_owned());
        bad.check("d", false, String::new);
        let result = bad.end(None);
        assert_eq!(
            (result.ok, result.checks, result.problem.as_deref()),
            (false, 3, Some("b: c"))
        );
        let mut broken = stage();
        broken.check("a", true, String::new);
        assert!(!broken.end(Some(Broken::said("stopped"))).ok);
    }
}
