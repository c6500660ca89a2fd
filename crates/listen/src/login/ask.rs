//! The requests of an exchange, put to the directory: one way for every protocol.

use super::{Attempt, Login, Logins, Proof};
use directory::{Directory, LoginEnd, Protocol};
use mail::Clock;
use sasl::{Mechanism, Request, Salted, Unseen, Why};
use std::net::SocketAddr;

/// Who wants to log in, from where and how.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The client.
    pub peer: SocketAddr,
    /// What it wants to use.
    pub protocol: Protocol,
    /// How.
    pub mechanism: Mechanism,
    /// The address in its certificate, which was verified.
    pub certificate: Option<String>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Asked {
    /// To [`Request::Salt`]: the login goes on.
    Salted(Salted),
    /// To any other, and to any that is refused.
    Login(Login),
}

impl Logins {
    /// Answers a request. The same, after the same time, for a wrong user and a wrong password.
    pub async fn ask(
        &self,
        directory: &Directory,
        clock: &dyn Clock,
        asker: Asker,
        request: Request,
    ) -> Asked {
        let (user, proof) = match request {
            Request::Salt { user, .. } => {
                return match directory.scram_salt(&user).await {
                    Ok(salted) => Asked::Salted(salted),
                    Err(error) => {
                        tracing::error!(peer = %asker.peer, %error, "login: the directory could not be read");
                        Asked::Login(Login::Unavailable)
                    }
                };
            }
            Request::Password(credentials) => (
                credentials.login,
                match credentials.authorization {
                    // Nobody acts for another here.
                    Some(_) => Proof::ForAnother,
                    None => Proof::Password(credentials.password),
                },
            ),
            Request::Proof {
                authorization,
                user,
                proof,
            } => (
                user,
                match authorization {
                    Some(_) => Proof::ForAnother,
                    None => Proof::Scram(proof),
                },
            ),
            Request::Token(bearer) => (bearer.user.unwrap_or_default(), Proof::Token(bearer.token)),
            Request::Certificate { authorization } => (
                authorization.unwrap_or_default(),
                Proof::Certificate(asker.certificate),
            ),
        };
        let attempt = Attempt {
            peer: asker.peer,
            protocol: asker.protocol,
            mechanism: asker.mechanism.name(),
            user: &user,
            proof,
        };
        Asked::Login(self.log_in(directory, clock, attempt).await)
    }

    /// Records a login that nobody was asked about.
    pub fn note_unseen(&self, clock: &dyn Clock, peer: SocketAddr, protocol: Protocol, unseen: Unseen) {
        let end = match unseen.why {
            Why::BeforeTls => LoginEnd::BeforeTls,
            Why::NotOffered => LoginEnd::NotOffered,
            // A client that gives up, or stammers, without a name tells the owner nothing.
            Why::Fault(fault) if fault.is_suspicious() || unseen.user.is_some() => {
                LoginEnd::Exchange(fault.to_string())
            }
            Why::Fault(_) => return,
        };
        let user = unseen.user.unwrap_or_default();
        tracing::info!(%peer, ?protocol, mechanism = %unseen.mechanism.escape_debug(), login = %user.escape_debug(), ?end, "login refused unseen");
        self.note(clock.now(), peer, protocol, &unseen.mechanism, &user, end);
    }
}
