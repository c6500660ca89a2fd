//! One mailbox as an mbox file (RFC 4155, quoted so that it can be undone: each line that begins
//! with any number of `>` and `From ` gets one `>` more).
//!
//! Lines end with LF alone, as every reader of mbox expects. Flags go into the fields Status and
//! X-Status, in front of the message's own.
//! Never: a message of which only a part could be read.

use super::create;
use mail::{Timestamp, date};
use mailbox::{Entry, Flags};
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

pub(super) struct Mbox {
    out: BufWriter<File>,
    /// Where the last whole message ends.
    end: u64,
}

/// A message on its way.
pub(super) struct OnItsWay {
    /// The line that has begun and may have to be quoted.
    line: Vec<u8>,
    /// Whether `line` is the beginning of a line.
    at_start: bool,
    /// Whether a CR was held back.
    cr: bool,
}

/// `>` signs that are looked at in front of `From ` at most.
const QUOTES_MAX: usize = 900;

impl Mbox {
    pub(super) fn make(at: &Path) -> io::Result<Self> {
        Ok(Self {
            out: BufWriter::new(create(at)?),
            end: 0,
        })
    }

    pub(super) fn begin(&mut self, entry: &Entry) -> io::Result<OnItsWay> {
        writeln!(self.out, "From MAILER-DAEMON {}", asctime(entry.internal_date))?;
        let has = |flag, letter| if entry.flags.has(flag) { letter } else { "" };
        writeln!(self.out, "Status: {}O", has(Flags::SEEN, "R"))?;
        writeln!(
            self.out,
            "X-Status: {}{}{}{}",
            has(Flags::ANSWERED, "A"),
            has(Flags::FLAGGED, "F"),
            has(Flags::DRAFT, "T"),
            has(Flags::DELETED, "D")
        )?;
        Ok(OnItsWay {
            line: Vec::new(),
            at_start: true,
            cr: false,
        })
    }

    pub(super) fn piece(&mut self, message: &mut OnItsWay, octets: &[u8]) -> io::Result<()> {
        for octet in octets {
            if std::mem::take(&mut message.cr) && *octet != b'\n' {
                self.octet(message, b'\r')?;
            }
            match octet {
                b'\r' => message.cr = true,
                octet => self.octet(message, *octet)?,
            }
        }
        Ok(())
    }

    fn octet(&mut self, message: &mut OnItsWay, octet: u8) -> io::Result<()> {
        if !message.at_start {
            message.at_start = octet == b'\n';
            return self.out.write_all(&[octet]);
        }
        message.line.push(octet);
        let quotes = message.line.iter().take_while(|b| **b == b'>').count();
        let behind = &message.line[quotes..];
        if behind.len() < 5 && b"From ".starts_with(behind) && quotes < QUOTES_MAX {
            return Ok(());
        }
        if behind == b"From " {
            self.out.write_all(b">")?;
        }
        self.release(message)
    }

    fn release(&mut self, message: &mut OnItsWay) -> io::Result<()> {
        self.out.write_all(&message.line)?;
        message.at_start = message.line.last().is_none_or(|last| *last == b'\n');
        message.line.clear();
        Ok(())
    }

    pub(super) fn finish(&mut self, mut message: OnItsWay) -> io::Result<()> {
        if std::mem::take(&mut message.cr) {
            self.octet(&mut message, b'\r')?;
        }
        let ended = message.at_start && message.line.is_empty();
        self.release(&mut message)?;
        self.out.write_all(if ended { b"\n" } else { b"\n\n" })?;
        self.end = self.out.stream_position()?;
        Ok(())
    }

    pub(super) fn give_up(&mut self, _: OnItsWay) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_mut().set_len(self.end)?;
        self.out.seek(SeekFrom::Start(self.end))?;
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `Mon Nov 23 13:04:13 2026`, in UTC.
fn asctime(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let c = date::civil(at);
    let day = DAYS.get(usize::from(c.weekday)).unwrap_or(&"Sun");
    let month = MONTHS
        .get(usize::from(c.month).saturating_sub(1))
        .unwrap_or(&"Jan");
    format!(
        "{day} {month} {:2} {:02}:{:02}:{:02} {:04}",
        c.day, c.hour, c.minute, c.second, c.year
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(pieces: &[&[u8]]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mbox");
        let mut out = Mbox::make(&path).unwrap();
        let mut message = OnItsWay {
            line: Vec::new(),
            at_start: true,
            cr: false,
        };
        for piece in pieces {
            out.piece(&mut message, piece).unwrap();
        }
        out.finish(message).unwrap();
        let lost = OnItsWay {
            line: b"half".to_vec(),
            at_start: true,
            cr: false,
        };
        out.out.write_all(b"of a message that can't be read").unwrap();
        out.give_up(lost).unwrap();
        out.end().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_that_look_like_a_beginning_are_quoted_wherever_the_pieces_end() {
        let text = b"A: b\r\n\r\nFrom here\r\n>From there\r\n>>Fro\r\nFrom\r\nno From x\r\nbare \r cr\r\n";
        let good = "A: b\n\n>From here\n>>From there\n>>Fro\nFrom\nno From x\nbare \r cr\n\n";
        assert_eq!(quoted(&[text]), good);
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(quoted(&[a, b]), good, "cut at {cut}");
        }
        assert_eq!(quoted(&[b"A: b\r\n\r\nno end"]), "A: b\n\nno end\n\n");
        assert_eq!(quoted(&[b"A: b\r\n\r\nFrom"]), "A: b\n\nFrom\n\n");
    }

    #[test]
    fn the_time_is_the_one_of_asctime() {
        assert_eq!(asctime(Timestamp(0)), "Thu Jan  1 00:00:00 1970");
    }
}
