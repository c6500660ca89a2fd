//! Logging in: what AUTH is answered.

use crate::session::{LoggedIn, Session};
use directory::Protocol;
use listen::{Attempt, Login, Standing};
use smtp::sasl::Credentials;
use smtp::{Reply, replies};

impl Session {
    /// Answers AUTH: the login's address, or the refusal. The same words after the same time for a
    /// wrong user and a wrong password.
    pub(crate) async fn authenticate(&mut self, credentials: Credentials) -> Result<String, Reply> {
        let login = self.log_in(&credentials).await;
        self.failure_delay.after(&login).await;
        match login {
            Login::Accepted {
                account,
                address,
                credential,
            } => {
                let name = address.to_string();
                let standing = Standing::new(&self.ctx.parts.directory, account, credential);
                self.login = Some(LoggedIn {
                    account,
                    address,
                    standing,
                });
                Ok(name)
            }
            Login::AppPasswordRequired => Err(replies::APP_PASSWORD_NEEDED),
            Login::Rejected => Err(replies::AUTH_FAILED),
            Login::TooManyFailures => Err(replies::AUTH_TOO_MANY),
            Login::Unavailable => Err(replies::AUTH_UNAVAILABLE),
        }
    }

    async fn log_in(&self, credentials: &Credentials) -> Login {
        let (ctx, authorization) = (&self.ctx, credentials.authorization.as_ref());
        if authorization.is_some_and(|other| *other != credentials.login) {
            // Nobody acts for another here.
            return Login::Rejected;
        }
        let attempt = Attempt {
            peer: self.peer.address,
            protocol: Protocol::Smtp,
            user: &credentials.login,
            password: credentials.password.clone(),
        };
        let parts = &ctx.parts;
        ctx.logins
            .log_in(&parts.directory, parts.clock.as_ref(), attempt)
            .await
    }
}
