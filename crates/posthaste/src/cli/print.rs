//! Answers as people read them: short tables and sentences; or as JSON.

use super::out::{out, outln};
use super::{Failure, addresses};
use admin::Response;
use admin::words::{AccountRow, AccountView, NewPassword, QueueRow};
use mail::{Timestamp, date};

/// Prints an answer.
pub fn response(response: &Response, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(response);
    }
    match response {
        Response::Done(said) => outln!("{said}"),
        Response::Domains(rows) => {
            let rows = rows
                .iter()
                .map(|r| vec![r.domain.to_string(), r.selectors.join(", ")])
                .collect();
            table(&["DOMAIN", "DKIM SELECTORS"], rows);
        }
        Response::Accounts(rows) => table(
            &["ADDRESS", "NAME", "STATE"],
            rows.iter().map(account_cells).collect(),
        ),
        Response::Account(view) => account(view),
        Response::Aliases(rows) => addresses::aliases_in_words(rows),
        Response::Groups(rows) => addresses::groups_in_words(rows),
        Response::Domain(view) => addresses::domain_in_words(view),
        Response::Explanation(view) => addresses::explanation_in_words(view),
        Response::Grants(rows) => rows.iter().for_each(|row| outln!("{row}")),
        Response::Password(made) => password(made),
        Response::SecondFactor { address, otpauth_url } => outln!(
            "the second factor of {address} is on: mail programs need app passwords from now on\n\
             (posthaste account app-password {address}). For an authenticator, shown once:\n{otpauth_url}"
        ),
        Response::Queue(page) => queue(&page.rows, true),
        Response::Webhooks(rows) => super::webhook::in_words(rows),
        Response::Suspensions(rows) if rows.is_empty() => outln!("nothing is suspended"),
        Response::Suspensions(rows) => super::queued::suspensions(rows),
        Response::QueueStatus(status) => super::queued::status(status),
        Response::Ordered(step) => outln!("{} deliveries", step.errands),
        Response::Message(row) => super::queued::message(row),
        Response::Stories(stories) => {
            for (i, told) in stories.iter().enumerate() {
                if i > 0 {
                    outln!();
                }
                outln!("{}", told.id);
                outln!("{}", told.text.trim_end());
            }
        }
        Response::LoginLog(rows) => super::logins::log(rows),
        Response::Suppressed(rows) => table(&super::suppression::HEADINGS, super::suppression::rows(rows)),
        Response::Blocks(blocks) if blocks.is_empty() => outln!("nobody is blocked"),
        Response::Blocks(blocks) => table(&super::block::HEADINGS, super::block::rows(blocks)),
        Response::MtaSts(page) => super::mta_sts::table(&page.rows),
        Response::MtaStsOf(view) => super::mta_sts::in_words(view),
        Response::MtaStsPolicy(text) => out!("{text}"),
        Response::TlsReports(rows) => super::tlsrpt::list(rows),
        Response::TlsOutgoing(view) => super::tlsrpt::outgoing(view),
        Response::Routes(rows) => super::route::rows(rows),
        Response::Today { address, today } => super::block::today(address, today),
        Response::Audit(report) => super::audit::report_in_words(report),
        Response::Backup(view) => super::backup::in_words(view),
        Response::Export(view) => super::export::in_words(view),
        Response::Zone(text) | Response::Signatures(text) => out!("{text}"),
    }
    Ok(())
}

/// A part of the queue; the first part has the headings.
pub fn queue(rows: &[QueueRow], headings: bool) {
    if rows.is_empty() {
        return;
    }
    let cells = rows.iter().flat_map(queue_cells).collect();
    let head = ["ID", "ACCEPTED", "FROM", "TO", "STATE", "TRIES", "NEXT", "WHY"];
    table(if headings { &head } else { &[] }, cells);
}

/// 1000000 as 1,000,000.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What machines read: the content of the answer, without the name of its variant.
fn print_json(response: &Response) -> Result<(), Failure> {
    let value = serde_json::to_value(response).map_err(|e| Failure::store(e.to_string()))?;
    let content = match value {
        serde_json::Value::Object(map) if map.len() == 1 => map.into_iter().next().map(|(_, v)| v),
        other => Some(other),
    };
    outln!("{}", content.unwrap_or_default());
    Ok(())
}

fn password(made: &NewPassword) {
    match &made.password {
        Some(password) => outln!(
            "{}: {password}\nIt opens {}. It is shown only now.",
            made.address,
            made.opens
        ),
        None => outln!("{}: the password is set; it opens {}", made.address, made.opens),
    }
}

fn account_cells(row: &AccountRow) -> Vec<String> {
    let mut state = Vec::new();
    if row.suspended {
        state.push("suspended");
    }
    if row.second_factor {
        state.push("second factor");
    }
    vec![row.address.to_string(), row.name.clone(), state.join(", ")]
}

fn account(view: &AccountView) {
    table(&["ADDRESS", "NAME", "STATE"], vec![account_cells(&view.row)]);
    if !view.aliases.is_empty() {
        let aliases: Vec<String> = view.aliases.iter().map(ToString::to_string).collect();
        outln!("\naliases: {}", aliases.join(", "));
    }
    if !view.may_send_as.is_empty() {
        outln!("\nmay send as: {}", view.may_send_as.join(", "));
    }
    outln!("\nkeeps {}", addresses::room(view.used_octets, view.quota_octets));
    outln!();
    let rows = view.mailboxes.iter();
    table(
        &["MAILBOX", "MESSAGES", "UNSEEN", "OCTETS"],
        rows.map(|m| {
            vec![
                m.name.clone(),
                m.messages.to_string(),
                m.unseen.to_string(),
                m.octets.to_string(),
            ]
        })
        .collect(),
    );
    if !view.app_passwords.is_empty() {
        outln!();
        let cells = view.app_passwords.iter().map(|p| {
            let used = p.last_used.map_or("never".to_owned(), date::iso8601);
            vec![
                p.number.to_string(),
                p.name.clone(),
                p.scopes.join(", "),
                date::iso8601(p.created),
                p.expires.map_or("never".to_owned(), date::iso8601),
                used,
            ]
        });
        table(
            &["APP PASSWORD", "NAME", "OPENS", "CREATED", "ENDS", "LAST USED"],
            cells.collect(),
        );
    }
}

fn queue_cells(row: &QueueRow) -> Vec<Vec<String>> {
    let errands = row.errands.iter().map(|e| {
        vec![
            row.id.to_string(),
            date::iso8601(row.received),
            row.from.clone(),
            format!("<{}>", e.to),
            e.state.clone(),
            e.attempts.to_string(),
            when(e.next_attempt),
            [e.last_outcome.as_slice(), &row.asked].concat().join("; "),
        ]
    });
    errands.collect()
}

pub fn when(at: Option<Timestamp>) -> String {
    at.map_or("-".to_owned(), date::iso8601)
}

/// Columns as wide as their widest cell; the last one runs on. Without a head it goes on from
/// another table.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0).max(head.len());
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    widths.resize(columns, 0);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(c, w)| format!("{c:<w$}"))
            .collect();
        outln!("{}", padded.join("  ").trim_end());
    };
    if !head.is_empty() {
        line(head.to_vec());
    }
    for row in &rows {
        line(row.iter().map(String::as_str).collect());
    }
}
