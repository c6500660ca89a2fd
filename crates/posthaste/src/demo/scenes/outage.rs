//! example.com's server is down: gmail.com's server keeps the message and delivers it later.

use super::letter::{queue_id, submit};
use crate::demo::Broken;
use crate::demo::reel::{Happening, NeverHappened, PATIENCE};
use crate::demo::site::Site;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, World};
use admin::words::{QueueDo, QueueOrder, QueueRow};
use admin::{Request, Response};
use mail::QueueId;
use std::time::Duration;

const MESSAGE: &str =
    "From: alice@gmail.com\nTo: bob@example.com\nSubject: Are you there?\n\nBob, did you get my message?\n";
/// How often the queue is looked at while its state must change.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub async fn play(stage: &mut Stage, world: &mut World) -> Result<(), Broken> {
    let before = world.inbox_of_bob().await?.len();
    world.example.stop().await;
    stage.remark("example.com's server is stopped. Alice writes again; her own server takes the message:");
    let watch = stage.watch_past_tls("alice to mail.gmail.com");
    let reply = submit(&world.gmail, watch, &world.alice, "bob@example.com", MESSAGE).await?;
    let id = reply.lines.iter().find_map(|line| queue_id(line));
    stage.check("accepted with 250", reply.code == 250 && id.is_some(), || {
        reply.to_string()
    });
    let id = id.ok_or_else(|| Broken::said("the reply tells no queue id"))?;

    let waiting = wait_for_attempt(&world.gmail, id).await?;
    stage.found(
        &format!("gmail.com's queue (posthaste queue show {id}):"),
        &in_words(&waiting),
    );
    let outcome = waiting
        .errands
        .first()
        .and_then(|e| e.last_outcome.clone())
        .unwrap_or_default();
    stage.check(
        "the first attempt met: connection refused",
        outcome.to_lowercase().contains("refused"),
        || outcome.clone(),
    );
    let planned = waiting.errands.first().is_some_and(|e| e.next_attempt.is_some());
    stage.check(
        "the message waits in the queue, and the next attempt has its time",
        planned,
        String::new,
    );

    let mark = world.reel.mark();
    world.example.start().await?;
    stage.remark("example.com's server is back. Nobody has to do anything, but who will not wait says:");
    stage.remark(&format!("posthaste queue retry {id}"));
    let retry = QueueOrder::about(id, QueueDo::Retry);
    world.gmail.perform(Request::Queue(Box::new(retry))).await?;
    let delivered = |happening: &Happening| match happening {
        Happening::Line {
            host,
            from_client: false,
            text,
            ..
        } if *host == EXAMPLE.domain && text.starts_with("250") => {
            queue_id(text).inspect(|_| stage.happening(happening))
        }
        _ => None,
    };
    world
        .reel
        .follow(mark, "the delivery after the outage", delivered)
        .await?;
    wait_until_gone(&world.gmail, id).await?;
    let messages = world.inbox_of_bob().await?;
    let copies = messages
        .iter()
        .filter(|m| m.contains("Subject: Are you there?"))
        .count();
    stage.check(
        "Bob has it, exactly once",
        copies == 1 && messages.len() == before + 1,
        || format!("{copies} copies, {} messages", messages.len()),
    );
    stage.check(
        "gmail.com's queue is empty again",
        queue_of(&world.gmail).await?.is_empty(),
        String::new,
    );
    stage.advice(
        "connection refused means that nothing listens there: start the server, open port 25 in its firewall, \
         or correct the MX record. The sender need not write again: the queue tries for five days.",
    );
    Ok(())
}

fn in_words(row: &QueueRow) -> Vec<String> {
    let mut lines = vec![format!("{} from {}, {} octets", row.id, row.from, row.octets)];
    for errand in &row.errands {
        lines.push(format!(
            "to {}: {}, {} attempt(s)",
            errand.to, errand.state, errand.attempts
        ));
        lines.extend(
            errand
                .last_outcome
                .iter()
                .map(|outcome| format!("last: {outcome}")),
        );
        lines.extend(
            errand
                .next_attempt
                .iter()
                .map(|at| format!("next: {}", mail::date::rfc5322(*at))),
        );
    }
    lines
}

async fn queue_of(site: &Site) -> Result<Vec<QueueRow>, Broken> {
    let all = Request::QueueList {
        filter: Box::default(),
        limit: admin::office::QUEUE_ROWS_MAX,
    };
    match site.perform(all).await? {
        Response::Queue(page) => Ok(page.rows),
        _ => Err(Broken::said("asking for the queue gave something else")),
    }
}

/// Looks at the message in the queue until `look` is content.
async fn watch_queue<T>(
    site: &Site,
    id: QueueId,
    what: &'static str,
    look: impl Fn(Option<QueueRow>) -> Option<T>,
) -> Result<T, Broken> {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    let looking = async {
        loop {
            clock.tick().await;
            let row = queue_of(site).await?.into_iter().find(|row| row.id == id);
            if let Some(found) = look(row) {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .map_err(|_| NeverHappened(what))?
}

/// The queue's entry after the first attempt.
async fn wait_for_attempt(site: &Site, id: QueueId) -> Result<QueueRow, Broken> {
    let tried = |row: Option<QueueRow>| {
        row.filter(|row| {
            row.errands
                .iter()
                .any(|e| e.attempts > 0 && e.last_outcome.is_some())
        })
    };
    watch_queue(site, id, "the first attempt", tried).await
}

async fn wait_until_gone(site: &Site, id: QueueId) -> Result<(), Broken> {
    watch_queue(site, id, "the end of the errand", |row| {
        row.is_none().then_some(())
    })
    .await
}
