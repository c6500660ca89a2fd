//! What is verified of a login: a password, a proof, a token or a certificate.

use super::Proof;
use directory::{AuthOutcome, AuthReason, Candidate, Directory, Error, Issuer, Protocol, Via, check_token};
use mail::{EmailAddress, Secret, Timestamp};
use sasl::ServerSignature;

/// What came of it.
pub(super) struct Checked {
    pub(super) outcome: AuthOutcome,
    pub(super) candidate: Candidate,
    /// What a client of SCRAM is to be told.
    pub(super) signature: Option<ServerSignature>,
    /// The password, when it was shown: keys of SCRAM can be made of it.
    pub(super) shown: Option<Secret>,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the directory could not be read: {0}")]
    Directory(#[from] Error),
    #[error("the check broke off: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Checks a login. argon2 and signatures run off the network threads.
pub(super) async fn check(
    directory: &Directory,
    issuers: Vec<Issuer>,
    now: Timestamp,
    (protocol, user): (Protocol, &str),
    proof: Proof,
) -> Result<Checked, Failed> {
    let quick = |outcome, candidate, signature| Checked {
        outcome,
        candidate,
        signature,
        shown: None,
    };
    match proof {
        Proof::Password(password) => {
            let candidate = directory.candidate(user, protocol).await?;
            let checked = tokio::task::spawn_blocking(move || Checked {
                outcome: candidate.verify(&password, now),
                candidate,
                signature: None,
                shown: Some(password),
            });
            Ok(checked.await?)
        }
        Proof::Scram(proof) => {
            let candidate = directory.scram_candidate(user, protocol).await?;
            let (outcome, signature) = candidate.verify_proof(&proof, now);
            Ok(quick(outcome, candidate, signature))
        }
        Proof::Token(token) => {
            let checked = tokio::task::spawn_blocking(move || check_token(&issuers, &token, now)).await?;
            let vouched = match checked {
                Ok(vouched) => vouched,
                Err(fault) => {
                    let candidate = directory.candidate(user, protocol).await?;
                    return Ok(quick(rejected(AuthReason::Token(fault)), candidate, None));
                }
            };
            let candidate = directory
                .candidate(&vouched.address.to_string(), protocol)
                .await?;
            let outcome = match is_another(user, &vouched.address) {
                true => rejected(AuthReason::Token(directory::TokenFault::OtherAddress)),
                false => candidate.open_by(Via::Token {
                    issuer: vouched.issuer,
                }),
            };
            Ok(quick(outcome, candidate, None))
        }
        Proof::Certificate(address) => {
            let address = address.and_then(|a| EmailAddress::parse(&a).ok());
            let named = address
                .as_ref()
                .map_or_else(|| user.to_owned(), ToString::to_string);
            let candidate = directory.candidate(&named, protocol).await?;
            let outcome = match address {
                Some(address) if !is_another(user, &address) => candidate.open_by(Via::Certificate),
                _ => rejected(AuthReason::Certificate),
            };
            Ok(quick(outcome, candidate, None))
        }
        Proof::ForAnother => {
            let candidate = directory.candidate(user, protocol).await?;
            Ok(quick(rejected(AuthReason::ActsForAnother), candidate, None))
        }
    }
}

fn rejected(reason: AuthReason) -> AuthOutcome {
    AuthOutcome::Rejected(reason)
}

/// Whether the client named an account, and another one than the address.
fn is_another(user: &str, address: &EmailAddress) -> bool {
    !user.is_empty() && !EmailAddress::parse(user).is_ok_and(|u| u.folded() == address.folded())
}
