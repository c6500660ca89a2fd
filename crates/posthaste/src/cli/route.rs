//! `posthaste route`: orders about the routes of the store, and the whole decision about one message
//! without sending it. What lives in the store is asked of the running server, the DNS is asked here.
//!
//! Exit code 0: the mail would leave or is for here; 1: it would not, which is then said.

use super::out::outln;
use super::way::{self, HeldUp};
use super::{Failure, office, print, settings};
use crate::args::route::{Add, Order, Route as Args};
use crate::args::{DnsServer, Global};
use crate::serve::ways;
use crate::settings::Settings;
use crate::world;
use admin::addresses::ExplanationView;
use admin::words::{RouteOrder, RouteRow};
use admin::{Request, Response};
use deliver::plan::{AddressOrder, By, Own, Plan};
use deliver::{Action, Origin, Route};
use directory::{Random as _, RouteSpec, SystemRandom};
use mail::{EmailAddress, EnhancedStatus, ReversePath};
use serde::Serialize;
use std::net::IpAddr;
use std::process::ExitCode;

pub fn run(global: &Global, args: Args) -> Result<ExitCode, Failure> {
    match (args.order, args.from, args.to) {
        (Some(Order::Add(order)), ..) => add(global, *order),
        (Some(Order::List), ..) => list(global),
        (Some(Order::Remove { domain }), ..) => {
            office::run(global, Request::Routes(RouteOrder::Remove { domain }))
        }
        (None, Some(from), Some(to)) => tell(global, &from, &to, &args.server),
        (None, ..) => Err(Failure::Usage("name a sender and a recipient".to_owned())),
    }
}

/// The route is read here first, as the server will: what is wrong with it is said at once.
fn add(global: &Global, order: Add) -> Result<ExitCode, Failure> {
    let spec = RouteSpec {
        hosts: order.host,
        lmtp: order.lmtp,
        mx: order.mx.map(|domain| domain.to_string()),
        port: order.port,
        discard: order.discard,
        fail: order.fail,
        tls: order.tls,
        user: order.user,
        // The server has another working folder.
        password_file: match order.password_file {
            Some(file) => Some(std::path::absolute(file)?),
            None => None,
        },
    };
    ways::read(&order.domain, &spec, Origin::Store).map_err(Failure::Usage)?;
    let domain = order.domain;
    office::run(global, Request::Routes(RouteOrder::Set { domain, spec }))
}

/// A route, as `route list` shows it.
#[derive(Serialize)]
struct Listed {
    domain: String,
    origin: Origin,
    what: String,
    tls: Option<String>,
    user: Option<String>,
    /// Why it does not count: another one stands for the same domains, or it cannot be read.
    unused: Option<String>,
}

fn list(global: &Global) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    let mut rows: Vec<Listed> = stored(&settings)?.into_iter().map(listed_of_store).collect();
    for route in &settings.deliver.route {
        let before = rows
            .iter()
            .find(|row| row.domain.eq_ignore_ascii_case(&route.domain));
        let unused = before.map(|row| format!("the one in the {} counts", row.origin));
        rows.push(Listed {
            unused,
            ..listed(&route.domain, &route.spec(), Origin::Settings)
        });
    }
    if global.json {
        outln!(
            "{}",
            serde_json::to_string(&rows).map_err(|e| Failure::store(e.to_string()))?
        );
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        outln!("no routes: the DNS decides for every domain");
        return Ok(ExitCode::SUCCESS);
    }
    let cells = rows.into_iter().map(|row| {
        let what = match row.unused {
            Some(why) => format!("{} [not in force: {why}]", row.what),
            None => row.what,
        };
        let login = row.user.unwrap_or_else(|| "-".to_owned());
        let tls = row.tls.unwrap_or_else(|| "-".to_owned());
        vec![row.domain, row.origin.to_string(), tls, login, what]
    });
    print::table(&["FOR", "FROM", "TLS", "LOGIN", "WHAT"], cells.collect());
    Ok(ExitCode::SUCCESS)
}

fn listed_of_store(row: RouteRow) -> Listed {
    match row.spec {
        Some(spec) => listed(&row.domain, &spec, Origin::Store),
        None => Listed {
            domain: row.domain,
            origin: Origin::Store,
            what: "?".to_owned(),
            tls: None,
            user: None,
            unused: row.damage,
        },
    }
}

fn listed(domain: &str, spec: &RouteSpec, origin: Origin) -> Listed {
    let read = Route::read(domain, spec, None, origin);
    let (what, tls, unused) = match &read {
        Ok(route) => {
            let relays = matches!(
                route.action,
                Action::Relay(_) | Action::Lmtp(_) | Action::MxOf { .. }
            );
            let tls = relays.then(|| route.tls.to_string());
            (route.action.to_string(), tls, None)
        }
        Err(why) => ("?".to_owned(), None, Some(why.clone())),
    };
    Listed {
        domain: domain.to_owned(),
        origin,
        what,
        tls,
        user: spec.user.clone(),
        unused,
    }
}

/// What strangers say must not paint on an operator's terminal.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// The routes of the store alone, as the office answers.
pub fn rows(rows: &[RouteRow]) {
    for row in rows {
        let listed = listed_of_store(row.clone());
        outln!("{}: {}", listed.domain, listed.what);
    }
}

/// The routes of the store; none where there is no store yet.
pub fn stored(settings: &Settings) -> Result<Vec<RouteRow>, Failure> {
    if office::must_be_there(settings).is_err() {
        return Ok(Vec::new());
    }
    match office::perform(settings, Request::Routes(RouteOrder::List))? {
        Response::Routes(rows) => Ok(rows),
        _ => Err(Failure::store(
            "the server answered something else; is it of the same version?",
        )),
    }
}

/// Whether an address is served here, and where it leads. Nothing where there is no store yet.
pub fn here(settings: &Settings, address: &EmailAddress) -> Result<Option<ExplanationView>, Failure> {
    if office::must_be_there(settings).is_err() {
        return Ok(None);
    }
    let order = admin::addresses::Order::Explain {
        address: address.clone(),
    };
    match office::perform(settings, Request::Addresses { order })? {
        Response::Explanation(view) => Ok(Some(view).filter(|view| !view.elsewhere)),
        _ => Err(Failure::store(
            "the server answered something else; is it of the same version?",
        )),
    }
}

/// The routes in force; what is wrong with one is said on standard error.
pub fn in_force(settings: &Settings) -> Result<Vec<Route>, Failure> {
    let of_settings = ways::of_settings(settings)?;
    let rows = stored(settings)?.into_iter();
    let stored = rows.filter_map(|row| Some((row.domain, Ok(row.spec?)))).collect();
    Ok(ways::merged(stored, &of_settings, &mut |text| {
        eprintln!("posthaste: {text}");
    }))
}

/// What is known of this server when it looks for the way of a message.
pub fn own(settings: &Settings) -> Result<Own, Failure> {
    Ok(Own {
        names: vec![world::hostname(settings)?],
        port: settings.deliver.port,
        order: AddressOrder::default(),
        listening: ways::listening(&settings.listen.smtp),
    })
}

/// A number below `n`, to shuffle hosts of equal preference.
pub fn random(n: usize) -> usize {
    let mut octets = [0u8; 8];
    match SystemRandom.fill(&mut octets) {
        Ok(()) if n > 0 => (u64::from_le_bytes(octets) % n as u64) as usize,
        _ => 0,
    }
}

/// The whole decision about one message.
#[derive(Serialize)]
struct Decision {
    from: String,
    to: EmailAddress,
    /// Where it leads here; none when it leaves.
    here: Option<ExplanationView>,
    /// How it leaves; none when it is for here.
    way: Option<Way>,
    /// What would hold it up before a server is asked.
    held_up: Vec<HeldUp>,
}

/// How a message leaves, or why it does not.
#[derive(Serialize)]
pub struct Way {
    /// How the servers were found.
    by: String,
    /// What is asked of TLS.
    tls: Option<String>,
    /// The login there.
    user: Option<String>,
    /// The servers, in the order in which they are tried.
    servers: Vec<Server>,
    /// What was left out and why, and what else is to be known.
    left_out: Vec<String>,
    /// Where the MTA-STS policy that counts was had from.
    policy_from: Option<&'static str>,
    /// Why it does not leave.
    failure: Option<Trouble>,
}

#[derive(Serialize)]
struct Server {
    host: String,
    preference: Option<u16>,
    /// The TLS that the connection must have: `none`, `opportunistic`, `encrypted`, `verified` or `dane`; none
    /// when the server may not be used now.
    level: Option<&'static str>,
    /// Why.
    tls: String,
    /// In the order in which they are dialled.
    addresses: Vec<Address>,
}

#[derive(Serialize)]
struct Address {
    ip: IpAddr,
    port: u16,
    /// The address of ours; none: the system chooses.
    source: Option<IpAddr>,
    /// The name for EHLO.
    helo: String,
}

/// A failure, with its cause and what to do.
#[derive(Serialize)]
pub struct Trouble {
    /// Who said so, and what.
    said: String,
    code: u16,
    status: EnhancedStatus,
    why: String,
    remedy: String,
}

impl Trouble {
    pub fn of(failure: &deliver::Failure, settings: &Settings) -> Result<Self, Failure> {
        let said = world::replies(settings)?.explain(failure);
        Ok(Self {
            code: failure.code,
            status: failure.status,
            said: failure.to_string(),
            why: said.class.problem.to_string(),
            remedy: said.remedy(),
        })
    }

    pub fn print(&self) {
        outln!("  {}", printable(&self.said));
        outln!("  why: {}", self.why);
        outln!("  what to do: {}", self.remedy);
    }
}

impl Way {
    fn of(plan: &Plan, policy_from: Option<&'static str>, settings: &Settings) -> Result<Self, Failure> {
        let dialer = ways::dialer(settings);
        let mut servers: Vec<Server> = Vec::new();
        let mut unusable = None;
        for hop in &plan.hops {
            let departure = plan.departures.to(hop);
            let address = Address {
                ip: hop.address.ip(),
                port: hop.address.port(),
                source: departure
                    .map(|d| d.address)
                    .or_else(|| dialer.source_for(hop.address)),
                helo: departure.map_or(&settings.hostname, |d| &d.helo).clone(),
            };
            let host = hop.host.to_string();
            match servers.last_mut().filter(|server| server.host == host) {
                Some(server) => server.addresses.push(address),
                None => {
                    let (level, tls) = match plan.security(hop, false) {
                        Ok(decision) => (Some(way::level_name(&decision.level)), decision.why),
                        Err(failure) => {
                            let words = format!("not to be used now: {}", failure.words);
                            unusable = Some(failure);
                            (None, words)
                        }
                    };
                    servers.push(Server {
                        host,
                        preference: hop.preference,
                        level,
                        tls,
                        addresses: vec![address],
                    });
                }
            }
        }
        let none_left = servers.iter().all(|server| server.level.is_none());
        let failure = unusable.filter(|_| none_left);
        Ok(Self {
            by: by_in_words(plan),
            tls: Some(plan.security_in_words()),
            user: plan.login.as_ref().map(|login| login.user.clone()),
            servers,
            left_out: plan.notes.clone(),
            policy_from,
            failure: failure.map(|f| Trouble::of(&f, settings)).transpose()?,
        })
    }

    fn none(by: String, failure: Option<Trouble>) -> Self {
        Self {
            by,
            tls: None,
            user: None,
            servers: Vec::new(),
            left_out: Vec::new(),
            policy_from: None,
            failure,
        }
    }

    fn print(&self) {
        outln!("way: {}", self.by);
        if let Some(user) = &self.user {
            outln!("login: {user}");
        }
        for (i, server) in self.servers.iter().enumerate() {
            let preference = server.preference.map(|p| format!(", preference {p}"));
            outln!("{}. {}{}", i + 1, server.host, preference.unwrap_or_default());
            outln!("   TLS: {}", printable(&server.tls));
            for address in &server.addresses {
                let source = address
                    .source
                    .map_or("any address of ours".to_owned(), |ip| ip.to_string());
                outln!(
                    "   {} port {}, from {source}, EHLO {}",
                    address.ip,
                    address.port,
                    address.helo
                );
            }
        }
        for note in &self.left_out {
            outln!("note: {note}");
        }
        if let Some(from) = self.policy_from {
            outln!("note: {from}");
        }
        if let Some(failure) = &self.failure {
            outln!("it does not leave:");
            failure.print();
        }
    }
}

fn by_in_words(plan: &Plan) -> String {
    match &plan.by {
        By::Mx => "MX records".to_owned(),
        By::AddressFallback => "no MX records, so the domain's own address".to_owned(),
        By::Literal => "the address that the recipient's address names".to_owned(),
        By::Order => "the operator's order".to_owned(),
        By::Route(route) if plan.lmtp => format!("the route for {route}, by LMTP"),
        By::Route(route) => format!("the route for {route}"),
    }
}

fn tell(
    global: &Global,
    from: &ReversePath,
    to: &EmailAddress,
    server: &DnsServer,
) -> Result<ExitCode, Failure> {
    let settings = settings(global)?;
    let here = here(&settings, to)?;
    let way = match &here {
        Some(_) => None,
        None => Some(find(&settings, from, to, server)?),
    };
    let leaves = way.as_ref().is_none_or(|way| way.failure.is_none());
    let held_up = match &here {
        Some(_) => Vec::new(),
        None => way::held_up(&settings, from, to)?,
    };
    let leaves = leaves && held_up.is_empty();
    let goes_somewhere = |view: &ExplanationView| !(view.accounts.is_empty() && view.forwards.is_empty());
    let good = leaves && here.as_ref().is_none_or(goes_somewhere);
    let decision = Decision {
        from: from.to_string(),
        to: to.clone(),
        here,
        way,
        held_up,
    };
    if global.json {
        outln!(
            "{}",
            serde_json::to_string(&decision).map_err(|e| Failure::store(e.to_string()))?
        );
    } else {
        outln!("from {} to <{}>", decision.from, decision.to);
        if let Some(view) = &decision.here {
            outln!("it is for here:");
            view.steps.iter().for_each(|step| outln!("  {step}"));
            for forward in &view.forwards {
                outln!("  its further way: posthaste route {} {forward}", decision.from);
            }
        }
        decision.way.iter().for_each(Way::print);
        decision.held_up.iter().for_each(HeldUp::print);
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Asks the DNS, as a delivery would.
fn find(
    settings: &Settings,
    from: &ReversePath,
    to: &EmailAddress,
    server: &DnsServer,
) -> Result<Way, Failure> {
    let routes = in_force(settings)?;
    let host = to.host();
    if let Some(route) = deliver::way::discarding(&routes, host) {
        return Ok(Way::none(
            format!("the route for {} throws it away", route.named()),
            None,
        ));
    }
    let remembered = way::remembered(settings, host)?;
    let found = world::block_on(way::find(settings, server, &routes, from, host, remembered))?;
    Ok(match found.plan {
        Ok(plan) => Way::of(&plan, found.policy_from, settings)?,
        Err(failure) => {
            let route = deliver::route::route_for(&routes, host.domain());
            let by = match route {
                Some(route) => format!("the route for {}: {}", route.named(), route.action),
                None => format!("what the DNS says of {host}"),
            };
            Way::none(by, Some(Trouble::of(&failure, settings)?))
        }
    })
}
