//! How mail leaves: routes from the settings and from the store, where we listen ourselves, TLS and
//! connections towards others. For the server, and for the commands that show what it would do.

use crate::cli::Failure;
use crate::settings::{Settings, SourceChoice};
use crate::world::World;
use deliver::plan::Listening;
use deliver::source::{Choice, Sources};
use deliver::{Origin, Route};
use directory::{Directory, RouteSpec};
use mail::Secret;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Octets of a file with a password at most.
const PASSWORD_FILE_OCTETS_MAX: u64 = 4 * 1024;

/// The routes of the settings.
pub fn of_settings(settings: &Settings) -> Result<Vec<Route>, Failure> {
    let routes = settings.deliver.route.iter();
    routes
        .map(|route| {
            read(&route.domain, &route.spec(), Origin::Settings)
                .map_err(|why| Failure::Settings(format!("deliver.route for \"{}\": {why}", route.domain)))
        })
        .collect()
}

/// A route as it was written, with the password of its login.
pub fn read(pattern: &str, spec: &RouteSpec, origin: Origin) -> Result<Route, String> {
    let login = match (&spec.user, &spec.password_file) {
        (Some(user), Some(file)) => Some(deliver::Login {
            user: user.clone(),
            password: password(file).map_err(|e| format!("password_file = {}: {e}", file.display()))?,
        }),
        _ => None,
    };
    Route::read(pattern, spec, login, origin)
}

/// The password of a login at a smarthost is the first line of a file, so that it stands in no settings
/// that somebody shows around, and in no backup.
fn password(file: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(PASSWORD_FILE_OCTETS_MAX).read_to_string(&mut text))
        .map_err(|e| e.to_string())?;
    let line = text.lines().next().filter(|line| !line.is_empty());
    line.map(Secret::new)
        .ok_or_else(|| "its first line is empty".to_owned())
}

/// The routes of the store before those of the settings, so that of two for the same domains the
/// store's counts. One that cannot be used is told, and left out.
pub fn merged(
    stored: Vec<(String, Result<RouteSpec, directory::Error>)>,
    of_settings: &[Route],
    told: &mut dyn FnMut(String),
) -> Vec<Route> {
    let mut routes = Vec::new();
    for (pattern, spec) in stored {
        let spec = spec.map_err(|e| e.to_string());
        match spec.and_then(|spec| read(&pattern, &spec, Origin::Store)) {
            Ok(route) => routes.push(route),
            Err(why) => told(format!(
                "the route for {pattern} in the store cannot be used: {why}; set it anew with: posthaste route add"
            )),
        }
    }
    routes.extend_from_slice(of_settings);
    routes
}

/// Puts the routes of the store into force.
pub async fn put_into_force(
    deliver: &deliver::Context,
    directory: &Directory,
    of_settings: &[Route],
) -> Result<(), directory::Error> {
    let stored = directory.routes().await?;
    let mut told = |text: String| tracing::error!("{text}");
    deliver.set_routes(merged(stored, of_settings, &mut told));
    Ok(())
}

/// Puts the routes into force before the first delivery, which would else go a way that was ordered away.
/// What it answers follows their changes from then on.
pub async fn start(
    settings: &Settings,
    world: &World,
    deliver: &Arc<deliver::Context>,
    shutdown: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>, Failure> {
    let of_settings = of_settings(settings)?;
    let directory = world.office.directory.clone();
    let changes = directory.watch_routes();
    put_into_force(deliver, &directory, &of_settings)
        .await
        .map_err(|e| Failure::store(format!("the routes: {e}")))?;
    Ok(follow(deliver.clone(), directory, of_settings, changes, shutdown))
}

/// The same whenever they change.
async fn follow(
    deliver: Arc<deliver::Context>,
    directory: Directory,
    of_settings: Vec<Route>,
    mut changes: store::Watch,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            is_open = changes.changed() => if !is_open { return },
            () = stopped(&mut shutdown) => return,
        }
        if let Err(error) = put_into_force(&deliver, &directory, &of_settings).await {
            tracing::error!(%error, "the routes of the store could not be read; they stay as they were");
        }
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Within a function of its own, so that the guard it answers is dropped at once.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Where this server takes mail from others, so that it does not send mail to itself.
pub fn listening(addresses: &[SocketAddr]) -> Listening {
    Listening {
        addresses: addresses.to_vec(),
        is_here: Some(is_here),
    }
}

/// Whether an address is one of this machine's: only those can be bound. A system that lets any
/// address be bound (`ip_nonlocal_bind`) cannot be asked so; there only loopback is known.
fn is_here(ip: IpAddr) -> bool {
    // RFC 5737: no machine has this address.
    let nobodys = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let can_be_bound = |ip: IpAddr| UdpSocket::bind((ip, 0)).is_ok();
    can_be_bound(ip) && !can_be_bound(nobodys)
}

/// From which addresses of ours mail leaves.
pub fn sources(settings: &Settings) -> Result<Sources, Failure> {
    let sources = settings.deliver.source.iter().map(|source| {
        let wrong = |why| Failure::Settings(format!("deliver.source {}: {why}", source.address));
        source.read(&settings.hostname).map_err(wrong)
    });
    Ok(Sources {
        all: sources.collect::<Result<_, _>>()?,
        choice: match settings.deliver.source_choice {
            SourceChoice::Site => Choice::Site,
            SourceChoice::Random => Choice::Random,
        },
    })
}

/// How connections are made.
pub fn dialer(settings: &Settings) -> deliver::TcpDialer {
    deliver::TcpDialer {
        sources: settings.deliver.source_addresses.clone(),
    }
}

/// TLS towards other servers.
pub fn tls_client(settings: &Settings) -> Result<tls::Client, Failure> {
    let roots = crate::world::roots(settings)?;
    tls::Client::new(&roots).map_err(|e| Failure::Settings(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine() {
        assert!(is_here("127.0.0.1".parse().unwrap()));
        assert!(!is_here("198.51.100.7".parse().unwrap()));
    }

    #[test]
    fn the_stores_routes_come_first_and_bad_ones_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\nmore\n").unwrap();
        let relay = |file: &Path| RouteSpec {
            hosts: vec!["a.example".to_owned()],
            user: Some("us".to_owned()),
            password_file: Some(file.to_owned()),
            ..RouteSpec::default()
        };
        let discard = RouteSpec {
            discard: true,
            ..RouteSpec::default()
        };
        let of_settings = [read("*", &discard, Origin::Settings).unwrap()];
        let stored = vec![
            ("*".to_owned(), Ok(relay(&file))),
            ("example.com".to_owned(), Ok(relay(&folder.path().join("gone")))),
            ("a.example".to_owned(), Err(directory::Error::Contended)),
        ];
        let mut told = Vec::new();
        let routes = merged(stored, &of_settings, &mut |text| told.push(text));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("example.com") && told[0].contains("gone"),
            "{told:?}"
        );
        assert_eq!(routes.len(), 2);
        let chosen = deliver::route::route_for(&routes, None).unwrap();
        assert_eq!(chosen.origin, Origin::Store);
        assert_eq!(chosen.login.as_ref().unwrap().password.expose(), "secret");
    }
}
