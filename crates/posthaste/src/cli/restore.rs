//! `posthaste restore`: a backup becomes a data folder.
//!
//! The store is made under another name and gets its own when it is whole: what an interrupted
//! restore leaves can't be taken for a server's mail.

use super::long::{Line, octets};
use super::out::outln;
use super::{Failure, backup, settings};
use crate::args::Global;
use crate::world;
use mailbox::Mailboxes;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use store::LogStore;
use store::backup::{DataFile, RestoreError, RestoreOptions, Restored};
use store::file::{Disk, RealDisk};

/// The store's name until it is whole.
const UNFINISHED: &str = "store.restoring";

pub fn run(global: &Global, from: &Path, skip_damage: bool) -> Result<ExitCode, Failure> {
    let data = settings(global)?.data;
    must_be_empty(&data)?;
    world::make_private(&data).map_err(|e| Failure::store(format!("{}: {e}", data.display())))?;
    let unfinished = data.join(UNFINISHED);
    let restored = into(from, &unfinished, skip_damage, global.json).inspect_err(|_| {
        // It was made here and now, and is of no use.
        let _ = std::fs::remove_dir_all(&unfinished);
    })?;
    let mailboxes = leap(&unfinished)?;
    for file in &restored.files {
        write_file(&data, file)?;
    }
    std::fs::rename(&unfinished, data.join("store"))?;
    RealDisk.sync_dir(&data)?;
    backup::survey_in_words(&restored.survey, global.json);
    let damaged = !restored.survey.findings.is_empty();
    if !global.json {
        outln!("restored into {}: {mailboxes} mailboxes", data.display());
        outln!(
            "what waits in the queue goes out when the server starts; to look first: posthaste queue list"
        );
        if restored
            .files
            .iter()
            .any(|file| file.path == backup::SETTINGS_NAME)
        {
            outln!(
                "the settings of then: {}",
                data.join(backup::SETTINGS_NAME).display()
            );
        }
    }
    Ok(ExitCode::from(u8::from(damaged)))
}

fn must_be_empty(data: &Path) -> Result<(), Failure> {
    let names = match std::fs::read_dir(data) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::store(format!("{}: {e}", data.display()))),
    };
    let mut names = names.filter_map(|entry| entry.ok().map(|entry| entry.file_name()));
    let Some(first) = names.next() else { return Ok(()) };
    let hint = match first == UNFINISHED || names.any(|name| name == UNFINISHED) {
        true => "a restore into it did not come to its end; remove the folder and restore again",
        false => "a backup is restored into an empty data folder only; name another one with --data",
    };
    Err(Failure::store(format!("{} is not empty: {hint}", data.display())))
}

fn into(from: &Path, to: &Path, skip_damage: bool, quiet: bool) -> Result<Restored, Failure> {
    let mut line = Line::new(quiet);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = RestoreOptions {
        skip_damage,
        identity: None,
    };
    let restored = store::backup::restore(&disk, from, to, options, &mut |done, of| {
        line.draw(&format!("{} of {} read", octets(done), octets(of)));
        true
    });
    line.clear();
    restored.map_err(|error| match &error {
        RestoreError::Damaged(findings) => {
            let named: Vec<&str> = findings.named.iter().take(20).map(String::as_str).collect();
            let named = named.join("\n  ");
            Failure::store(format!(
                "the backup is damaged in {} places; nothing was restored. Try an older one, or go on without \
                 what is lost: --skip-damage\n  {named}",
                findings.count
            ))
        }
        RestoreError::NotReadable { .. } | RestoreError::NotEmpty(_) => Failure::store(error.to_string()),
        RestoreError::Write { .. } => Failure::store(error.to_string()),
    })
}

/// No number is given again that a client saw between backup and loss.
fn leap(store: &Path) -> Result<u64, Failure> {
    world::block_on(async {
        let store = LogStore::open(store, store::engine::Options::default())
            .map_err(|e| Failure::store(e.to_string()))?;
        let mailboxes = Mailboxes::new(store.clone()).leap_ahead().await;
        store.close();
        mailboxes.map_err(|e| Failure::store(e.to_string()))
    })
}

fn write_file(data: &Path, file: &DataFile) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data.join(&file.path);
    let failed = |e: std::io::Error| Failure::store(format!("{}: {e}", path.display()));
    if let Some(folder) = path.parent() {
        world::make_private(folder).map_err(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    out.write_all(&file.octets).map_err(failed)?;
    out.sync_all().map_err(failed)
}
