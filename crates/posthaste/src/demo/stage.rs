//! Where a part of the demo plays: what it shows, and what it verifies.
//!
//! Promises: a check is about a real result, never about what was printed; the first one that does
//! not come out is kept with its reason, and the part counts as failed.

use super::Broken;
use super::abridge::{Abridged, left_out};
use super::event::{Event, PartResult};
use super::reel::Happening;
use super::show::Show;
use lab::client::{Heard, Speaker, Watch};
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
