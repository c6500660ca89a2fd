//! Somebody else writes as alice@gmail.com: SPF does not name the address, nothing is signed, and
//! gmail.com's DMARC policy says reject.

use crate::demo::Broken;
use crate::demo::reel::Happening;
use crate::demo::site::Service;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, STRANGER, World};
use lab::client::SmtpClient;

const MESSAGE: &str = "From: alice@gmail.com\nTo: bob@example.com\nSubject: Urgent\n\
Message-ID: <urgent@forger.example>\n\n\
Bob, please send me 500 in gift cards. Alice\n";

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
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

    stage.remark("What the DNS says of that sender, asked now or remembered from Alice's own message:");
    let happenings = world.reel.since(0);
    let (spf, dmarc) = (
        record(&happenings, "gmail.com"),
        record(&happenings, "_dmarc.gmail.com"),
    );
    [&spf, &dmarc]
        .into_iter()
        .flatten()
        .for_each(|h| stage.happening(h));
    let text = reply.lines.join(" ");
    let says = |h: &Option<Happening>, what: &str| matches!(h, Some(Happening::Asked { asked, .. }) if asked.answer.iter().any(|a| a.contains(what)));
    stage.check(
        "gmail.com's records ask for it: SPF ends in -all, DMARC says p=reject",
        says(&spf, "-all") && says(&dmarc, "p=reject"),
        || format!("{spf:?} {dmarc:?}"),
    );
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

/// The last answer of the DNS to example.com's server about the texts of this name.
fn record(happenings: &[Happening], name: &str) -> Option<Happening> {
    let about = |h: &&Happening| {
        matches!(h, Happening::Asked { host, asked }
            if *host == EXAMPLE.domain && asked.kind == "TXT" && asked.name.eq_ignore_ascii_case(name))
    };
    happenings.iter().rev().find(about).cloned()
}
