//! Step 1: alice's mail program hands the message to gmail.com's server, with TLS and a password.

use super::Letters;
use super::letter::{CLIENT_NAME, queue_id};
use crate::demo::Broken;
use crate::demo::site::Service;
use crate::demo::stage::Stage;
use crate::demo::world::World;
use lab::client::SmtpClient;

/// The message, as alice wrote it.
const MESSAGE: &str = "From: alice@gmail.com\nTo: bob@example.com\nSubject: Hello!\n\nHi Bob, how are you?\n";

pub async fn play(stage: &mut Stage, world: &mut World, letters: &mut Letters) -> Result<(), Broken> {
    letters.mark = world.reel.mark();
    let target = world.gmail.target(Service::Submission, None);
    stage.remark(&format!(
        "Alice's mail program connects to {} at {} (port 587 on the Internet).",
        target.name, target.addr
    ));
    let watch = stage.watch("alice to mail.gmail.com");
    let mut client = SmtpClient::connect(&target, watch, false).await?;
    let before = client.command(&format!("EHLO {CLIENT_NAME}")).await?.ok()?;
    let mut client = client.start_tls().await?;
    let after = client.command(&format!("EHLO {CLIENT_NAME}")).await?.ok()?;
    let login = client.auth_plain(&world.alice).await?;
    let authenticated = login.code == 235;
    login.ok()?;
    client.command("MAIL FROM:<alice@gmail.com>").await?.ok()?;
    client.command("RCPT TO:<bob@example.com>").await?.ok()?;
    let accepted = client.data(MESSAGE).await?;
    client.quit().await?;

    stage.check(
        "STARTTLS is offered, and AUTH only inside TLS",
        before.offers("STARTTLS") && !before.offers("AUTH") && after.offers("AUTH"),
        || format!("before TLS: {before}; inside: {after}"),
    );
    stage.check("Alice logged in with her password", authenticated, String::new);
    let id = accepted.lines.iter().find_map(|line| queue_id(line));
    letters.at_gmail = id;
    stage.check(
        "the message was accepted, which means: it is on disk",
        accepted.code == 250 && id.is_some(),
        || accepted.to_string(),
    );
    Ok(())
}
