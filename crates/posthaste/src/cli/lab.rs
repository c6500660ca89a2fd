//! `posthaste lab …`: parts of the internet in a box, for other people's tests.

use super::Failure;
use crate::args::Lab;
use crate::world;
use lab::dns::{DnsServer, Zones};
use std::process::ExitCode;

pub fn run(order: &Lab) -> Result<ExitCode, Failure> {
    let Lab::Dns { zone, listen } = order;
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
    world::block_on(async {
        let server = DnsServer::start(*listen, zones, None).await?;
        println!("dns {}", server.addr());
        println!("ready");
        world::stop_signal().await?;
        server.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}
