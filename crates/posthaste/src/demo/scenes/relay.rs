//! Step 3: the conversation of the two servers, heard at example.com's.

use super::Letters;
use super::letter::queue_id;
use crate::demo::Broken;
use crate::demo::abridge::{Abridged, left_out};
use crate::demo::reel::Happening;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, GMAIL, World};

/// Lines of the message that are shown at its start; signatures make it long.
const HEAD_LINES: usize = 3;
/// And at its end.
const TAIL_LINES: usize = 8;

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
    let mut in_message = false;
    let mut message = Abridged::new(HEAD_LINES, TAIL_LINES);
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
        lines.push((*from_client, text.clone()));
        // Between 354, or BDAT, and the next reply the client's lines are the message.
        if in_message && *from_client {
            if message.take(text) {
                stage.happening(happening);
            }
            return None;
        }
        let (count, tail) = message.end();
        if count > 0 {
            stage.happening(&line(format!("({})", left_out(count))));
        }
        tail.into_iter().for_each(|text| stage.happening(&line(text)));
        stage.happening(happening);
        in_message = match from_client {
            true => text.starts_with("BDAT "),
            false => text.starts_with("354"),
        };
        (!from_client && text.starts_with("221")).then_some(())
    };
    world
        .reel
        .follow(mark, "the end of the conversation between the servers", seen)
        .await?;
    Ok(lines)
}

fn line(text: String) -> Happening {
    Happening::Line {
        host: EXAMPLE.domain,
        session: String::new(),
        from_client: true,
        text,
    }
}
