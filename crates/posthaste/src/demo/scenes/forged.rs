//! Somebody else writes as alice@gmail.com: SPF does not name the address, nothing is signed, and
//! gmail.com's DMARC policy says reject.

use crate::demo::Broken;
use crate::demo::reel::Happening;
use crate::demo::site::Service;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, STRANGER, World};
use lab::client::SmtpClient;

const MESSAGE: &str = "From: alice@gmail.com\nTo: bob@example.com\nSubject: Urgent\n\
Date: Mon, 23 Nov 2026 09:00:00 +0000\nMessage-ID: <urgent@forger.example>\n\n\
Bob, please send me 500 in gift cards. Alice\n";

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    let mark = world.reel.mark();
    let before = world.inbox_of_bob().await?.len();
    stage.remark(&format!(
        "A stranger at {STRANGER} connects to example.com's server and says it is Alice:"
    ));
    let target = world.example.target(Service::Smtp, Some(STRANGER));
    let mut client = SmtpClient::connect(&target, stage.watch("stranger to mail.example.com"), false).await?;
    client.command("EHLO mail.forger.example").await?.ok()?;
    client.command("MAIL FROM:<alice@gmail.com>").await?.ok()?;
    client.command("RCPT TO:<bob@example.com>").await?.ok()?;
    let reply = client.data(MESSAGE).await?;
    client.quit().await?;

    stage.remark("What example.com's server asked the DNS to find out:");
    let mut asked_policy = false;
    for happening in world.reel.since(mark) {
        if let Happening::Asked { host, asked } = &happening
            && *host == EXAMPLE.domain
        {
            asked_policy |= asked.name.eq_ignore_ascii_case("_dmarc.gmail.com")
                || asked.name.eq_ignore_ascii_case("gmail.com");
            stage.happening(&happening);
        }
    }
    let text = reply.lines.join(" ");
    stage.check(
        "refused in the SMTP dialogue with 550 5.7.26",
        reply.is(550, "5.7.26"),
        || reply.to_string(),
    );
    stage.check(
        "the reply says which checks failed",
        ["SPF", "DKIM", "DMARC"].iter().all(|word| text.contains(word)),
        || text.clone(),
    );
    // What was asked a moment ago for alice's own message may still be known.
    let known = asked_policy || world.reel.since(0).iter().any(|h| {
        matches!(h, Happening::Asked { asked, .. } if asked.name.eq_ignore_ascii_case("_dmarc.gmail.com"))
    });
    stage.check("the policy came from the DNS", known, String::new);
    let after = world.inbox_of_bob().await?.len();
    stage.check("nothing of it reached Bob", before == after, || {
        format!("{before} messages, then {after}")
    });
    stage.advice(
        "if that address should send for gmail.com, its owner adds it to the SPF record \
         (v=spf1 mx ip4:127.0.3.1 -all) or lets it sign with a DKIM key of gmail.com; either is enough for DMARC.",
    );
    Ok(())
}
