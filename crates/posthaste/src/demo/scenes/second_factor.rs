//! An account with a second factor: mail programs need an app password.

use super::letter::submission;
use crate::demo::Broken;
use crate::demo::site::{Service, parse};
use crate::demo::stage::Stage;
use crate::demo::world::World;
use admin::{Request, Response};
use lab::client::{ImapClient, Login};
use mail::Secret;

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    let address = parse(&world.carol.user)?;
    world
        .gmail
        .perform(Request::SecondFactor {
            address: address.clone(),
            on: true,
        })
        .await?;
    stage.remark("Carol has turned her second factor on, and her program still knows only her password:");
    let mut client = submission(&world.gmail, stage.watch_past_tls("carol to mail.gmail.com")).await?;
    let refused = client.auth_plain(&world.carol).await?;
    client.quit().await?;
    stage.check("refused with 534 5.7.9", refused.is(534, "5.7.9"), || {
        refused.to_string()
    });

    let app = app_password(world).await?;
    stage.remark(
        "She makes an app password for it (posthaste account app-password carol@gmail.com --name laptop):",
    );
    let mut client = submission(&world.gmail, stage.watch_past_tls("carol to mail.gmail.com")).await?;
    let accepted = client.auth_plain(&app).await?;
    client.quit().await?;
    stage.check(
        "with the app password she is in: 235",
        accepted.code == 235,
        || accepted.to_string(),
    );

    let target = world.gmail.target(Service::Imaps, None);
    let mut imap = ImapClient::connect(&target, stage.watch("carol over IMAP"), true).await?;
    let main = imap.login(&world.carol).await?;
    let with_app = imap.login(&app).await?;
    imap.logout().await?;
    stage.check(
        "the same over IMAP: her password alone is refused",
        !main.ok,
        || main.end.clone(),
    );
    stage.check("and the app password accepted", with_app.ok, || {
        with_app.end.clone()
    });
    stage.advice(
        "an account with a second factor keeps its main password for the person; each program gets its own app \
         password, that can be revoked alone: posthaste account app-password carol@gmail.com --name laptop",
    );
    Ok(())
}

async fn app_password(world: &World) -> Result<Login, Broken> {
    let request = Request::AppPasswordAdd {
        address: parse(&world.carol.user)?,
        name: "laptop".to_owned(),
        scopes: ["smtp", "imap", "pop3"].map(str::to_owned).to_vec(),
        lasts_secs: None,
    };
    let Response::Password(made) = world.gmail.perform(request).await? else {
        return Err(Broken::said("making an app password gave something else"));
    };
    let password = made
        .password
        .ok_or_else(|| Broken::said("the app password was not told"))?;
    Ok(Login {
        user: world.carol.user.clone(),
        password: Secret::new(password),
    })
}
