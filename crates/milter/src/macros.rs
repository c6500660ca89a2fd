//! Macros: small facts about connection and message that filters know by name.

use crate::packet::DATA_OCTETS_MAX;
use std::collections::BTreeMap;

/// Octets of a macro's value at most; what is longer is cut.
const VALUE_OCTETS_MAX: usize = 1_024;
/// Names that a filter may ask for at one stage; further ones are ignored.
const NAMES_MAX: usize = 64;

/// When macros are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// With the connection.
    Connect = 0,
    /// With HELO.
    Helo = 1,
    /// With MAIL.
    Mail = 2,
    /// With RCPT.
    Rcpt = 3,
    /// With DATA.
    Data = 4,
    /// With the end of the message.
    EndOfMessage = 5,
    /// With the end of the header section.
    EndOfHeader = 6,
}

/// All stages, by their number on the wire.
const STAGES: [Stage; 7] = [
    Stage::Connect,
    Stage::Helo,
    Stage::Mail,
    Stage::Rcpt,
    Stage::Data,
    Stage::EndOfMessage,
    Stage::EndOfHeader,
];

impl Stage {
    /// What is told to a filter that did not choose.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Connect => &[
                "j",
                "_",
                "v",
                "{daemon_name}",
                "{client_addr}",
                "{client_name}",
                "{client_port}",
                "{client_ptr}",
            ],
            Self::Helo => &["{tls_version}", "{cipher}", "{cert_subject}", "{cert_issuer}"],
            Self::Mail => &[
                "i",
                "{auth_type}",
                "{auth_authen}",
                "{auth_author}",
                "{mail_addr}",
                "{mail_host}",
                "{mail_mailer}",
                // Again, because a session learns TLS after its connection.
                "{tls_version}",
                "{cipher}",
            ],
            Self::Rcpt => &["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"],
            Self::Data | Self::EndOfMessage | Self::EndOfHeader => &["i"],
        }
    }
}

/// The macros that are known now. A name of one letter stands bare, a longer one in braces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Macros(BTreeMap<String, String>);

impl Macros {
    /// Sets a macro, or takes it away. Control characters of the value become `?`.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let name = written(name);
        match value {
            None => {
                self.0.remove(&name);
            }
            Some(value) => {
                let mut kept: String = value
                    .chars()
                    .map(|c| if c.is_control() { '?' } else { c })
                    .collect();
                let mut end = kept.len().min(VALUE_OCTETS_MAX);
                while !kept.is_char_boundary(end) {
                    end -= 1;
                }
                kept.truncate(end);
                self.0.insert(name, kept);
            }
        }
    }

    /// A macro's value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(&written(name)).map(String::as_str)
    }
}

/// Which macros a filter is told at which stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice([Option<Vec<String>>; 7]);

impl Choice {
    /// The filter's own choice for a stage. Stages that nobody knows are ignored.
    pub(crate) fn choose(&mut self, stage: u32, names: &[u8]) {
        let chosen = String::from_utf8_lossy(names)
            .split([' ', ',', '\t'])
            .filter(|n| !n.is_empty())
            .take(NAMES_MAX)
            .map(written)
            .collect();
        if let Some(slot) = self.0.get_mut(stage as usize) {
            *slot = Some(chosen);
        }
    }

    /// What is told at this stage of what is known; it fits a packet.
    pub(crate) fn told(&self, stage: Stage, known: &Macros) -> Vec<(String, String)> {
        let mut told = Vec::new();
        let mut octets = 1;
        let mut tell = |name: &str| {
            let Some((name, value)) = known.0.get_key_value(name) else {
                return;
            };
            octets += name.len() + value.len() + 2;
            if octets <= DATA_OCTETS_MAX {
                told.push((name.clone(), value.clone()));
            }
        };
        match STAGES
            .iter()
            .position(|s| *s == stage)
            .and_then(|i| self.0[i].as_ref())
        {
            Some(chosen) => chosen.iter().for_each(|name| tell(name)),
            None => stage.names().iter().for_each(|name| tell(name)),
        }
        told
    }
}

fn written(name: &str) -> String {
    let bare = name.trim_start_matches('{').trim_end_matches('}');
    if bare.chars().count() == 1 {
        bare.to_owned()
    } else {
        format!("{{{bare}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_chooses_and_the_filter_may_choose_otherwise() {
        let mut known = Macros::default();
        known.set("j", Some("mail.example.com"));
        known.set("{i}", Some("Q1"));
        known.set("client_addr", Some("192.0.2.1"));
        known.set("auth_type", Some("PLAIN\r\nX"));
        let mut choice = Choice::default();
        let names = |choice: &Choice, stage| {
            let told = choice.told(stage, &known);
            told.into_iter()
                .map(|(n, v)| format!("{n}={v}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            names(&choice, Stage::Connect),
            "j=mail.example.com {client_addr}=192.0.2.1"
        );
        assert_eq!(names(&choice, Stage::Mail), "i=Q1 {auth_type}=PLAIN??X");
        choice.choose(2, b"{client_addr}, i {unknown}");
        choice.choose(7, b"i");
        assert_eq!(names(&choice, Stage::Mail), "{client_addr}=192.0.2.1 i=Q1");
        assert_eq!(names(&choice, Stage::Rcpt), "i=Q1");
    }
}
