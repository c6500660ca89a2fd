//! A wrong password.

use super::letter::submission;
use crate::demo::Broken;
use crate::demo::stage::Stage;
use crate::demo::world::World;
use lab::client::{Login, Watch};
use mail::Secret;

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    let wrong = Login {
        user: world.alice.user.clone(),
        password: Secret::new("not her password"),
    };
    let nobody = Login {
        user: "nobody@gmail.com".to_owned(),
        password: Secret::new("not a password"),
    };
    // The server lets a failed login wait, so both wait at the same time.
    let watched = async {
        let mut client = submission(&world.gmail, stage.watch_past_tls("alice to mail.gmail.com")).await?;
        let reply = client.auth_plain(&wrong).await?;
        let mail = client.command("MAIL FROM:<alice@gmail.com>").await?;
        client.quit().await?;
        Ok::<_, Broken>((reply, mail))
    };
    let unwatched = async {
        let mut client = submission(&world.gmail, Watch::nobody()).await?;
        let reply = client.auth_plain(&nobody).await?;
        client.quit().await?;
        Ok(reply)
    };
    let ((reply, mail), unknown) = tokio::try_join!(watched, unwatched)?;

    stage.check("refused with 535 5.7.8", reply.is(535, "5.7.8"), || {
        reply.to_string()
    });
    // But for the reference, which is each session's own.
    let words = |reply: &lab::client::Reply| {
        let text = reply.to_string();
        text.split(" (reference ").next().map(str::to_owned)
    };
    stage.check(
        "an unknown user gets the very same answer",
        words(&reply) == words(&unknown),
        || unknown.to_string(),
    );
    stage.check("and nothing can be sent", mail.code == 530, || mail.to_string());
    stage.advice(
        "type the password again; the user name is the whole address (alice@gmail.com). An operator gives a new \
         one with: posthaste account password alice@gmail.com",
    );
    Ok(())
}
