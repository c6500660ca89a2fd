//! The command line of sendmail(8), as local programs write it. Pure.
//!
//! Options that steer another program's queue or configuration are read and mean nothing here.

use mail::delivery::{Notify, Ret};

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// A message on standard input (`-bm`).
    #[default]
    Message,
    /// SMTP on standard input and output (`-bs`).
    Smtp,
    /// The list of the queue (`-bp`).
    Queue,
    /// Nothing: there is no file of aliases to be made ready (`-bi`), and the queue runs by itself (`-q`).
    Nothing,
}

/// An order to send.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Order {
    pub mode: Mode,
    /// `-t`: the recipients stand in the message.
    pub read_recipients: bool,
    /// `-i`: a line with one dot does not end the message.
    pub ignore_dots: bool,
    /// `-f`: the envelope's sender; empty for none.
    pub sender: Option<String>,
    /// `-F`: the sender's full name.
    pub full_name: Option<String>,
    /// `-N`: when the sender wants to be told.
    pub notify: Option<String>,
    /// `-R`: what comes back with a report.
    pub ret: Option<String>,
    /// `-V`: the envelope's id.
    pub envid: Option<String>,
    /// `-B`: whether the body is declared as 8 bit.
    pub body: Option<String>,
    /// `-v`.
    pub verbose: bool,
    pub recipients: Vec<String>,
}

impl Order {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// What is wrong, for the person who called.
    pub fn read(args: &[String]) -> Result<Self, String> {
        let mut order = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) else {
                order.recipients.push(arg.clone());
                continue;
            };
            if letters == "-" {
                order.recipients.extend(rest.by_ref().cloned());
                break;
            }
            order.option(letters, &mut rest)?;
        }
        Ok(order)
    }

    /// One argument that begins with a dash; flags may stand together, as in `-ti`.
    fn option<'a>(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), String> {
        for (i, letter) in letters.char_indices() {
            let attached = &letters[i + letter.len_utf8()..];
            let mut value = || match attached {
                "" => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("-{letter} needs a value")),
                attached => Ok(attached.to_owned()),
            };
            match letter {
                't' => self.read_recipients = true,
                'i' => self.ignore_dots = true,
                'v' => self.verbose = true,
                // Flags that mean nothing here: alias expansion, submission, verbosity of errors.
                'n' | 'm' | 'G' | 'U' | 'T' | 'I' | 'c' | 's' => {}
                'f' | 'r' => self.sender = Some(value()?),
                'F' => self.full_name = Some(value()?),
                'N' => self.notify = Some(notify(&value()?)?),
                'R' => self.ret = Some(ret(&value()?)?),
                'V' => self.envid = Some(value()?),
                'B' => self.body = Some(body(&value()?)?),
                'b' => self.mode = mode(&value()?)?,
                'o' => self.old_option(&value()?),
                'O' => self.new_option(&value()?),
                // With a value that means nothing here.
                'C' | 'L' | 'X' | 'h' | 'p' | 'd' | 'M' | 'D' => drop(value()?),
                // What is attached may be an interval; nothing is ever in the next argument.
                'q' => self.mode = Mode::Nothing,
                'e' | 'A' => {}
                other => return Err(format!("there is no option -{other}; see docs/LOCAL-PROGRAMS.md")),
            }
            let takes_the_rest = "fFNRVBboOCLXhpdMDrqeA".contains(letter);
            if takes_the_rest {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `-oi`, `-oem`, `-odb`: only the first means something.
    fn old_option(&mut self, value: &str) {
        match value {
            "i" => self.ignore_dots = true,
            "v" => self.verbose = true,
            _ => {}
        }
    }

    /// `-O IgnoreDots=true`; others mean nothing here.
    fn new_option(&mut self, value: &str) {
        if let Some(("IgnoreDots", set)) = value.split_once('=') {
            self.ignore_dots = matches!(set, "" | "true" | "True" | "1" | "t" | "T");
        }
    }
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "m" => Ok(Mode::Message),
        "s" => Ok(Mode::Smtp),
        "p" => Ok(Mode::Queue),
        "i" => Ok(Mode::Nothing),
        "d" | "D" => Err("the server is started with: posthaste serve".to_owned()),
        other => Err(format!(
            "there is no mode -b{other}; there are -bm, -bs, -bp and -bi"
        )),
    }
}

fn notify(value: &str) -> Result<String, String> {
    let upper = value.to_ascii_uppercase();
    Notify::parse(&upper)
        .map(|_| upper)
        .ok_or_else(|| format!("-N {value}: write never, or success,failure,delay in any choice"))
}

fn ret(value: &str) -> Result<String, String> {
    let upper = value.to_ascii_uppercase();
    Ret::parse(&upper)
        .map(|_| upper)
        .ok_or_else(|| format!("-R {value}: write full or hdrs"))
}

fn body(value: &str) -> Result<String, String> {
    let upper = value.to_ascii_uppercase();
    match upper.as_str() {
        "7BIT" | "8BITMIME" => Ok(upper),
        _ => Err(format!("-B {value}: write 7BIT or 8BITMIME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Order, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Order::read(&args)
    }

    #[test]
    fn what_programs_write() {
        for line in [
            "-t -i -f shop@example.com",
            "-ti -fshop@example.com",
            "-oi -oem -t -r shop@example.com",
            "-t -O IgnoreDots=true -f shop@example.com",
        ] {
            let order = read(line).unwrap();
            assert!(order.read_recipients && order.ignore_dots, "{line}");
            assert_eq!(order.sender.as_deref(), Some("shop@example.com"), "{line}");
            assert!(order.recipients.is_empty(), "{line}");
        }
        // cron, s-nail, mutt, PHP.
        let cron = read("-FCronDaemon -i -B8BITMIME -oem root").unwrap();
        assert_eq!(
            (cron.full_name.as_deref(), cron.body.as_deref()),
            (Some("CronDaemon"), Some("8BITMIME"))
        );
        assert_eq!(cron.recipients, ["root"]);
        assert_eq!(
            read("-i -- -dash@example.com b@example.com")
                .unwrap()
                .recipients
                .len(),
            2
        );
        assert_eq!(read("-bs").unwrap().mode, Mode::Smtp);
        assert_eq!(read("-bp").unwrap().mode, Mode::Queue);
        assert_eq!(read("-q30m").unwrap().mode, Mode::Nothing);
        let dsn = read("-N success,delay -R hdrs -V id7 a@example.com").unwrap();
        assert_eq!(
            (dsn.notify.as_deref(), dsn.ret.as_deref()),
            (Some("SUCCESS,DELAY"), Some("HDRS"))
        );
    }

    #[test]
    fn what_is_wrong() {
        for line in ["-bd", "-bz", "-Z", "-f", "-N sometimes", "-R all", "-B 9BIT"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
