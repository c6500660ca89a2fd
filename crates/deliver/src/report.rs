//! Brings a report to its sender: into a mailbox here, or into the queue; in the batch that settles.

use crate::dsn::{Kind, Report, Reported};
use crate::errand::Trouble;
use crate::failure::Failure;
use crate::service::Context;
use directory::Resolution;
use journey::Event;
use letterbox::{Errands, Letter, To};
use mail::{Domain, EmailAddress, ReversePath, Timestamp};
use queue::{Claim, NewErrand};
use store::{Batch, BlobId};

/// Octets of the original that are read for its header section.
const ORIGINAL_OCTETS_MAX: u64 = crate::dsn::HEADERS_OCTETS_MAX as u64;

/// Adds a report about one errand to the batch that settles it.
pub(crate) async fn add(
    ctx: &Context,
    batch: &mut Batch,
    claim: &Claim,
    kind: Kind,
    failure: &Failure,
    now: Timestamp,
) -> Result<(), Trouble> {
    let message = &claim.message;
    let ReversePath::Address(sender) = &message.reverse_path else {
        return Ok(());
    };
    let id = ctx.ids.next_id();
    let resolution = ctx.directory.resolve(sender).await?;
    if resolution == Resolution::UnknownUser {
        let by = format!("no report could be sent: {sender} is nobody here");
        ctx.journey
            .record(batch, message.id, now, &Event::Dropped { recipient: None, by });
        return Ok(());
    }
    let original = read_original(ctx, claim).await?;
    let postmaster_of = postmaster_of(ctx, sender).await?;
    let report = Report {
        kind,
        host_name: &ctx.options.host_name,
        postmaster_of: &postmaster_of,
        id,
        now,
        to: sender,
        original_id: message.id,
        arrived: message.received_at,
        envelope_id: message.envid.as_deref(),
        original: &original,
        recipients: &[Reported {
            recipient: &claim.errand.recipient,
            original_recipient: claim.errand.original_recipient.as_ref(),
            failure,
            last_attempt: now,
            attempts: claim.errand.attempts.saturating_add(1),
        }],
    };
    let text = report.to_message();
    let mut writer = ctx.store.stage(text.len() as u64).await?;
    writer.write(&text).await?;
    let staged = writer.finish().await?;
    let (blob, blob_len) = (staged.id, staged.len);
    batch.blob(staged);
    record_birth(ctx, batch, &report, sender, blob_len);
    ctx.journey.record(
        batch,
        message.id,
        now,
        &Event::DsnSent {
            kind: kind.action().to_owned(),
            to: sender.clone(),
            report: Some(id),
        },
    );
    match resolution {
        Resolution::Local(accounts) => {
            let letter = Letter {
                id,
                reverse_path: &ReversePath::Null,
                prefix: &[],
                blob,
                blob_len,
                junk: None,
            };
            let to: Vec<To<'_>> = accounts
                .iter()
                .map(|account| To {
                    recipient: sender,
                    account: *account,
                })
                .collect();
            ctx.letterbox()
                .put(batch, &letter, &to, Errands::New, now)
                .await?;
            Ok(())
        }
        Resolution::NotOurs | Resolution::UnknownUser => {
            enqueue(ctx, batch, &report, sender, blob, blob_len, &text)
        }
    }
}

/// Whose postmaster answers for the report: the sender's own where the domain is served here, else
/// that of the domain served longest; a server of no domain has its name only.
async fn postmaster_of(ctx: &Context, sender: &EmailAddress) -> Result<Domain, Trouble> {
    if let Some(domain) = sender.domain()
        && ctx.directory.domain(domain).await?.is_some()
    {
        return Ok(domain.clone());
    }
    let served = ctx.directory.domains().await?;
    let first = served.into_iter().min_by_key(|record| record.created);
    Ok(first.map_or_else(|| ctx.options.host_name.clone(), |record| record.name))
}

/// A report is a message of its own and has its own journey.
fn record_birth(ctx: &Context, batch: &mut Batch, report: &Report<'_>, sender: &EmailAddress, size: u64) {
    let message_id = format!("{}@{}", report.id, report.host_name);
    ctx.journey
        .index(batch, report.id, report.now, Some(&message_id), &[sender]);
    let event = Event::Received {
        service: "local".to_owned(),
        peer_ip: None,
        peer_name: None,
        helo: String::new(),
        tls: None,
        login: None,
        reverse_path: Some(ReversePath::Null),
        recipients: vec![sender.clone()],
        size,
        message_id: Some(message_id),
    };
    ctx.journey.record(batch, report.id, report.now, &event);
}

fn enqueue(
    ctx: &Context,
    batch: &mut Batch,
    report: &Report<'_>,
    sender: &EmailAddress,
    blob: BlobId,
    blob_len: u64,
    text: &[u8],
) -> Result<(), Trouble> {
    let message = queue::Message {
        id: report.id,
        reverse_path: ReversePath::Null,
        blob,
        blob_len,
        prefix: Vec::new(),
        received_at: report.now,
        message_id: Some(format!("{}@{}", report.id, report.host_name)),
        login: None,
        body: if text.is_ascii() {
            queue::Body::SevenBit
        } else {
            queue::Body::EightBit
        },
        smtputf8: report.needs_smtputf8(),
        envid: None,
        ret: None,
        require_tls: false,
        deliver_by: None,
        priority: mail::delivery::Priority::NORMAL,
    };
    let errand = NewErrand {
        recipient: sender.clone(),
        original_recipient: None,
        notify: None,
        next_attempt: report.now,
    };
    ctx.queue.accept(batch, &message, std::slice::from_ref(&errand))?;
    let event = Event::Queued {
        recipient: sender.clone(),
        next_attempt: report.now,
    };
    ctx.journey.record(batch, report.id, report.now, &event);
    Ok(())
}

/// The original's first octets. One that cannot be read does not keep the report from its sender.
async fn read_original(ctx: &Context, claim: &Claim) -> Result<Vec<u8>, Trouble> {
    let message = &claim.message;
    let mut original = message.prefix.clone();
    let wanted = message.blob_len.min(ORIGINAL_OCTETS_MAX);
    match ctx.store.read(message.blob, 0..wanted).await {
        Ok(bytes) => original.extend_from_slice(&bytes),
        Err(error) => tracing::error!(id = %message.id, %error, "the original of a report cannot be read"),
    }
    Ok(original)
}
