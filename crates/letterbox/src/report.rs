//! Brings a report to its sender: into a mailbox here, or into the queue, signed; in the caller's batch.
//!
//! Promises: nobody gets a report about a message without a reverse-path (RFC 5321 §6.1); a report is
//! a message of its own, with its own journey. Never: whether a report is wanted.

use crate::dsn::{FULL_OCTETS_MAX, HEADERS_OCTETS_MAX, Kind, Report, Reported};
use crate::{Errands, Error, Letter, Letterbox, To};
use directory::Resolution;
use journey::Event;
use judge::dkim::{Signer, SigningKey};
use mail::delivery::Ret;
use mail::{Domain, EmailAddress, QueueId, ReversePath, Timestamp};
use queue::{IdSource, NewErrand};
use std::sync::Arc;
use store::{Batch, BlobId, Store};

/// What a reporter works with. All of one store.
#[derive(Clone, Copy)]
pub struct Reporter<'a> {
    /// The way into mailboxes here.
    pub letterbox: Letterbox<'a>,
    /// Where the octets go.
    pub store: &'a dyn Store,
    /// Names for the reports.
    pub ids: &'a IdSource,
    /// Our name.
    pub host_name: &'a Domain,
}

/// The message that a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Its name.
    pub id: QueueId,
    /// Who is told; nobody where it is null.
    pub sender: &'a ReversePath,
    /// When it was accepted.
    pub arrived: Timestamp,
    /// RFC 3461 §4.4.
    pub envelope_id: Option<&'a str>,
    /// RFC 3461 §4.3; the header alone without a wish.
    pub ret: Option<Ret>,
    /// Whether it is a binary one, which no report can carry as a whole.
    pub binary: bool,
    /// Its octets.
    pub octets: Octets<'a>,
}

impl<'a> Original<'a> {
    /// One of the queue.
    #[must_use]
    pub fn of(message: &'a queue::Message) -> Self {
        Self {
            id: message.id,
            sender: &message.reverse_path,
            arrived: message.received_at,
            envelope_id: message.envid.as_deref(),
            // RFC 8689 §5: the way back may be in clear, so no more than the header takes it.
            ret: message.ret.filter(|_| !message.require_tls),
            binary: message.body == queue::Body::Binary,
            octets: Octets::Stored {
                prefix: &message.prefix,
                blob: message.blob,
                blob_len: message.blob_len,
            },
        }
    }
}

/// Where a message's octets are.
#[derive(Clone, Copy, Debug)]
pub enum Octets<'a> {
    /// In the store, behind a prefix.
    Stored {
        /// Octets before the blob.
        prefix: &'a [u8],
        /// The blob.
        blob: BlobId,
        /// How many it has.
        blob_len: u64,
    },
    /// In memory, in parts.
    Here(&'a [&'a [u8]]),
}

impl Octets<'_> {
    fn len(&self) -> u64 {
        match self {
            Octets::Stored { prefix, blob_len, .. } => prefix.len() as u64 + blob_len,
            Octets::Here(parts) => parts.iter().map(|part| part.len() as u64).sum(),
        }
    }
}

/// What is to be known of a message of ours to send it.
pub(crate) struct Ours<'a> {
    pub(crate) id: QueueId,
    pub(crate) to: &'a EmailAddress,
    /// Without brackets.
    pub(crate) message_id: String,
    pub(crate) smtputf8: bool,
    pub(crate) now: Timestamp,
}

impl Reporter<'_> {
    /// Adds a report about recipients of one message to the batch.
    ///
    /// # Errors
    /// [`Error`]; the batch may hold a part then and must not be committed.
    pub async fn add(
        &self,
        batch: &mut Batch,
        original: &Original<'_>,
        kind: Kind,
        recipients: &[Reported<'_>],
        now: Timestamp,
    ) -> Result<(), Error> {
        let ReversePath::Address(sender) = original.sender else {
            return Ok(());
        };
        let Letterbox {
            directory, journey, ..
        } = self.letterbox;
        let resolution = directory.resolve_sender(sender, now).await?;
        if !leads_somewhere(&resolution) {
            let by = format!("no report could be sent: {sender} is nobody here");
            let event = Event::Dropped { recipient: None, by };
            journey.record(batch, original.id, now, &event);
            return Ok(());
        }
        let whole = kind == Kind::Failed
            && original.ret == Some(Ret::Full)
            && !original.binary
            && original.octets.len() <= FULL_OCTETS_MAX as u64;
        let (text, whole) = self.read(original, whole).await;
        let postmaster_of = self.postmaster_of(sender).await?;
        let report = Report {
            kind,
            host_name: self.host_name,
            postmaster_of: &postmaster_of,
            id: self.ids.next_id(),
            now,
            to: sender,
            original_id: original.id,
            arrived: original.arrived,
            envelope_id: original.envelope_id,
            original: &text,
            whole,
            recipients,
        };
        let mut message = report.to_message();
        if matches!(resolution, Resolution::NotOurs | Resolution::Spread(_)) {
            let signatures = self.signatures(&postmaster_of, &message, now).await?;
            message.splice(0..0, signatures.into_bytes());
        }
        let event = Event::DsnSent {
            kind: kind.action().to_owned(),
            to: sender.clone(),
            report: Some(report.id),
        };
        journey.record(batch, original.id, now, &event);
        let ours = Ours {
            id: report.id,
            to: report.to,
            message_id: format!("{}@{}", report.id, report.host_name),
            smtputf8: report.needs_smtputf8(),
            now,
        };
        self.bring(batch, &ours, &message, resolution).await
    }

    /// Stores a message of ours, and puts it into the mailboxes or the queue.
    pub(crate) async fn bring(
        &self,
        batch: &mut Batch,
        ours: &Ours<'_>,
        message: &[u8],
        resolution: Resolution,
    ) -> Result<(), Error> {
        let mut writer = self.store.stage(message.len() as u64).await?;
        writer.write(message).await?;
        let staged = writer.finish().await?;
        let (blob, blob_len) = (staged.id, staged.len);
        batch.blob(staged);
        self.record_birth(batch, ours, blob_len);
        match resolution {
            Resolution::Local(accounts) => {
                let letter = Letter {
                    id: ours.id,
                    reverse_path: &ReversePath::Null,
                    prefix: &[],
                    blob,
                    blob_len,
                    junk: None,
                };
                let of = |account: &mail::AccountId| To {
                    recipient: ours.to,
                    account: *account,
                };
                let to: Vec<To<'_>> = accounts.iter().map(of).collect();
                let errands = Errands::New;
                self.letterbox.put(batch, &letter, &to, errands, ours.now).await
            }
            // What leads further is followed when the errand's turn comes.
            _ => self.enqueue(batch, ours, blob, blob_len, message.is_ascii()),
        }
    }

    /// Whose postmaster answers for the report: the sender's own where the domain is served here, else
    /// that of the domain served longest; a server of no domain has its name only.
    async fn postmaster_of(&self, sender: &EmailAddress) -> Result<Domain, Error> {
        let directory = self.letterbox.directory;
        if let Some(domain) = sender.domain()
            && directory.domain(domain).await?.is_some()
        {
            return Ok(domain.clone());
        }
        let served = directory.domains().await?;
        let first = served.into_iter().min_by_key(|record| record.created);
        Ok(first.map_or_else(|| self.host_name.clone(), |record| record.name))
    }

    /// A signature by each key of the domain that the report comes from, so that it passes where its
    /// null reverse-path gives SPF nothing to go by. A key that cannot be used is told in the log.
    pub(crate) async fn signatures(
        &self,
        domain: &Domain,
        message: &[u8],
        now: Timestamp,
    ) -> Result<String, Error> {
        let record = self.letterbox.directory.domain(domain).await?;
        let mut fields = String::new();
        for stored in record.map(|record| record.signing_keys).unwrap_or_default() {
            let signed = SigningKey::from_pem(&stored.pkcs8_pem)
                .map_err(|e| e.to_string())
                .and_then(|key| {
                    Signer::new(domain.clone(), &stored.selector, Arc::new(key)).map_err(|e| e.to_string())
                })
                .and_then(|signer| signer.sign(message, now).map_err(|e| e.to_string()));
            match signed {
                Ok(field) => fields.push_str(&field),
                Err(error) => {
                    tracing::error!(%domain, selector = stored.selector, error, "a report could not be signed");
                }
            }
        }
        Ok(fields)
    }

    /// A message of ours has its own journey.
    fn record_birth(&self, batch: &mut Batch, ours: &Ours<'_>, size: u64) {
        let journey = self.letterbox.journey;
        journey.index(batch, ours.id, ours.now, Some(&ours.message_id), &[ours.to]);
        let event = Event::Received {
            service: "local".to_owned(),
            peer_ip: None,
            peer_name: None,
            helo: String::new(),
            tls: None,
            login: None,
            reverse_path: Some(ReversePath::Null),
            recipients: vec![ours.to.clone()],
            size,
            message_id: Some(ours.message_id.clone()),
        };
        journey.record(batch, ours.id, ours.now, &event);
    }

    fn enqueue(
        &self,
        batch: &mut Batch,
        ours: &Ours<'_>,
        blob: BlobId,
        blob_len: u64,
        is_ascii: bool,
    ) -> Result<(), Error> {
        let message = queue::Message {
            id: ours.id,
            reverse_path: ReversePath::Null,
            blob,
            blob_len,
            prefix: Vec::new(),
            received_at: ours.now,
            message_id: Some(ours.message_id.clone()),
            login: None,
            body: if is_ascii {
                queue::Body::SevenBit
            } else {
                queue::Body::EightBit
            },
            smtputf8: ours.smtputf8,
            envid: None,
            ret: None,
            require_tls: false,
            deliver_by: None,
            priority: mail::delivery::Priority::NORMAL,
        };
        let errand = NewErrand::to(ours.to.clone(), ours.now);
        let queue = self.letterbox.queue;
        queue.accept(batch, &message, std::slice::from_ref(&errand))?;
        let event = Event::Queued {
            recipient: ours.to.clone(),
            next_attempt: ours.now,
        };
        self.letterbox.journey.record(batch, ours.id, ours.now, &event);
        Ok(())
    }

    /// The original, whole where that is wanted, else as much as its header section may be. One that
    /// cannot be read does not keep the report from its sender.
    async fn read(&self, original: &Original<'_>, whole: bool) -> (Vec<u8>, bool) {
        let most = if whole {
            u64::MAX
        } else {
            HEADERS_OCTETS_MAX as u64
        };
        match original.octets {
            Octets::Here(parts) => {
                let mut text = Vec::new();
                for part in parts {
                    let room = usize::try_from(most).unwrap_or(usize::MAX) - text.len();
                    text.extend_from_slice(&part[..part.len().min(room)]);
                }
                (text, whole)
            }
            Octets::Stored {
                prefix,
                blob,
                blob_len,
            } => {
                let mut text = prefix.to_vec();
                match self.store.read(blob, 0..blob_len.min(most)).await {
                    Ok(octets) => {
                        text.extend_from_slice(&octets);
                        (text, whole)
                    }
                    Err(error) => {
                        tracing::error!(id = %original.id, %error, "the original of a report cannot be read");
                        (text, false)
                    }
                }
            }
        }
    }
}

/// Whether a report can be sent to what the sender's address leads to.
pub(crate) fn leads_somewhere(resolution: &Resolution) -> bool {
    matches!(
        resolution,
        Resolution::Local(_) | Resolution::Spread(_) | Resolution::NotOurs
    )
}
