//! `posthaste backup`: writes a backup, or verifies one.

use super::long::{Line, octets, perform};
use super::out::outln;
use super::{Failure, print, settings, settings_file};
use crate::args::{Backup, Global};
use admin::words::BackupView;
use admin::{Request, Response};
use base64::Engine as _;
use mail::{Timestamp, date};
use std::path::Path;
use std::process::ExitCode;
use store::backup::Survey;
use store::file::RealDisk;

/// Octets of a file of the data folder at most; what is larger is none of a server's.
const FILE_OCTETS_MAX: u64 = 4 << 20;
/// Octets of all of them at most.
const FILES_OCTETS_MAX: u64 = 32 << 20;
/// Under this name the settings file comes back.
pub const SETTINGS_NAME: &str = "posthaste.toml.restored";

pub fn run(global: &Global, order: &Backup) -> Result<ExitCode, Failure> {
    if order.verify {
        return verify(global, &order.place);
    }
    let settings = settings(global)?;
    let to_stdout = order.place.as_os_str() == "-";
    if !to_stdout && std::path::absolute(&order.place)?.starts_with(std::path::absolute(&settings.data)?) {
        return Err(Failure::Usage(format!(
            "{} lies in the data folder that it is to save: choose another place, best on another disk",
            order.place.display()
        )));
    }
    let request = Request::Backup {
        to: match to_stdout {
            true => None,
            false => Some(std::path::absolute(&order.place)?),
        },
        keep: order.keep as usize,
        files: data_files(&settings.data, settings_file(global).as_deref())?,
    };
    let response = perform(&settings, request, global.json)?;
    let Response::Backup(view) = &response else {
        return Err(Failure::store(
            "the server answered something else; it may be of another version",
        ));
    };
    let damaged = view.damaged > 0;
    match (to_stdout, global.json) {
        (false, json) => print::response(&response, json)?,
        // Standard output has the backup.
        (true, _) => view.damage.iter().for_each(|what| eprintln!("posthaste: {what}")),
    }
    Ok(ExitCode::from(u8::from(damaged)))
}

/// The files of the data folder beside the store, and the settings file, in base64 by their paths.
fn data_files(data: &Path, settings: Option<&Path>) -> Result<Vec<(String, String)>, Failure> {
    let mut found = Vec::new();
    let mut total = 0;
    collect(data, "", &mut found, &mut total)?;
    if let Some(path) = settings {
        let octets =
            std::fs::read(path).map_err(|e| Failure::Settings(format!("{}: {e}", path.display())))?;
        found.push((SETTINGS_NAME.to_owned(), octets));
    }
    let encode = |(path, octets)| {
        (
            path,
            base64::engine::general_purpose::STANDARD.encode::<Vec<u8>>(octets),
        )
    };
    Ok(found.into_iter().map(encode).collect())
}

fn collect(
    folder: &Path,
    below: &str,
    found: &mut Vec<(String, Vec<u8>)>,
    total: &mut u64,
) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::store(format!("{}: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // The store goes its own way; what a restore put there is not kept for ever.
        let top = below.is_empty();
        if top && (name.starts_with("store") || name == SETTINGS_NAME) {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        let path = format!("{below}{name}");
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), found, total)?;
        } else if kind.is_file() {
            let octets = entry.metadata().map_err(failed)?.len();
            *total += octets;
            if octets > FILE_OCTETS_MAX || *total > FILES_OCTETS_MAX {
                return Err(Failure::store(format!(
                    "{} is too large to be a file of the server; move it out of the data folder",
                    entry.path().display()
                )));
            }
            found.push((path, std::fs::read(entry.path()).map_err(failed)?));
        }
    }
    Ok(())
}

/// What was backed up.
pub fn in_words(view: &BackupView) {
    if let Some(file) = &view.file {
        outln!("{}", file.display());
    }
    outln!(
        "{} messages' octets ({}), {} entries, {} counters, {} files; commit {}",
        view.blobs,
        octets(view.blob_octets),
        view.entries,
        view.counters,
        view.files,
        view.seq
    );
    outln!(
        "new since the last backup: {}; written: {}; old backups removed: {}",
        view.blobs_new,
        octets(view.octets_written),
        view.removed
    );
    view.notes.iter().for_each(|note| outln!("note: {note}"));
    findings(
        "DAMAGED in the store, and so missing in the backup",
        view.damaged,
        &view.damage,
    );
}

fn findings(what: &str, count: u64, named: &[String]) {
    if count == 0 {
        return;
    }
    outln!("{what}: {count}");
    named.iter().for_each(|finding| outln!("  {finding}"));
    let rest = count.saturating_sub(named.len() as u64);
    if rest > 0 {
        outln!("  and {rest} more");
    }
}

fn verify(global: &Global, place: &Path) -> Result<ExitCode, Failure> {
    let mut line = Line::new(global.json);
    let survey = store::backup::verify(&RealDisk, place, &mut |done, of| {
        line.draw(&format!("{} of {} read", octets(done), octets(of)));
        true
    });
    line.clear();
    let survey = survey.map_err(|why| Failure::store(format!("{}: {why}", place.display())))?;
    survey_in_words(&survey, global.json);
    Ok(ExitCode::from(u8::from(!survey.findings.is_empty())))
}

/// What a backup holds and what is wrong with it.
pub fn survey_in_words(survey: &Survey, json: bool) {
    let made = date::iso8601(Timestamp(survey.time));
    if json {
        let value = serde_json::json!({
            "made": made,
            "store": format!("{:016x}", survey.store),
            "seq": survey.seq,
            "program": survey.program,
            "entries": survey.entries,
            "counters": survey.counters,
            "blobs": survey.blobs,
            "blob_octets": survey.blob_octets,
            "files": survey.files,
            "damaged": survey.findings.count,
            "damage": survey.findings.named,
            "damaged_in_store": survey.store_damage.count,
            "damage_in_store": survey.store_damage.named,
        });
        outln!("{value}");
        return;
    }
    outln!("made {made} by {} of store {:016x}", survey.program, survey.store);
    outln!(
        "{} messages' octets ({}), {} entries, {} counters, {} files; commit {}",
        survey.blobs,
        octets(survey.blob_octets),
        survey.entries,
        survey.counters,
        survey.files.len(),
        survey.seq
    );
    let known = &survey.store_damage;
    findings(
        "damaged in the store already when it was made",
        known.count,
        &known.named,
    );
    findings("DAMAGED", survey.findings.count, &survey.findings.named);
    if survey.findings.is_empty() {
        outln!("whole: every checksum and every reference holds");
    }
}
