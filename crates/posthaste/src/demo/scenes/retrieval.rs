//! Step 5: bob reads his mail, over IMAP with TLS and over POP3 with STLS.

use crate::demo::Broken;
use crate::demo::site::Service;
use crate::demo::stage::Stage;
use crate::demo::world::World;
use lab::client::{ImapClient, Pop3Client};

const TEXT: &str = "Hi Bob, how are you?";

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    imap(stage, world).await?;
    pop3(stage, world).await
}

async fn imap(stage: &mut Stage, world: &World) -> Result<(), Broken> {
    let target = world.example.target(Service::Imaps, None);
    stage.remark(&format!(
        "IMAP at {} (port 993), TLS from the first octet:",
        target.addr
    ));
    let mut imap = ImapClient::connect(&target, stage.watch("bob over IMAP"), true).await?;
    imap.login(&world.bob).await?.success()?;
    let selected = imap.command("SELECT INBOX").await?.success()?;
    let headers = imap
        .command("FETCH 1 (FLAGS BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT)])")
        .await?
        .success()?;
    let text = imap.command("FETCH 1 BODY[TEXT]").await?.success()?;
    let flags = imap.command("FETCH 1 FLAGS").await?.success()?;
    imap.logout().await?;

    stage.check(
        "one message is there",
        selected.untagged.iter().any(|l| l == "* 1 EXISTS"),
        || selected.untagged.join(" / "),
    );
    let header = headers.literals.concat();
    let header = String::from_utf8_lossy(&header);
    stage.check(
        "its header is Alice's",
        header.contains("Subject: Hello!") && header.contains("From: alice@gmail.com"),
        || header.to_string(),
    );
    let body = text.literals.concat();
    stage.check(
        "its text is Alice's",
        body == format!("{TEXT}\r\n").as_bytes(),
        || String::from_utf8_lossy(&body).into_owned(),
    );
    let seen = flags.untagged.iter().any(|line| line.contains("\\Seen"));
    stage.check("reading it marked it \\Seen", seen, || flags.untagged.join(" / "));
    Ok(())
}

async fn pop3(stage: &mut Stage, world: &World) -> Result<(), Broken> {
    let target = world.example.target(Service::Pop3, None);
    stage.remark(&format!("POP3 at {} (port 110), TLS by STLS:", target.addr));
    let pop3 = Pop3Client::connect(&target, stage.watch("bob over POP3"), false).await?;
    let mut pop3 = pop3.start_tls().await?;
    pop3.login(&world.bob).await?.success()?;
    let stat = pop3.command("STAT").await?.success()?;
    let message = pop3.multi_line("RETR 1").await?.success()?;
    pop3.quit().await?.success()?;

    // RFC 1939 §5, STAT: messages and their octets, each line ending counted as two.
    let octets: usize = message.lines.iter().map(|line| line.len() + 2).sum();
    stage.check(
        "STAT tells one message and its true size",
        stat.text == format!("1 {octets}"),
        || format!("{} for {octets} octets", stat.text),
    );
    let last = message
        .lines
        .last()
        .map(|line| String::from_utf8_lossy(line).into_owned());
    stage.check(
        "RETR gives the same message",
        last.as_deref() == Some(TEXT),
        || format!("{last:?}"),
    );
    Ok(())
}
