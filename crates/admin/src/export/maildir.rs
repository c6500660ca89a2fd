//! One mailbox as a Maildir: a file a message, its flags in its name, its arrival as its time.
//!
//! Files are written in `tmp` and get their name in `cur` when they are whole. The names are made
//! of mailbox and UID, so that two exports can be compared.
//! Never: a message changed by an octet.

use super::{create, make_folder};
use mailbox::{Entry, Flags, Mailbox};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

pub(super) struct Maildir {
    at: PathBuf,
}

/// A message on its way.
pub(super) struct OnItsWay {
    path: PathBuf,
    name: String,
    file: BufWriter<File>,
}

impl Maildir {
    pub(super) fn make(at: &Path) -> io::Result<Self> {
        for folder in ["cur", "new", "tmp"] {
            make_folder(&at.join(folder))?;
        }
        let is_top = !at
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_top {
            // Maildir++ marks the folders below the top so.
            create(&at.join("maildirfolder"))?;
        }
        Ok(Self { at: at.to_owned() })
    }

    fn name_of(mailbox: &Mailbox, entry: &Entry) -> String {
        let secs = entry.internal_date.secs();
        format!("{secs}.M{}U{}.posthaste", mailbox.id.0, entry.uid.0)
    }

    pub(super) fn begin(&mut self, mailbox: &Mailbox, entry: &Entry) -> io::Result<OnItsWay> {
        let name = Self::name_of(mailbox, entry);
        let path = self.at.join("tmp").join(&name);
        let file = BufWriter::new(create(&path)?);
        Ok(OnItsWay { path, name, file })
    }

    pub(super) fn finish(&mut self, message: OnItsWay, entry: &Entry) -> io::Result<()> {
        let file = message
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let micros = u64::try_from(entry.internal_date.0).unwrap_or(0);
        file.set_modified(UNIX_EPOCH + Duration::from_micros(micros))?;
        let name = format!("{},S={}:2,{}", message.name, entry.size(), flags(entry.flags));
        std::fs::rename(&message.path, self.at.join("cur").join(name))
    }
}

impl OnItsWay {
    pub(super) fn piece(&mut self, octets: &[u8]) -> io::Result<()> {
        self.file.write_all(octets)
    }

    pub(super) fn give_up(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// The letters of the flags, in the order of the alphabet.
fn flags(flags: Flags) -> String {
    let letters = [
        (Flags::DRAFT, 'D'),
        (Flags::FLAGGED, 'F'),
        (Flags::ANSWERED, 'R'),
        (Flags::SEEN, 'S'),
        (Flags::DELETED, 'T'),
    ];
    letters
        .into_iter()
        .filter(|(flag, _)| flags.has(*flag))
        .map(|(_, letter)| letter)
        .collect()
}
