//! Commands that the office carries out: asked of the running server through its control socket, or
//! done here when no server runs.

use super::{Failure, addresses, print, settings};
use crate::args::{Account, Dns, Domain, Global, OnOff, Scope};
use crate::settings::Settings;
use crate::world;
use admin::{Request, Response};
use std::io::BufRead as _;
use std::process::ExitCode;

/// Octets of a password line at most.
const PASSWORD_LINE_OCTETS_MAX: u64 = 1024;

/// Performs and prints.
pub fn run(global: &Global, request: Request) -> Result<ExitCode, Failure> {
    let response = perform(&settings(global)?, request)?;
    print::response(&response, global.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the running server, or does it here when none runs.
pub fn perform(settings: &Settings, request: Request) -> Result<Response, Failure> {
    let mut answer = None;
    converse(settings, request, |response| {
        answer = Some(response);
        Ok(None)
    })?;
    answer.ok_or_else(|| Failure::store("there was no answer".to_owned()))
}

/// Asks, hands over the answer, and asks what is wanted next, until that is nothing. What the
/// running server does not do is done here, in a store that is open all the while.
pub fn converse(
    settings: &Settings,
    first: Request,
    mut next: impl FnMut(Response) -> Result<Option<Request>, Failure>,
) -> Result<(), Failure> {
    let ask = |request: &Request| ask_server(settings, request, &mut |_| {});
    if let Some(answer) = ask(&first)? {
        let mut wanted = next(answer?)?;
        while let Some(request) = wanted {
            let gone = || Failure::store("the server ended before the order was done".to_owned());
            wanted = next(ask(&request)?.ok_or_else(gone)??)?;
        }
        return Ok(());
    }
    if !matches!(first, Request::DomainAdd { .. }) {
        must_be_there(settings)?;
    }
    world::block_on(async {
        let (world, _) = world::World::open_told(settings)?;
        let done = async {
            let mut wanted = Some(first);
            while let Some(request) = wanted {
                wanted = next(world.office.perform(request).await?)?;
            }
            Ok(())
        }
        .await;
        world.close().await;
        done
    })
}

/// Asks the running server, and tells how far a long answer has come. `None` when none runs.
pub fn ask_server(
    settings: &Settings,
    request: &Request,
    told: &mut dyn FnMut(&admin::audit::Standing),
) -> Result<Option<Result<Response, admin::Refusal>>, Failure> {
    let socket = admin::control::socket_path(&settings.data, &std::env::temp_dir());
    admin::control::ask_told(&socket, &settings.data, request, told)
        .map_err(|e| Failure::store(format!("the control socket {}: {e}", socket.display())))
}

/// A misspelt folder must not answer as an empty server, nor be made.
pub fn must_be_there(settings: &Settings) -> Result<(), Failure> {
    if settings.data.join("store").exists() {
        return Ok(());
    }
    Err(Failure::store(format!(
        "there is no mail store in {}: name the right --config or --data, or begin with: posthaste init <domain>",
        settings.data.display()
    )))
}

pub fn domain(order: Domain) -> Request {
    match order {
        Domain::Add { domain } => Request::DomainAdd { domain },
        Domain::List => Request::DomainList,
        Domain::Remove { domain } => Request::DomainRemove { domain },
        Domain::Set(order) => addresses::domain_set(order),
        Domain::Show { domain } => addresses::domain_show(domain),
    }
}

pub fn account(order: Account) -> Result<Request, Failure> {
    Ok(match order {
        Account::Add {
            address,
            password_stdin,
            name,
        } => Request::AccountAdd {
            address,
            name,
            password: password(password_stdin)?,
        },
        Account::List => Request::AccountList,
        Account::Show { address } => Request::AccountShow { address },
        Account::Password {
            address,
            password_stdin,
        } => Request::AccountPassword {
            address,
            password: password(password_stdin)?,
        },
        Account::Suspend { address } => Request::AccountSuspend {
            address,
            suspended: true,
        },
        Account::Resume { address } => Request::AccountSuspend {
            address,
            suspended: false,
        },
        Account::Remove { address, yes: true } => Request::AccountRemove { address },
        Account::Remove { address, yes: false } => {
            return Err(Failure::Usage(format!(
                "this removes {address} with all its mail; say --yes if you mean it"
            )));
        }
        Account::AddAlias { alias, address } => Request::AliasAdd { alias, address },
        Account::RemoveAlias { alias } => Request::AliasRemove { alias },
        Account::Quota { address, quota } => addresses::quota(address, quota),
        Account::SendAs(order) => addresses::send_as(order),
        Account::SecondFactor { address, state } => Request::SecondFactor {
            address,
            on: state == OnOff::On,
        },
        Account::Log { address } => Request::LoginLog { address },
        Account::AppPassword {
            address,
            name,
            scope,
            expires,
        } => Request::AppPasswordAdd {
            address,
            name,
            lasts_secs: expires.map(|lasts| lasts.as_secs()),
            scopes: scope.into_iter().map(|s| scope_name(s).to_owned()).collect(),
        },
        Account::Limit {
            address,
            messages,
            recipients,
            default,
        } => super::block::limit(address, messages, recipients, default),
        Account::RevokeAppPassword { address, number } => Request::AppPasswordRevoke { address, number },
    })
}

pub fn dns(order: Dns) -> Request {
    let Dns::Records { domain, address } = order;
    Request::Zone {
        domain,
        addresses: address,
    }
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Smtp => "smtp",
        Scope::Imap => "imap",
        Scope::Pop3 => "pop3",
    }
}

/// The first line of standard input, when it is asked for.
pub fn password(from_stdin: bool) -> Result<Option<String>, Failure> {
    if !from_stdin {
        return Ok(None);
    }
    let mut line = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), PASSWORD_LINE_OCTETS_MAX);
    input.read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::Usage(
            "--password-stdin: standard input holds no password".to_owned(),
        ));
    }
    Ok(Some(password.to_owned()))
}
