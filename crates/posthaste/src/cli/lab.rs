//! `posthaste lab …`: parts of the internet in a box, for other people's tests.

use super::Failure;
use crate::args::Lab;
use crate::world;
use lab::dns::{DnsServer, Zones};
use mail::Clock as _;
use std::process::ExitCode;

pub fn run(order: &Lab) -> Result<ExitCode, Failure> {
    let Lab::Dns { zone, listen, sign } = order;
    if !listen.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "{listen} is not a loopback address: the laboratory stays on this machine"
        )));
    }
    let mut zones = Zones::new();
    for file in zone {
        let text =
            std::fs::read_to_string(file).map_err(|e| Failure::No(format!("{}: {e}", file.display())))?;
        zones
            .add(&text)
            .map_err(|e| Failure::No(format!("{}: {e}", file.display())))?;
    }
    if let Some(file) = sign {
        std::fs::write(file, signed(&mut zones)?)?;
    }
    world::block_on(async {
        let server = DnsServer::start(*listen, zones, None).await?;
        println!("dns {}", server.addr());
        println!("ready");
        world::stop_signal().await?;
        server.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Signs all zones and the root; its key as a line of a zone file.
fn signed(zones: &mut Zones) -> Result<String, Failure> {
    let now = world::SystemClock.now();
    let origins: Vec<String> = zones.origins().map(str::to_owned).collect();
    for origin in origins.iter().map(String::as_str).chain([""]) {
        zones.sign(origin, now).map_err(|e| Failure::No(e.to_string()))?;
    }
    zones
        .trust_anchor()
        .ok_or_else(|| Failure::No("the root has no key".to_owned()))
}
