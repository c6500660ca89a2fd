//! What the demo tells: the values that are painted for people and written as JSON for machines.

use lab::client::Speaker;
use lab::dns::Asked;
use serde::Serialize;

/// Something to show.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// A part begins: one of the five steps, or a scene.
    Part { id: &'a str, title: &'a str },
    /// A remark in between.
    Remark { text: &'a str },
    /// A line of a conversation.
    Line {
        conversation: &'a str,
        speaker: Speaker,
        text: &'a str,
    },
    /// A DNS question and its answer; `asker` is the server that asked.
    Dns { asker: &'a str, question: &'a Asked },
    /// Lines found in a message, or told by a server.
    Found { what: &'a str, lines: &'a [String] },
    /// Something that was verified.
    Check {
        what: &'a str,
        ok: bool,
        detail: &'a str,
    },
    /// What a person would change.
    Advice { text: &'a str },
    /// Everything is over.
    Summary {
        ok: bool,
        seconds: f64,
        parts: &'a [PartResult],
    },
    /// How to connect one's own mail program.
    Connect {
        hosts: &'a [Host],
        trust: &'a str,
        try_this: &'a [String],
    },
}

/// How a part ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PartResult {
    /// For example `step-1` or `forged`.
    pub id: String,
    /// In words.
    pub title: String,
    /// Whether all its checks came out.
    pub ok: bool,
    /// How many things were verified.
    pub checks: usize,
    /// How long it took.
    pub seconds: f64,
    /// The first thing that did not come out.
    pub problem: Option<String>,
}

/// One server, for people who want to connect.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Host {
    /// The domain it serves.
    pub domain: String,
    /// `smtp 127.0.1.1:2525` and so on.
    pub services: Vec<Service>,
    /// Users with their passwords; these open nothing but this demo.
    pub users: Vec<(String, String)>,
}

/// One listener.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Service {
    /// For example `IMAP`.
    pub name: String,
    /// `address:port`.
    pub address: String,
    /// For example `TLS` or `STARTTLS`.
    pub security: &'static str,
}
