//! A mail program that tries to log in, or to send, without TLS.

use super::letter::CLIENT_NAME;
use crate::demo::Broken;
use crate::demo::site::Service;
use crate::demo::stage::Stage;
use crate::demo::world::World;
use lab::client::SmtpClient;

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    let target = world.gmail.target(Service::Submission, None);
    let mut client = SmtpClient::connect(&target, stage.watch("alice to mail.gmail.com"), false).await?;
    let ehlo = client.command(&format!("EHLO {CLIENT_NAME}")).await?.ok()?;
    // Without the password: it must not cross the wire in clear, not even here.
    let auth = client.command("AUTH PLAIN").await?;
    let mail = client.command("MAIL FROM:<alice@gmail.com>").await?;
    client.quit().await?;

    stage.check("AUTH is not even offered", !ehlo.offers("AUTH"), || {
        ehlo.to_string()
    });
    stage.check("AUTH is refused with 538 5.7.11", auth.is(538, "5.7.11"), || {
        auth.to_string()
    });
    stage.check("MAIL is refused with 530 5.7.0", mail.is(530, "5.7.0"), || {
        mail.to_string()
    });
    stage.advice(
        "set the connection security of the mail program to STARTTLS on port 587, or to SSL/TLS on port 465, \
         and never to none.",
    );
    Ok(())
}
