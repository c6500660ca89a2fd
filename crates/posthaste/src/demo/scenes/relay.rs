//! Step 3: the conversation of the two servers, heard at example.com's.

use super::Letters;
use super::letter::queue_id;
use crate::demo::Broken;
use crate::demo::reel::Happening;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, GMAIL, World};

/// Lines of the message that are shown; signatures make it long.
const MESSAGE_LINES_SHOWN_MAX: usize = 6;

pub async fn play(stage: &mut Stage, world: &mut World, letters: &mut Letters) -> Result<(), Broken> {
    let lines = follow(stage, world, letters.mark).await?;
    let said = |from_client: bool, start: &str| {
        lines
            .iter()
            .any(|(client, text)| *client == from_client && text.starts_with(start))
    };
    let place = |from_client: bool, start: &str| {
        lines
            .iter()
            .position(|(client, text)| *client == from_client && text.starts_with(start))
    };
    let told = || {
        lines
            .iter()
            .map(|(_, text)| text.as_str())
            .collect::<Vec<_>>()
            .join(" / ")
    };

    stage.check(
        "example.com's server greets with its name",
        said(false, &format!("220 {}", EXAMPLE.hostname)),
        told,
    );
    let starttls = place(true, "STARTTLS");
    let mail = place(true, &format!("MAIL FROM:<alice@{}>", GMAIL.domain));
    stage.check(
        "the connection turned to TLS before the sender was told",
        starttls.is_some()
            && mail.is_some()
            && starttls < mail
            && lines.iter().any(|(_, t)| t.contains("TLS handshake")),
        told,
    );
    stage.check(
        "the recipient was accepted",
        place(true, "RCPT TO:<bob@example.com>")
            .and_then(|at| lines[at..].iter().find(|(client, _)| !client))
            .is_some_and(|(_, reply)| reply.starts_with("250")),
        told,
    );
    letters.at_example = lines
        .iter()
        .filter(|(client, text)| !client && text.starts_with("250"))
        .find_map(|(_, text)| queue_id(text));
    stage.check(
        "example.com's server took responsibility: 250, under an id of its own",
        letters.at_example.is_some() && letters.at_example != letters.at_gmail,
        told,
    );
    Ok(())
}

/// The lines of the first session at example.com's server, shown as they come.
async fn follow(stage: &Stage, world: &World, mark: usize) -> Result<Vec<(bool, String)>, Broken> {
    let mut lines: Vec<(bool, String)> = Vec::new();
    let mut first: Option<String> = None;
    let mut message_lines: Option<usize> = None;
    let seen = |happening: &Happening| {
        let Happening::Line {
            host,
            session,
            from_client,
            text,
        } = happening
        else {
            return None;
        };
        if *host != EXAMPLE.domain || session != first.get_or_insert_with(|| session.clone()) {
            return None;
        }
        // Between 354 and the next reply the client's lines are the message.
        match (&mut message_lines, from_client) {
            (Some(count), true) => {
                *count += 1;
                if *count <= MESSAGE_LINES_SHOWN_MAX {
                    stage.happening(happening);
                }
            }
            _ => {
                if let Some(count) = message_lines.take()
                    && count > MESSAGE_LINES_SHOWN_MAX
                {
                    let left_out = count - MESSAGE_LINES_SHOWN_MAX;
                    stage.happening(&remark(format!(
                        "(and {left_out} lines more, up to the one with a dot)"
                    )));
                }
                stage.happening(happening);
            }
        }
        if !from_client && text.starts_with("354") {
            message_lines = Some(0);
        }
        lines.push((*from_client, text.clone()));
        (!from_client && text.starts_with("221")).then_some(())
    };
    world
        .reel
        .follow(mark, "the end of the conversation between the servers", seen)
        .await?;
    Ok(lines)
}

fn remark(text: String) -> Happening {
    Happening::Line {
        host: EXAMPLE.domain,
        session: String::new(),
        from_client: false,
        text,
    }
}
