//! Exporting mailboxes as plain files, for any other program and for the day when nothing else
//! works.
//!
//! Promises: a record that can't be read never ends it; each is named in the report file
//! `export-report.txt` and counted; no name of an account or a mailbox leads out of the folder; a
//! folder that holds something is refused. Never: a change to the store, `\Seen` set.

mod maildir;
mod mbox;
mod names;

use crate::long::{Far, Listen, Teller};
use crate::office::Office;
use crate::words::{ExportFormat, ExportView, Refusal};
use directory::Account;
use mail::{EmailAddress, Uid};
use mailbox::{Entry, Mailbox};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file that names what could not be exported.
pub const REPORT_NAME: &str = "export-report.txt";
/// Entries and accounts that are read at once.
const PAGE: usize = 500;
/// Octets of a message that are read at once.
const PIECE_OCTETS: u64 = 1 << 20;
/// Findings that the answer names; all are in the report file.
const NAMED_MAX: usize = 100;

/// An export under way.
struct Export<'a> {
    office: &'a Office,
    format: ExportFormat,
    teller: Teller<'a>,
    report: File,
    view: ExportView,
}

/// Why a message was not exported.
enum Trouble {
    /// It can't be read.
    Message(String),
    /// The folder can't be written.
    Folder(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Folder(error)
    }
}

/// Exports one account or all of them into a folder that is empty or not there yet.
///
/// # Errors
/// When there is no such account, or the folder can't be written.
pub async fn run(
    office: &Office,
    account: Option<EmailAddress>,
    folder: &Path,
    format: ExportFormat,
    listen: Listen<'_>,
) -> Result<ExportView, Refusal> {
    if !folder.is_absolute() {
        return Err(Refusal::invalid(
            "the folder of an export must be an absolute path",
        ));
    }
    let only = match &account {
        Some(address) => Some(
            office
                .directory
                .account_by_address(address)
                .await?
                .ok_or_else(|| Refusal::not_found(format!("there is no account {address}")))?,
        ),
        None => None,
    };
    let unwritable = |error: io::Error| Refusal::failed(format!("{}: {error}", folder.display()));
    begin(folder).map_err(unwritable)?;
    let mut export = Export {
        office,
        format,
        teller: Teller::new(listen),
        report: create(&folder.join(REPORT_NAME)).map_err(unwritable)?,
        view: ExportView::default(),
    };
    match only {
        Some(account) => export.account(&account, folder).await.map_err(unwritable)?,
        None => export.all(folder).await.map_err(unwritable)?,
    }
    export.end().map_err(unwritable)?;
    Ok(export.view)
}

fn begin(folder: &Path) -> io::Result<()> {
    make_folder(folder)?;
    if std::fs::read_dir(folder)?.next().is_some() {
        return Err(io::Error::other(
            "the folder is not empty; an export goes into an empty one",
        ));
    }
    Ok(())
}

/// Makes a folder for its owner alone.
fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Makes a file for its owner alone; it must not be there.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

impl Export<'_> {
    async fn all(&mut self, folder: &Path) -> io::Result<()> {
        let mut after = None;
        loop {
            let page = match self.office.directory.accounts(after, PAGE).await {
                Ok(page) => page,
                Err(error) => return self.bad(&format!("the list of accounts: {error}")),
            };
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for account in &page {
                self.account(account, folder).await?;
            }
        }
    }

    async fn account(&mut self, account: &Account, folder: &Path) -> io::Result<()> {
        let at = folder.join(names::one(account.address.to_string().as_str()));
        make_folder(&at)?;
        self.view.accounts += 1;
        let mailboxes = match self.office.mailboxes.list(account.id).await {
            Ok(mailboxes) => mailboxes,
            Err(error) => return self.bad(&format!("the mailboxes of {}: {error}", account.address)),
        };
        let mut taken = names::Taken::default();
        for mailbox in mailboxes {
            let place = match self.format {
                ExportFormat::Maildir => taken.fresh(names::maildir(&mailbox.name)),
                ExportFormat::Mbox => taken.fresh(names::mbox(&mailbox.name)),
            };
            self.mailbox(account, &mailbox, at.join(place)).await?;
        }
        Ok(())
    }

    async fn mailbox(&mut self, account: &Account, mailbox: &Mailbox, at: PathBuf) -> io::Result<()> {
        let what = format!("{} {}", account.address, mailbox.name);
        let mut out = match self.format {
            ExportFormat::Maildir => Out::Maildir(maildir::Maildir::make(&at)?),
            ExportFormat::Mbox => Out::Mbox(mbox::Mbox::make(&at)?),
        };
        self.view.mailboxes += 1;
        let promised = self.office.mailboxes.status(mailbox.place()).await;
        let mut from = Uid(0);
        let mut seen = 0;
        loop {
            let page = match self.office.mailboxes.entries(mailbox.place(), from, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    self.bad(&format!("{what}: from UID {} on: {error}", from.0))?;
                    break;
                }
            };
            let Some(last) = page.last() else { break };
            from = Uid(last.uid.0.saturating_add(1));
            for entry in &page {
                seen += 1;
                match self.message(&mut out, mailbox, entry).await {
                    Ok(()) => {}
                    Err(Trouble::Message(why)) => self.bad(&format!("{what}: UID {}: {why}", entry.uid.0))?,
                    Err(Trouble::Folder(error)) => return Err(error),
                }
                let (done, octets) = (self.view.messages, self.view.octets);
                let far = || Far {
                    what: "messages exported".to_owned(),
                    done,
                    octets,
                };
                if !self.teller.far(far) {
                    return Err(io::Error::other("stopped before the end"));
                }
            }
            if last.uid.0 == u32::MAX {
                break;
            }
        }
        match promised {
            // Mail that comes meanwhile makes them more, never fewer.
            Ok(status) if status.messages > seen => {
                let lost = status.messages - seen;
                self.bad(&format!(
                    "{what}: {lost} messages whose records can't be read, or that were removed meanwhile"
                ))?;
            }
            Ok(_) => {}
            Err(error) => self.bad(&format!("{what}: its counters: {error}"))?,
        }
        out.end()
    }

    async fn message(&mut self, out: &mut Out, mailbox: &Mailbox, entry: &Entry) -> Result<(), Trouble> {
        let mut message = out.begin(mailbox, entry)?;
        let mut at = 0;
        while at < entry.size() {
            let piece = self.office.mailboxes.read(entry, at..at + PIECE_OCTETS).await;
            match piece {
                Ok(piece) if !piece.is_empty() => {
                    out.piece(&mut message, &piece)?;
                    at += piece.len() as u64;
                }
                unreadable => {
                    out.give_up(message)?;
                    let why = unreadable.err().map(|error| error.to_string());
                    return Err(Trouble::Message(why.unwrap_or("it ends too soon".to_owned())));
                }
            }
        }
        out.finish(message, entry)?;
        self.view.messages += 1;
        self.view.octets += at;
        Ok(())
    }

    /// Names something that could not be exported.
    fn bad(&mut self, what: &str) -> io::Result<()> {
        self.view.damaged += 1;
        if self.view.damage.len() < NAMED_MAX {
            self.view.damage.push(what.to_owned());
        }
        writeln!(self.report, "{what}")
    }

    fn end(&mut self) -> io::Result<()> {
        let v = &self.view;
        writeln!(
            self.report,
            "{} accounts, {} mailboxes, {} messages, {} octets; {} could not be exported",
            v.accounts, v.mailboxes, v.messages, v.octets, v.damaged
        )?;
        self.report.sync_all()
    }
}

/// Where messages go.
enum Out {
    Maildir(maildir::Maildir),
    Mbox(mbox::Mbox),
}

/// A message on its way.
enum OnItsWay {
    Maildir(maildir::OnItsWay),
    Mbox(mbox::OnItsWay),
}

impl Out {
    fn begin(&mut self, mailbox: &Mailbox, entry: &Entry) -> io::Result<OnItsWay> {
        match self {
            Out::Maildir(out) => Ok(OnItsWay::Maildir(out.begin(mailbox, entry)?)),
            Out::Mbox(out) => Ok(OnItsWay::Mbox(out.begin(entry)?)),
        }
    }

    fn piece(&mut self, message: &mut OnItsWay, octets: &[u8]) -> io::Result<()> {
        match (self, message) {
            (Out::Maildir(_), OnItsWay::Maildir(message)) => message.piece(octets),
            (Out::Mbox(out), OnItsWay::Mbox(message)) => out.piece(message, octets),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, message: OnItsWay, entry: &Entry) -> io::Result<()> {
        match (self, message) {
            (Out::Maildir(out), OnItsWay::Maildir(message)) => out.finish(message, entry),
            (Out::Mbox(out), OnItsWay::Mbox(message)) => out.finish(message),
            _ => Ok(()),
        }
    }

    fn give_up(&mut self, message: OnItsWay) -> io::Result<()> {
        match (self, message) {
            (Out::Maildir(_), OnItsWay::Maildir(message)) => message.give_up(),
            (Out::Mbox(out), OnItsWay::Mbox(message)) => out.give_up(message),
            _ => Ok(()),
        }
    }

    fn end(self) -> io::Result<()> {
        match self {
            Out::Maildir(_) => Ok(()),
            Out::Mbox(out) => out.end(),
        }
    }
}
