//! Orders about accounts, aliases and passwords.

use super::{Office, PAGE};
use crate::words::{
    AccountRow, AccountView, AppPasswordRow, LoginRow, MailboxRow, NewPassword, Refusal, Response,
};
use directory::{Account, Alias, NewAccount, Scopes, SystemRandom};
use mail::{EmailAddress, Secret};

/// Characters of a password that is made up: 24 of 32 signs are 120 bits.
const MADE_UP_CHARACTERS: usize = 24;

impl Office {
    pub(super) async fn add_account(
        &self,
        address: &EmailAddress,
        name: &str,
        password: Option<String>,
    ) -> Result<Response, Refusal> {
        let (secret, made_up) = self.chosen_or_made_up(password)?;
        let new = NewAccount {
            address: address.clone(),
            display_name: name.to_owned(),
            password: Some(self.directory.hash_password_of(address, &secret).await?),
        };
        let now = self.clock.now();
        let mailboxes = self.mailboxes.clone();
        let add = move |batch: &mut store::Batch, id| mailboxes.create_defaults(batch, id, now);
        self.directory.add_account(new, now, &add).await?;
        Ok(new_password(address, made_up))
    }

    pub(super) async fn list_accounts(&self) -> Result<Response, Refusal> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = self.directory.accounts(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            rows.extend(page.iter().map(row));
        }
        Ok(Response::Accounts(rows))
    }

    pub(super) async fn show_account(&self, address: &EmailAddress) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        let app_passwords = self.directory.app_passwords(account.id).await?;
        let aliases = self.aliases_of(&account).await?;
        let mut mailboxes = Vec::new();
        for mailbox in self.mailboxes.list(account.id).await? {
            let status = self.mailboxes.status(mailbox.place()).await?;
            mailboxes.push(MailboxRow {
                name: mailbox.name,
                messages: status.messages,
                unseen: status.unseen,
                octets: status.octets,
            });
        }
        Ok(Response::Account(AccountView {
            row: row(&account),
            aliases: aliases.into_iter().map(|a| a.address).collect(),
            may_send_as: self
                .directory
                .grants(account.id)
                .await?
                .iter()
                .map(ToString::to_string)
                .collect(),
            quota_octets: self.directory.quota(account.id).await?,
            used_octets: self.mailboxes.usage(account.id).await?,
            app_passwords: app_passwords
                .into_iter()
                .map(|p| AppPasswordRow {
                    number: p.id,
                    name: p.name,
                    scopes: scope_names(p.scopes),
                    created: p.created,
                    expires: p.expires,
                    last_used: p.last_used,
                })
                .collect(),
            mailboxes,
        }))
    }

    pub(super) async fn set_password(
        &self,
        address: &EmailAddress,
        password: Option<String>,
    ) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        let (secret, made_up) = self.chosen_or_made_up(password)?;
        let hash = self.directory.hash_password_of(address, &secret).await?;
        self.directory.set_password(account.id, Some(hash)).await?;
        Ok(new_password(address, made_up))
    }

    pub(super) async fn suspend(&self, address: &EmailAddress, suspended: bool) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        if suspended {
            self.directory.suspend(account.id).await?;
            return Ok(Response::Done(format!(
                "{address} is suspended: it cannot log in; mail is still taken"
            )));
        }
        self.directory.resume(account.id).await?;
        Ok(Response::Done(format!("{address} can log in again")))
    }

    pub(super) async fn remove_account(&self, address: &EmailAddress) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        // The account first: what is cut off after it is mail that nobody can reach any more.
        self.directory.remove_account(account.id).await?;
        self.mailboxes.delete_all(account.id).await?;
        Ok(Response::Done(format!("{address} and its mail are removed")))
    }

    pub(super) async fn add_alias(
        &self,
        alias: &EmailAddress,
        address: &EmailAddress,
    ) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        let more = directory::Leads::to_accounts(&[account.id]);
        let made = self.directory.add_to_alias(alias, &more).await?;
        let others = made.accounts.len() + made.addresses.len() - 1;
        Ok(Response::Done(match others {
            0 => format!("mail to {alias} goes to {address}"),
            _ => format!(
                "mail to {alias} goes to {address} too, now to {} places",
                others + 1
            ),
        }))
    }

    pub(super) async fn remove_alias(&self, alias: &EmailAddress) -> Result<Response, Refusal> {
        self.directory.remove_alias(alias).await?;
        Ok(Response::Done(format!("{alias} is no alias any more")))
    }

    pub(super) async fn second_factor(&self, address: &EmailAddress, on: bool) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        if !on {
            self.directory.set_second_factor(account.id, None).await?;
            return Ok(Response::Done(format!("the second factor of {address} is off")));
        }
        let secret = self.directory.new_totp_secret()?;
        let otpauth_url = secret.otpauth_uri(&account.address);
        self.directory.set_second_factor(account.id, Some(secret)).await?;
        Ok(Response::SecondFactor {
            address: address.clone(),
            otpauth_url,
        })
    }

    pub(super) async fn add_app_password(
        &self,
        address: &EmailAddress,
        name: &str,
        scopes: &[String],
        lasts_secs: Option<u64>,
    ) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        let scopes = parse_scopes(scopes)?;
        let now = self.clock.now();
        let expires = lasts_secs.map(|secs| now.plus(std::time::Duration::from_secs(secs)));
        let made = self
            .directory
            .add_expiring_app_password(account.id, name, scopes, expires, now)
            .await?;
        Ok(Response::Password(NewPassword {
            address: address.clone(),
            password: Some(made.password.expose().to_owned()),
            opens: format!(
                "{} for \"{name}\" (app password {})",
                scope_names(scopes).join(", "),
                made.record.id
            ),
        }))
    }

    pub(super) async fn revoke_app_password(
        &self,
        address: &EmailAddress,
        number: u64,
    ) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        self.directory.revoke_app_password(account.id, number).await?;
        Ok(Response::Done(format!(
            "app password {number} of {address} opens nothing any more"
        )))
    }

    /// The login log of an account, or of names that nobody has; the newest entry first.
    pub(super) async fn login_log(&self, address: Option<&EmailAddress>) -> Result<Response, Refusal> {
        let account = match address {
            Some(address) => Some(self.account(address).await?.id),
            None => None,
        };
        let mut entries = self.directory.login_log(account).await?;
        entries.reverse();
        Ok(Response::LoginLog(
            entries.into_iter().map(LoginRow::from).collect(),
        ))
    }

    pub(super) async fn account(&self, address: &EmailAddress) -> Result<Account, Refusal> {
        self.directory.account_by_address(address).await?.ok_or_else(|| {
            Refusal::not_found(format!(
                "there is no account {address}; see: posthaste account list"
            ))
        })
    }

    async fn aliases_of(&self, account: &Account) -> Result<Vec<Alias>, Refusal> {
        let mut aliases = self.directory.aliases().await?;
        aliases.retain(|a| a.accounts.contains(&account.id));
        Ok(aliases)
    }

    /// The operator's password, or one of our own that must then be shown.
    fn chosen_or_made_up(&self, password: Option<String>) -> Result<(Secret, Option<String>), Refusal> {
        match password {
            Some(chosen) => Ok((Secret::new(chosen), None)),
            None => {
                let made_up = make_up_password().map_err(Refusal::failed)?;
                Ok((Secret::new(made_up.clone()), Some(made_up)))
            }
        }
    }
}

fn new_password(address: &EmailAddress, made_up: Option<String>) -> Response {
    Response::Password(NewPassword {
        address: address.clone(),
        password: made_up,
        opens: "everything (the main password)".to_owned(),
    })
}

/// A random password of signs that cannot be mistaken for each other, in groups of six.
fn make_up_password() -> Result<String, directory::NoRandomness> {
    use directory::Random as _;
    const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0u8; MADE_UP_CHARACTERS];
    SystemRandom.fill(&mut random)?;
    let mut out = String::with_capacity(MADE_UP_CHARACTERS + MADE_UP_CHARACTERS / 6);
    for (i, byte) in random.iter().enumerate() {
        if i > 0 && i % 6 == 0 {
            out.push('-');
        }
        out.push(char::from(SIGNS[usize::from(byte % 32)]));
    }
    Ok(out)
}

fn row(account: &Account) -> AccountRow {
    AccountRow {
        address: account.address.clone(),
        name: account.display_name.clone(),
        suspended: account.suspended,
        second_factor: account.second_factor.is_some(),
    }
}

fn scope_names(scopes: Scopes) -> Vec<String> {
    [
        (scopes.smtp, "smtp"),
        (scopes.imap, "imap"),
        (scopes.pop3, "pop3"),
    ]
    .into_iter()
    .filter(|(on, _)| *on)
    .map(|(_, name)| name.to_owned())
    .collect()
}

fn parse_scopes(names: &[String]) -> Result<Scopes, Refusal> {
    let mut scopes = Scopes {
        smtp: false,
        imap: false,
        pop3: false,
    };
    for name in names {
        match name.as_str() {
            "smtp" => scopes.smtp = true,
            "imap" => scopes.imap = true,
            "pop3" => scopes.pop3 = true,
            other => {
                return Err(Refusal::invalid(format!(
                    "\"{other}\" is no scope; there are smtp, imap, pop3"
                )));
            }
        }
    }
    Ok(scopes)
}
