//! Step 4: SPF, DKIM and DMARC as example.com's server judged them, read in bob's stored message.

use super::Letters;
use super::letter::{body, fields, values};
use crate::demo::Broken;
use crate::demo::reel::Happening;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, GMAIL, World};

/// The fields that prove the judgement, in the order in which they are shown.
const PROOF: [&str; 6] = [
    "Return-Path",
    "Authentication-Results",
    "Received-SPF",
    "DKIM-Signature",
    "Date",
    "Message-ID",
];

pub async fn play(stage: &mut Stage, world: &mut World, letters: &mut Letters) -> Result<(), Broken> {
    stage.remark("Before it answered, example.com's server asked the DNS about the sender:");
    for happening in world.reel.since(letters.mark) {
        if matches!(&happening, Happening::Asked { host, .. } if *host == EXAMPLE.domain) {
            stage.happening(&happening);
        }
    }
    let messages = world.inbox_of_bob().await?;
    stage.check(
        "exactly one message is in Bob's INBOX",
        messages.len() == 1,
        || messages.len().to_string(),
    );
    let message = messages
        .first()
        .ok_or_else(|| Broken::said("Bob's INBOX is empty"))?;
    stage.found("In the message, as it is stored:", &fields(message, &PROOF));
    letters.message_id = values(message, "Message-ID").into_iter().next();

    let results = values(message, "Authentication-Results").join("; ");
    let ours = results.starts_with(EXAMPLE.hostname);
    for (method, text) in [
        ("spf=pass", "SPF pass: gmail.com lets this address send"),
        ("dkim=pass", "DKIM pass: signed by gmail.com, not changed since"),
        ("dmarc=pass", "DMARC pass: both speak for the domain in From"),
    ] {
        stage.check(text, ours && results.contains(method), || results.clone());
    }
    let spf = values(message, "Received-SPF").join(" ");
    stage.check(
        "Received-SPF says the same",
        spf.to_ascii_lowercase().starts_with("pass"),
        || spf.clone(),
    );
    let signatures = values(message, "DKIM-Signature");
    let passed = results.matches("dkim=pass").count();
    stage.check(
        "each of its signatures was verified",
        passed == signatures.len(),
        || results.clone(),
    );
    let signed = |algorithm: &str| {
        signatures
            .iter()
            .any(|s| s.contains(&format!("d={}", GMAIL.domain)) && s.contains(algorithm))
    };
    stage.check(
        "it carries gmail.com's signatures, RSA and Ed25519",
        signed("a=rsa-sha256") && signed("a=ed25519-sha256"),
        || signatures.join(" / "),
    );
    let trace = values(message, "Received");
    stage.check(
        "two Received fields tell the way: ESMTPSA at gmail.com, ESMTPS at example.com",
        trace.len() == 2 && trace[0].contains("with ESMTPS ") && trace[1].contains("with ESMTPSA"),
        || trace.join(" / "),
    );
    stage.check(
        "the missing Date and Message-ID were added",
        !values(message, "Date").is_empty() && letters.message_id.is_some(),
        String::new,
    );
    stage.check(
        "the text is Alice's, to the letter",
        body(message) == "Hi Bob, how are you?\r\n",
        || format!("{:?}", body(message)),
    );
    Ok(())
}
