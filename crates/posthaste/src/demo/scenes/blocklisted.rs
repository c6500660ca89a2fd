//! Somebody whose address stands on a DNS blocklist.

use crate::demo::Broken;
use crate::demo::reel::Happening;
use crate::demo::site::Service;
use crate::demo::stage::Stage;
use crate::demo::world::{BLOCKLIST, LISTED, World};
use lab::client::SmtpClient;
use lab::dns::list_name;

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    let mark = world.reel.mark();
    stage.remark(&format!("A sender at {LISTED} connects to example.com's server:"));
    let target = world.example.target(Service::Smtp, Some(LISTED));
    let mut client =
        SmtpClient::connect(&target, stage.watch("listed sender to mail.example.com"), false).await?;
    client.command("EHLO bulk.sender.example").await?.ok()?;
    client.command("MAIL FROM:<offers@sender.example>").await?.ok()?;
    let reply = client.command("RCPT TO:<bob@example.com>").await?;
    client.quit().await?;

    let name = list_name(LISTED.into(), BLOCKLIST);
    let asked: Vec<Happening> = world
        .reel
        .since(mark)
        .into_iter()
        .filter(|h| matches!(h, Happening::Asked { asked, .. } if asked.name.eq_ignore_ascii_case(&name)))
        .collect();
    stage.remark("example.com's server had asked the list:");
    asked.iter().for_each(|h| stage.happening(h));
    stage.check("the list was asked about the address", !asked.is_empty(), || {
        name.clone()
    });
    stage.check("refused with 550 5.7.1", reply.is(550, "5.7.1"), || {
        reply.to_string()
    });
    let text = reply.lines.join(" ");
    stage.check("the reply names the list", text.contains(BLOCKLIST), || {
        text.clone()
    });
    stage.advice(&format!(
        "find out what sent spam from {LISTED} (an infected machine, an open form), stop it, then ask {BLOCKLIST} \
         to take the address off; mail that people expect can go through another server meanwhile."
    ));
    Ok(())
}
