//! `posthaste export`: mailboxes as plain files.

use super::long::{octets, perform};
use super::out::outln;
use super::{Failure, print, settings};
use crate::args::{Global, MailFormat};
use admin::words::{ExportFormat, ExportView};
use admin::{Request, Response};
use mail::EmailAddress;
use std::process::ExitCode;

pub fn run(global: &Global, what: &[String], format: MailFormat) -> Result<ExitCode, Failure> {
    let (account, folder) = match what {
        // Without its folder an account would become one, full of everybody's mail.
        [folder] if EmailAddress::parse(folder).is_ok() => {
            return Err(Failure::Usage(format!(
                "say where to: export {folder} FOLDER (or ./{folder} for a folder of that name)"
            )));
        }
        [folder] => (None, folder),
        [account, folder] => {
            let address = EmailAddress::parse(account);
            let address = address.map_err(|e| Failure::Usage(format!("{account}: {e}")))?;
            (Some(address), folder)
        }
        _ => return Err(Failure::Usage("say: export [ACCOUNT] FOLDER".to_owned())),
    };
    let request = Request::Export {
        account,
        folder: std::path::absolute(folder)?,
        format: match format {
            MailFormat::Maildir => ExportFormat::Maildir,
            MailFormat::Mbox => ExportFormat::Mbox,
        },
    };
    let response = perform(&settings(global)?, request, global.json)?;
    print::response(&response, global.json)?;
    let damaged = matches!(&response, Response::Export(view) if view.damaged > 0);
    Ok(ExitCode::from(u8::from(damaged)))
}

/// What was exported.
pub fn in_words(view: &ExportView) {
    outln!(
        "{} accounts, {} mailboxes, {} messages, {}",
        view.accounts,
        view.mailboxes,
        view.messages,
        octets(view.octets)
    );
    if view.damaged > 0 {
        outln!(
            "could not be exported: {} (all are in export-report.txt)",
            view.damaged
        );
        view.damage.iter().for_each(|what| outln!("  {what}"));
    }
}
