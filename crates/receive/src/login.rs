//! Logging in: what AUTH is answered.

use crate::session::{LoggedIn, Session};
use directory::Protocol;
use listen::{Asked, Asker, Login, Standing};
use sasl::{Answer, Mechanism, Request};
use smtp::{Reply, Server, replies};

impl Session {
    /// Answers what AUTH asks. The same words after the same time for a wrong user and a wrong
    /// password.
    pub(crate) async fn authenticate(
        &mut self,
        mechanism: Mechanism,
        request: Request,
    ) -> Answer<String, Reply> {
        let is_token = matches!(request, Request::Token(_));
        let parts = &self.ctx.parts;
        let asker = Asker {
            peer: self.peer.address,
            protocol: Protocol::Smtp,
            mechanism,
            certificate: self.certificate.clone(),
        };
        let asked = self
            .ctx
            .logins
            .ask(&parts.directory, parts.clock.as_ref(), asker, request);
        let login = match asked.await {
            Asked::Salted(salted) => return Answer::Salted(salted),
            Asked::Login(login) => login,
        };
        self.failure_delay.after(&login).await;
        Answer::Refused(match login {
            Login::Accepted {
                account,
                address,
                credential,
                signature,
            } => {
                let name = address.to_string();
                let standing = Standing::new(&self.ctx.parts.directory, account, credential);
                self.login = Some(LoggedIn {
                    account,
                    address,
                    standing,
                });
                return Answer::Accepted(name, signature);
            }
            Login::AppPasswordRequired => replies::APP_PASSWORD_NEEDED,
            Login::Rejected if is_token => replies::TOKEN_REFUSED,
            Login::Rejected => replies::AUTH_FAILED,
            Login::TooManyFailures => replies::AUTH_TOO_MANY,
            Login::Unavailable => replies::AUTH_UNAVAILABLE,
        })
    }

    /// Records a login that was refused before anybody was asked.
    pub(crate) fn note_unseen_login(&self, server: &mut Server) {
        if let Some(unseen) = server.take_unseen() {
            let clock = self.ctx.parts.clock.as_ref();
            self.ctx
                .logins
                .note_unseen(clock, self.peer.address, Protocol::Smtp, unseen);
        }
    }
}
