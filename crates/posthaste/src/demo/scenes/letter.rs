//! What the scenes share: the way a mail program submits, and how a stored message is read.

use crate::demo::Broken;
use crate::demo::site::{Service, Site};
use lab::client::{Login, Reply, SmtpClient, Watch};
use mail::QueueId;

/// The name with which alice's program greets.
pub const CLIENT_NAME: &str = "alice-laptop.local";

/// A connection to the submission port, TLS on, greeted again, not yet logged in.
pub async fn submission(site: &Site, watch: Watch) -> Result<SmtpClient, Broken> {
    let mut client = SmtpClient::connect(&site.target(Service::Submission, None), watch, false).await?;
    client.command(&format!("EHLO {CLIENT_NAME}")).await?.ok()?;
    let mut client = client.start_tls().await?;
    client.command(&format!("EHLO {CLIENT_NAME}")).await?.ok()?;
    Ok(client)
}

/// Logs in and submits one message; answers with the reply to its last dot.
pub async fn submit(
    site: &Site,
    watch: Watch,
    login: &Login,
    recipient: &str,
    message: &str,
) -> Result<Reply, Broken> {
    let mut client = submission(site, watch).await?;
    client.auth_plain(login).await?.ok()?;
    client
        .command(&format!("MAIL FROM:<{}>", login.user))
        .await?
        .ok()?;
    client.command(&format!("RCPT TO:<{recipient}>")).await?.ok()?;
    let reply = client.data(message).await?;
    client.quit().await?;
    Ok(reply)
}

/// The queue id that a reply to the last dot tells.
pub fn queue_id(text: &str) -> Option<QueueId> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .find_map(QueueId::parse)
}

/// Header fields of a message with these names, unfolded neither nor decoded, in their order.
pub fn fields(message: &str, names: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut wanted = false;
    for line in message.lines().take_while(|line| !line.is_empty()) {
        let folded = line.starts_with([' ', '\t']);
        if !folded {
            let name = line.split(':').next().unwrap_or_default();
            wanted = names.iter().any(|n| n.eq_ignore_ascii_case(name));
        }
        if wanted {
            found.push(line.to_owned());
        }
    }
    found
}

/// The values of the fields of one name, unfolded.
pub fn values(message: &str, name: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in fields(message, &[name]) {
        match line.starts_with([' ', '\t']) {
            true => {
                if let Some(last) = found.last_mut() {
                    last.push(' ');
                    last.push_str(line.trim());
                }
            }
            false => found.push(line.split_once(':').map_or("", |(_, v)| v.trim()).to_owned()),
        }
    }
    found
}

/// What follows the empty line.
pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "A: 1\r\nB: 2\r\n\t3\r\na: 4\r\n\r\nA: body\r\n";

    #[test]
    fn fields_and_values() {
        assert_eq!(fields(MESSAGE, &["a"]), ["A: 1", "a: 4"]);
        assert_eq!(fields(MESSAGE, &["B"]), ["B: 2", "\t3"]);
        assert_eq!(values(MESSAGE, "b"), ["2 3"]);
        assert_eq!(values(MESSAGE, "C"), Vec::<String>::new());
        assert_eq!(body(MESSAGE), "A: body\r\n");
    }

    #[test]
    fn the_queue_id_is_found_among_words() {
        let id = QueueId(1_795_000_000_000_000 << 12);
        assert_eq!(queue_id(&format!("2.0.0 OK, message queued as {id}")), Some(id));
        assert_eq!(queue_id("2.0.0 OK, message queued"), None);
    }
}
