//! A server that plays a transcript, octet for octet, and notes where its client did otherwise.
//!
//! A line each:
//! - `S: words` says a line; `S! octets` says octets with escapes (`\r \n \0 \xNN`) and no line ending;
//! - `S* n octets` says them n times, `S~ octets` without end;
//! - `C: words` hears a line that begins so; `C.` hears a message up to its end mark; `C# n` hears so many octets;
//! - `(wait n)` lets n seconds pass, `(slowly n)` lets n seconds pass before each reply from there on;
//! - `(silent)` says nothing any more and keeps the connection; `(closes)` ends it.
//!
//! Behind the last line it answers QUIT and closes.

use deliver::Stream;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// A server with a transcript for each connection; the last one is for all that follow.
pub struct Player {
    transcripts: Vec<String>,
    connections: Mutex<usize>,
    /// What the client said otherwise than the transcript has it.
    faults: Mutex<Vec<String>>,
    messages: Mutex<Vec<String>>,
    lines: Mutex<Vec<String>>,
}

impl Player {
    pub fn new(transcripts: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            transcripts: transcripts.iter().map(|t| (*t).to_owned()).collect(),
            connections: Mutex::default(),
            faults: Mutex::default(),
            messages: Mutex::default(),
            lines: Mutex::default(),
        })
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    /// Whole messages that it heard.
    pub fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }

    /// Lines that it heard, on all connections.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(super) async fn serve(self: Arc<Self>, io: Box<dyn Stream>) {
        let transcript = {
            let mut connections = self.connections.lock().unwrap();
            *connections += 1;
            let last = self.transcripts.len() - 1;
            self.transcripts[last.min(*connections - 1)].clone()
        };
        let mut io = BufReader::new(io);
        let mut slowly = Duration::ZERO;
        for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line == "(closes)" {
                return;
            }
            if self.play(&mut io, line, &mut slowly).await.is_err() {
                // The client left; what it should have said is told by what it did elsewhere.
                return;
            }
        }
        let mut line = String::new();
        while matches!(io.read_line(&mut line).await, Ok(n) if n > 0) {
            let farewell = line.starts_with("QUIT");
            let answer: &[u8] = if farewell { b"221 bye\r\n" } else { b"250 ok\r\n" };
            self.lines.lock().unwrap().push(std::mem::take(&mut line));
            if io.write_all(answer).await.is_err() || farewell {
                return;
            }
        }
    }

    async fn play(
        &self,
        io: &mut BufReader<Box<dyn Stream>>,
        line: &str,
        slowly: &mut Duration,
    ) -> io::Result<()> {
        let secs = |text: &str| Duration::from_secs(text.trim_end_matches(')').parse().unwrap());
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        match what {
            "S:" => {
                tokio::time::sleep(*slowly).await;
                io.write_all(format!("{rest}\r\n").as_bytes()).await?;
            }
            "S!" => io.write_all(&unescaped(rest)).await?,
            "S*" => {
                let (times, octets) = rest.split_once(' ').unwrap();
                let octets = unescaped(octets);
                for _ in 0..times.parse::<usize>().unwrap() {
                    io.write_all(&octets).await?;
                }
            }
            "S~" => {
                let octets = unescaped(rest).repeat(1_000);
                loop {
                    io.write_all(&octets).await?;
                }
            }
            "C:" => self.hear_line(io, rest).await?,
            "C." => self.hear_message(io).await?,
            "C#" => {
                let mut octets = vec![0; rest.parse().unwrap()];
                io.read_exact(&mut octets).await?;
                self.note_message(octets);
            }
            "(wait" => tokio::time::sleep(secs(rest)).await,
            "(slowly" => *slowly = secs(rest),
            "(silent)" => std::future::pending::<()>().await,
            _ => panic!("no such line in a transcript: {line}"),
        }
        io.flush().await
    }

    async fn hear_line(&self, io: &mut BufReader<Box<dyn Stream>>, wanted: &str) -> io::Result<()> {
        let mut line = String::new();
        if io.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if !line.starts_with(wanted) {
            self.faults
                .lock()
                .unwrap()
                .push(format!("{line:?}, not {wanted:?}"));
        }
        self.lines.lock().unwrap().push(line);
        Ok(())
    }

    async fn hear_message(&self, io: &mut BufReader<Box<dyn Stream>>) -> io::Result<()> {
        let mut text = Vec::new();
        while text != b".\r\n" && !text.ends_with(b"\r\n.\r\n") {
            if io.read_until(b'\n', &mut text).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        text.truncate(text.len() - 3);
        self.note_message(text);
        Ok(())
    }

    fn note_message(&self, text: Vec<u8>) {
        let text = String::from_utf8_lossy(&text).into_owned();
        self.messages.lock().unwrap().push(text);
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        match octets.next().unwrap() {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b'0' => out.push(0),
            b'x' => {
                let digits = [octets.next().unwrap(), octets.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap().to_owned();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            other => out.push(other),
        }
    }
    out
}
