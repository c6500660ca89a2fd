//! Asking the DNS for one check, within the limits of RFC 7208 §4.6.4, and keeping what it said.

use super::{LOOKUPS_MAX, PTR_NAMES_MAX, SpfStep, VOID_LOOKUPS_MAX};
use crate::iprev::resolves_to;
use dns::{Answer, DnsError, Name, Resolver};
use mail::Domain;
use std::fmt::Display;
use std::net::IpAddr;

/// Steps that are kept; a record of tens of thousands of terms keeps no more.
const STEPS_MAX: usize = 500;

/// Octets of one answer that are kept in a step.
const ANSWER_OCTETS_MAX: usize = 600;

/// What ends an evaluation early.
pub(super) enum Stop {
    Temp(String),
    Perm(String),
}

/// One check under way.
pub(super) struct Check<'a> {
    pub(super) resolver: &'a dyn Resolver,
    pub(super) ip: IpAddr,
    pub(super) helo: &'a str,
    pub(super) receiver: &'a str,
    pub(super) now_secs: i64,
    pub(super) local_part: String,
    pub(super) sender_domain: String,
    pub(super) lookups: u32,
    pub(super) void_lookups: u32,
    /// Names of the address that resolve back to it, once they were asked for.
    pub(super) validated: Option<Vec<Domain>>,
    pub(super) steps: Vec<SpfStep>,
}

impl Check<'_> {
    /// RFC 7208 §7.3: the domain itself, else a name below it, else any, else "unknown".
    pub(super) fn validated_name(&self, domain: &str) -> &str {
        let names = self.validated.as_deref().unwrap_or_default();
        let best = names
            .iter()
            .find(|n| n.as_str().eq_ignore_ascii_case(domain))
            .or_else(|| names.iter().find(|n| at_or_below(n.as_str(), domain)))
            .or_else(|| names.first());
        best.map_or("unknown", Domain::as_str)
    }

    /// Fills `validated` once. Trouble with the DNS only means that a name is not validated.
    pub(super) async fn validate_names(&mut self, step: usize) -> Result<(), Stop> {
        if self.validated.is_some() {
            return Ok(());
        }
        let answer = self.resolver.ptr(self.ip).await;
        self.tell(
            step,
            &format!("{} PTR", dns::reverse_name(self.ip)),
            &answer,
            ToString::to_string,
        );
        let void = match &answer {
            Ok(answer) => answer.records.is_empty(),
            Err(error) => !error.is_temporary(),
        };
        if void {
            self.count_void(step)?;
        }
        let names = answer.map(|a| a.records).unwrap_or_default();
        let mut validated = Vec::new();
        for name in names.into_iter().take(PTR_NAMES_MAX) {
            if matches!(resolves_to(self.resolver, &name, self.ip).await, Ok(true)) {
                self.note(step, &format!("{name} resolves back to {}", self.ip));
                validated.push(name);
            }
        }
        self.validated = Some(validated);
        Ok(())
    }

    /// The addresses of a name, of the client's kind.
    pub(super) async fn addresses(&mut self, name: &Name, step: usize) -> Result<Vec<IpAddr>, Stop> {
        if self.ip.is_ipv4() {
            let answer = self.resolver.a_of(name).await;
            self.tell(step, &format!("{name} A"), &answer, ToString::to_string);
            let records = self.records(answer, step)?;
            return Ok(records.into_iter().map(IpAddr::V4).collect());
        }
        let answer = self.resolver.aaaa_of(name).await;
        self.tell(step, &format!("{name} AAAA"), &answer, ToString::to_string);
        let records = self.records(answer, step)?;
        Ok(records.into_iter().map(IpAddr::V6).collect())
    }

    /// The records of an answer; none when the name does not exist.
    pub(super) fn records<T>(&mut self, answer: dns::Result<T>, step: usize) -> Result<Vec<T>, Stop> {
        match answer {
            Ok(answer) => Ok(answer.records),
            Err(error) if error.is_temporary() => Err(self.temporary(step, &error)),
            Err(_) => Ok(Vec::new()),
        }
    }

    pub(super) fn count_lookup(&mut self, step: usize) -> Result<(), Stop> {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX {
            let why =
                format!("the record needs more than {LOOKUPS_MAX} DNS lookups (RFC 7208 section 4.6.4)");
            return Err(self.permanent(step, why));
        }
        Ok(())
    }

    pub(super) fn count_void(&mut self, step: usize) -> Result<(), Stop> {
        self.void_lookups += 1;
        if self.void_lookups > VOID_LOOKUPS_MAX {
            let why = format!(
                "more than {VOID_LOOKUPS_MAX} lookups of the record find nothing (RFC 7208 section 4.6.4)"
            );
            return Err(self.permanent(step, why));
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, depth: u32, domain: &str, term: &str) -> usize {
        if self.steps.len() < STEPS_MAX {
            self.steps.push(SpfStep {
                depth,
                domain: domain.to_owned(),
                term: term.to_owned(),
                dns: Vec::new(),
                matched: None,
                note: String::new(),
            });
            return self.steps.len() - 1;
        }
        STEPS_MAX
    }

    pub(super) fn end(&mut self, step: usize, matched: Option<bool>, note: &dyn Display) {
        if let Some(step) = self.steps.get_mut(step) {
            step.matched = matched;
            step.note = note.to_string();
        }
    }

    /// Ends a mechanism's step; what was told before stays.
    pub(super) fn end_matched(&mut self, step: usize, matched: bool, note: &str) {
        if let Some(step) = self.steps.get_mut(step) {
            step.matched = Some(matched);
            step.note = if step.note.is_empty() {
                note.to_owned()
            } else {
                format!("{}, so it {note}", step.note)
            };
        }
    }

    pub(super) fn end_unless_told(&mut self, step: usize, note: &str) {
        if let Some(step) = self.steps.get_mut(step).filter(|s| s.note.is_empty()) {
            step.note = note.to_owned();
        }
    }

    pub(super) fn note(&mut self, step: usize, text: &str) {
        if let Some(step) = self.steps.get_mut(step) {
            step.dns.push(text.to_owned());
        }
    }

    pub(super) fn tell<T>(
        &mut self,
        step: usize,
        question: &str,
        answer: &Result<Answer<T>, DnsError>,
        show: impl Fn(&T) -> String,
    ) {
        let said = match answer {
            Ok(answer) if answer.records.is_empty() => "no such records".to_owned(),
            Ok(answer) => {
                let shown: Vec<String> = answer.records.iter().map(show).collect();
                crate::words::ascii(&shown.join(", "), ANSWER_OCTETS_MAX)
            }
            Err(error) => error.to_string(),
        };
        self.note(step, &format!("{question}: {said}"));
    }

    pub(super) fn temporary(&mut self, step: usize, error: &DnsError) -> Stop {
        self.end(step, None, error);
        Stop::Temp(error.to_string())
    }

    pub(super) fn permanent(&mut self, step: usize, why: String) -> Stop {
        self.end(step, None, &why);
        Stop::Perm(why)
    }
}

/// Whether a name is another or stands below it; case does not matter.
pub(super) fn at_or_below(name: &str, ancestor: &str) -> bool {
    let (name, ancestor) = (name.to_ascii_lowercase(), ancestor.to_ascii_lowercase());
    match name.strip_suffix(&ancestor) {
        Some(front) => front.is_empty() || front.ends_with('.'),
        None => false,
    }
}
