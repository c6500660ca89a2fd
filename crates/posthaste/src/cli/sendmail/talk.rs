//! The conversation of `posthaste sendmail` with the server: SMTP over its local socket.

use super::Trouble;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the server may take for one reply; the end of a message waits for the disk and the DNS.
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);
/// Octets of a reply at most.
const REPLY_OCTETS_MAX: u64 = 64 * 1024;

/// A message and its envelope.
pub struct Parcel {
    /// Without brackets; empty for none.
    pub sender: String,
    pub recipients: Vec<String>,
    /// With CR LF at the end of each line.
    pub message: Vec<u8>,
    pub body: String,
    pub notify: Option<String>,
    pub ret: Option<String>,
    pub envid: Option<String>,
}

/// A connection to the server.
pub struct Talk {
    stream: BufReader<UnixStream>,
    verbose: bool,
    extensions: Vec<String>,
}

/// Connects to the server.
///
/// # Errors
/// Why it cannot be reached, with the exit code for it.
pub fn connect(path: &Path) -> Result<UnixStream, Trouble> {
    use std::io::ErrorKind as K;
    let place = path.display();
    let stream = UnixStream::connect(path).map_err(|e| match e.kind() {
        K::NotFound | K::ConnectionRefused => {
            Trouble::temporary(format!("no server listens at {place}; start it with posthaste serve, then try again"))
        }
        K::PermissionDenied => Trouble::not_permitted(format!(
            "{place} cannot be reached by this user: the operator sets sendmail.socket to a path that it can reach, \
             and names the user in sendmail.user"
        )),
        _ => Trouble::temporary(format!("{place}: {e}")),
    })?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    Ok(stream)
}

impl Talk {
    /// Greets.
    pub fn begin(stream: UnixStream, hostname: &str, verbose: bool) -> Result<Self, Trouble> {
        let mut talk = Self {
            stream: BufReader::new(stream),
            verbose,
            extensions: Vec::new(),
        };
        talk.reply()?.good()?;
        let hello = talk.ask(&format!("EHLO {hostname}"))?;
        talk.extensions = hello.text.lines().skip(1).map(str::to_ascii_uppercase).collect();
        hello.good()?;
        Ok(talk)
    }

    fn offers(&self, keyword: &str) -> bool {
        let first = |line: &String| line.split(' ').next() == Some(keyword);
        self.extensions.iter().any(first)
    }

    /// Hands the parcel over. Answers what was said at the end, and of each recipient that was refused.
    pub fn send(mut self, parcel: &Parcel) -> Result<(String, Vec<Trouble>), Trouble> {
        let mut mail = format!("MAIL FROM:<{}> SIZE={}", parcel.sender, parcel.message.len());
        if parcel.body != "7BIT" {
            mail.push_str(&format!(" BODY={}", parcel.body));
        }
        let all_ascii = parcel.sender.is_ascii() && parcel.recipients.iter().all(|r| r.is_ascii());
        if !all_ascii {
            mail.push_str(" SMTPUTF8");
        }
        let dsn = self.offers("DSN");
        if let Some(ret) = parcel.ret.as_ref().filter(|_| dsn) {
            mail.push_str(&format!(" RET={ret}"));
        }
        if let Some(envid) = parcel.envid.as_ref().filter(|_| dsn) {
            mail.push_str(&format!(" ENVID={}", mail::delivery::xtext::encode(envid)));
        }
        self.ask(&mail)?.good()?;
        let mut refused = Vec::new();
        for recipient in &parcel.recipients {
            let mut rcpt = format!("RCPT TO:<{recipient}>");
            if let Some(notify) = parcel.notify.as_ref().filter(|_| dsn) {
                rcpt.push_str(&format!(" NOTIFY={notify}"));
            }
            let reply = self.ask(&rcpt)?;
            if !reply.is_positive() {
                refused.push(Trouble::said(&reply.line(), reply.code).about(recipient));
            }
        }
        if refused.len() == parcel.recipients.len() {
            let _ = self.ask("QUIT");
            return Ok((String::new(), refused));
        }
        let go = self.ask("DATA")?;
        if go.code != 354 {
            return Err(Trouble::said(&go.line(), go.code));
        }
        self.write(&stuffed(&parcel.message))?;
        let end = self.reply()?;
        let said = end.line();
        end.good()?;
        let _ = self.ask("QUIT");
        Ok((said, refused))
    }

    fn ask(&mut self, line: &str) -> Result<Said, Trouble> {
        if self.verbose {
            eprintln!(">>> {line}");
        }
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Trouble> {
        Ok(self.stream.get_mut().write_all(octets)?)
    }

    fn reply(&mut self) -> Result<Said, Trouble> {
        let mut text = String::new();
        let mut limited = (&mut self.stream).take(REPLY_OCTETS_MAX);
        loop {
            let mut line = String::new();
            if limited.read_line(&mut line)? == 0 {
                return Err(Trouble::temporary("the server closed the connection"));
            }
            let line = line.trim_end();
            if self.verbose {
                eprintln!("{line}");
            }
            let (Some(code), separator) = (line.get(..3).and_then(|c| c.parse().ok()), line.get(3..4)) else {
                return Err(Trouble::temporary(format!("the server said: {line}")));
            };
            text.push_str(line.get(4..).unwrap_or_default());
            if separator != Some("-") {
                return Ok(Said { code, text });
            }
            text.push('\n');
        }
    }
}

/// A reply.
struct Said {
    code: u16,
    text: String,
}

impl Said {
    fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    fn line(&self) -> String {
        format!("{} {}", self.code, self.text.replace('\n', " "))
    }

    fn good(self) -> Result<(), Trouble> {
        if self.is_positive() {
            Ok(())
        } else {
            Err(Trouble::said(&self.line(), self.code))
        }
    }
}

/// The message with its dots doubled (RFC 5321 section 4.5.2) and its end.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled() {
        assert_eq!(stuffed(b"a\r\n.\r\n..b\r\n"), b"a\r\n..\r\n...b\r\n.\r\n");
    }
}
