//! Probes: each step of the way up to RCPT, and what is said where it fails.
#![allow(clippy::unwrap_used)]

mod common;

use common::stage::{FIRST, SECOND, Stage};
use common::{Script, StartTls};
use deliver::probe::{Probed, Prober, Walk};
use deliver::{Login, TlsPolicy};
use mail::Secret;
use std::time::Duration;

async fn probed(stage: &Stage) -> Probed {
    let prober = Prober {
        dialer: stage.net.as_ref(),
        tls: &stage.courier.tls,
        options: &stage.courier.options,
    };
    let letter = &stage.letter;
    prober
        .probe(&stage.plan, &letter.sender, &letter.recipients[0])
        .await
}

/// The steps in short: those that failed have an exclamation mark.
fn steps(walk: &Walk) -> Vec<String> {
    let short = |step: &deliver::probe::Step| {
        let mark = if step.good { "" } else { "!" };
        format!("{}{mark}", step.what)
    };
    walk.steps.iter().map(short).collect()
}

fn status(probed: &Probed) -> String {
    match &probed.verdict {
        Ok(reply) => reply.code.to_string(),
        Err(failure) => failure.status.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_is_taken_and_no_message_is_sent() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.login = None;
    let tls = stage.tls();
    let server = stage.net.put(
        FIRST,
        Script {
            starttls: tls,
            ..Script::default()
        },
    );
    let probed = probed(&stage).await;
    assert_eq!(status(&probed), "250");
    assert_eq!(
        steps(&probed.walks[0]),
        [
            "connect",
            "greeting",
            "EHLO",
            "STARTTLS",
            "TLS handshake",
            "EHLO",
            "MAIL FROM",
            "RCPT TO",
            "RSET",
            "QUIT"
        ]
    );
    assert!(probed.walks[0].tls.is_some());
    assert!(!server.said("DATA") && !server.said("BDAT"));
    assert!(server.messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_is_refused_ends_it() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let nobody = Script {
        replies: vec![("RCPT", "550 5.1.1 nobody")],
        ..Script::default()
    };
    stage.net.put(FIRST, nobody);
    let second = stage.net.put(SECOND, Script::default());
    let probed = probed(&stage).await;
    assert_eq!(status(&probed), "5.1.1");
    assert_eq!(second.connections(), 0);
    let walk = &probed.walks[0];
    assert!(steps(walk).contains(&"RCPT TO!".to_owned()), "{walk:?}");
    let rcpt = walk.steps.iter().find(|step| step.what == "RCPT TO").unwrap();
    assert_eq!(rcpt.said, ["550 5.1.1 nobody"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_later_is_passed_by() {
    let stage = Stage::new(&["bob@example.com"]).await;
    let later = Script {
        replies: vec![("RCPT", "451 4.7.1 greylisted")],
        ..Script::default()
    };
    stage.net.put(FIRST, later.clone());
    stage.net.put(SECOND, Script::default());
    let first = probed(&stage).await;
    assert_eq!((status(&first).as_str(), first.walks.len()), ("250", 2));
    stage.net.put(SECOND, later);
    assert_eq!(status(&probed(&stage).await), "4.7.1");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_is_told_with_the_time_that_it_took() {
    let stage = Stage::new(&["bob@example.com"]).await;
    stage.net.black_holes.lock().unwrap().push(FIRST.parse().unwrap());
    let silent = Script {
        silent_at: Some("EHLO"),
        ..Script::default()
    };
    stage.net.put(SECOND, silent);
    let probed = probed(&stage).await;
    assert_eq!(status(&probed), "4.4.2");
    assert_eq!(steps(&probed.walks[0]), ["connect!"]);
    assert_eq!(
        probed.walks[0].steps[0].ms,
        stage.courier.options.connect_timeout.as_millis() as u64
    );
    let second = &probed.walks[1];
    assert_eq!(steps(second), ["connect", "greeting", "EHLO!"]);
    let waited = Duration::from_millis(second.steps[2].ms);
    assert_eq!(waited, stage.courier.options.timeouts.command);
    assert!(second.failure.as_ref().unwrap().contains("in time"), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_is_shown_and_clear_is_tried_where_a_delivery_would() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.hops.pop();
    let broken = Script {
        starttls: StartTls::Broken,
        ..Script::default()
    };
    stage.net.put(FIRST, broken);
    let probed_once = probed(&stage).await;
    assert_eq!(status(&probed_once), "250");
    assert_eq!(steps(&probed_once.walks[0]).last().unwrap(), "TLS handshake!");
    assert_eq!(steps(&probed_once.walks[1])[0], "connect again, without TLS");

    stage.plan.tls = TlsPolicy::Required;
    let required = probed(&stage).await;
    assert_eq!((status(&required).as_str(), required.walks.len()), ("4.7.5", 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_is_walked_too_and_its_password_is_not_shown() {
    let mut stage = Stage::new(&["bob@example.com"]).await;
    stage.plan.hops.truncate(1);
    stage.plan.hops[0].address = "127.0.0.1:25".parse().unwrap();
    stage.plan.tls = TlsPolicy::Off;
    stage.plan.login = Some(Login {
        user: "us".to_owned(),
        password: Secret::new("hunter2"),
    });
    let script = Script {
        ehlo: vec!["AUTH PLAIN"],
        replies: vec![("AUTH", "535 5.7.8 wrong")],
        ..Script::default()
    };
    stage.net.put("127.0.0.1:25", script);
    let probed = probed(&stage).await;
    assert_eq!(status(&probed), "4.7.8");
    assert_eq!(steps(&probed.walks[0]), ["connect", "greeting", "EHLO", "AUTH!"]);
    assert!(!format!("{probed:?}").contains("hunter2"));
}
