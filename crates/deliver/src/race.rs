//! Connecting to a host that has several addresses: they start one after the other at a short distance,
//! and the first that answers is spoken to (RFC 8305).
//!
//! Promises: a family that is dead costs [`STAGGER`], not a connection's whole time; only addresses of
//! one host race, so that the order of preference of the hosts stays; what was dialled and failed is
//! told, each by itself. Never: a word said on a connection that lost.

use crate::conversation::Broken;
use crate::dial::{Dialer, Stream};
use crate::memory::Memory;
use crate::plan::Hop;
use crate::route::ServerName;
use crate::source::Departures;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long an address has before the next one of the same host is dialled beside it (RFC 8305 §5,
/// "Connection Attempt Delay": 250 milliseconds).
pub const STAGGER: Duration = Duration::from_millis(250);
/// How long it is remembered that a family did not answer at a host while the other one did.
pub const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Hosts about which that is remembered at most. Of further ones nothing is, which costs [`STAGGER`].
pub const REMEMBERED_MAX: usize = 10_000;

/// What came of dialling one host.
pub(crate) struct Raced<'a> {
    /// The address that answered first, with its connection.
    pub(crate) won: Option<(&'a Hop, Box<dyn Stream>)>,
    /// Those that failed before that, in this order.
    pub(crate) failed: Vec<(&'a Hop, Broken)>,
    /// All that were dialled, the winner included.
    pub(crate) dialled: Vec<&'a Hop>,
}

/// Dials the addresses of one host in their order until one answers; each has `within` for itself.
pub(crate) async fn race<'a>(
    dialer: &dyn Dialer,
    hops: &[&'a Hop],
    departures: &Departures,
    stagger: Duration,
    within: Duration,
) -> Raced<'a> {
    let mut raced = Raced {
        won: None,
        failed: Vec::new(),
        dialled: Vec::new(),
    };
    let mut waiting = hops.iter().copied();
    let mut under_way = FuturesUnordered::new();
    loop {
        // The next one starts when its time has come, or when one before it has failed.
        if let Some(hop) = waiting.next() {
            raced.dialled.push(hop);
            let from = departures.to(hop).map(|departure| departure.address);
            let dialing = match hop.socket() {
                Some(path) => dialer.dial_socket(path),
                None => dialer.dial_from(hop.address, from),
            };
            under_way.push(async move { (hop, timeout(within, dialing).await) });
        }
        let ended = tokio::select! {
            biased;
            ended = under_way.next() => ended,
            () = sleep(stagger), if waiting.len() > 0 => continue,
        };
        match ended {
            None => return raced,
            Some((hop, Ok(Ok(io)))) => {
                raced.won = Some((hop, io));
                return raced;
            }
            Some((hop, Ok(Err(e)))) => raced.failed.push((hop, Broken::Connect(e))),
            Some((hop, Err(_))) => raced.failed.push((hop, Broken::ConnectTimeout(within))),
        }
    }
}

/// A family at a host; `true` stands for IPv6.
type Family = (ServerName, bool);

/// Families that did not answer at a host while the other one did, for some minutes: the other one is
/// dialled first meanwhile.
#[derive(Debug)]
pub struct Families {
    late: Mutex<Memory<Family>>,
}

impl Default for Families {
    fn default() -> Self {
        let late = Mutex::new(Memory::new(REMEMBERED_MAX));
        Self { late }
    }
}

fn family(hop: &Hop) -> Family {
    (hop.host.clone(), hop.address.is_ipv6())
}

impl Families {
    /// The addresses of one host in the order in which they are to be dialled.
    pub(crate) fn in_order<'a>(&self, hops: &[&'a Hop]) -> Vec<&'a Hop> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = |hop: &&Hop| late.holds(&family(hop));
        let (late, good): (Vec<&Hop>, Vec<&Hop>) = hops.iter().copied().partition(is_late);
        good.into_iter().chain(late).collect()
    }

    /// Learns from a race: who was dialled and lost against the other family is late.
    pub(crate) fn learn(&self, raced: &Raced<'_>) {
        let Some((winner, _)) = &raced.won else { return };
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.forget(&family(winner));
        let lost = raced.dialled.iter().map(|hop| family(hop));
        for family in lost.filter(|(_, v6)| *v6 != winner.address.is_ipv6()) {
            late.learn(family, REMEMBERED);
        }
    }
}
