//! IMAP sessions whose login is taken away while they are open.
#![allow(clippy::unwrap_used)]

mod imap_world;

use imap_world::{NOW, World};
use mailbox::Flags;

const LOGIN_OVER: &str = "* BYE Your login has ended, log in again";

#[tokio::test]
async fn a_login_that_is_taken_away_ends_the_session_in_idle_too() {
    for change in ["suspension", "password", "second factor", "removal"] {
        let world = World::new(|_| {}).await;
        let (mut quiet, mut idle) = (world.log_in().await, world.log_in().await);
        idle.ask("a", "SELECT INBOX").await;
        idle.send(b"b IDLE\r\n").await;
        assert_eq!(idle.line().await, "+ Idling");
        let (d, bob) = (&world.directory, world.bob);
        d.set_display_name(bob, "Bob").await.unwrap();
        assert_eq!(quiet.ask("a", "NOOP").await, ["a OK Done"], "not for a name");
        let done = match change {
            "suspension" => d.suspend(bob).await,
            "password" => d.set_password(bob, None).await,
            "second factor" => {
                let secret = d.new_totp_secret().unwrap();
                d.set_second_factor(bob, Some(secret)).await
            }
            _ => d.remove_account(bob).await,
        };
        done.unwrap();
        for mut client in [quiet, idle] {
            assert_eq!(client.line().await, LOGIN_OVER, "{change}");
            assert_eq!(client.try_line().await, None);
        }
    }
}

#[tokio::test]
async fn a_revoked_app_password_ends_its_own_sessions_only() {
    let world = World::new(|_| {}).await;
    let (d, bob) = (&world.directory, world.bob);
    let phone = d.add_app_password(bob, "phone", directory::Scopes::ALL, NOW);
    let phone = phone.await.unwrap();
    let mut main = world.log_in().await;
    let mut by_phone = world.connect();
    by_phone.line().await;
    let login = format!("LOGIN bob@example.com \"{}\"", phone.password.expose());
    assert!(by_phone.ask("a", &login).await[0].starts_with("a OK"));
    d.revoke_app_password(bob, phone.record.id).await.unwrap();
    assert_eq!(by_phone.line().await, LOGIN_OVER);
    assert_eq!(by_phone.try_line().await, None);
    assert_eq!(main.ask("b", "NOOP").await, ["b OK Done"]);
}

#[tokio::test]
async fn commands_sent_ahead_end_with_the_login() {
    let world = World::new(|_| {}).await;
    let body = "0123456789abcde\r\n".repeat(20_000);
    let message = format!("Subject: big\r\n\r\n{body}");
    world.deliver(&message, Flags::NONE, None).await;
    let mut client = world.log_in().await;
    client.ask("a", "SELECT INBOX").await;
    client
        .send(b"b FETCH 1 BODY.PEEK[TEXT]\r\nc CREATE later\r\n")
        .await;
    // The message is far more than the pipe holds, so the next command waits.
    client.line().await;
    world.directory.suspend(world.bob).await.unwrap();
    client.octets(body.len()).await;
    assert_eq!(client.line().await, ")");
    assert_eq!(client.line().await, "b OK Fetched");
    assert_eq!(client.line().await, LOGIN_OVER);
    let later = world.mailboxes.by_name(world.bob, "later").await.unwrap();
    assert!(later.is_none());
}
