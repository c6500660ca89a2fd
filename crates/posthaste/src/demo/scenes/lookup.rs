//! Step 2: gmail.com's server asks the DNS for the MX of example.com and the host's address.

use super::Letters;
use crate::demo::Broken;
use crate::demo::reel::Happening;
use crate::demo::stage::Stage;
use crate::demo::world::{EXAMPLE, GMAIL, World};
use lab::dns::Asked;

pub async fn play(stage: &mut Stage, world: &mut World, letters: &mut Letters) -> Result<(), Broken> {
    let mut questions: Vec<Asked> = Vec::new();
    // The questions are over when the first line is spoken at example.com's server.
    let seen = |happening: &Happening| match happening {
        Happening::Asked { host, asked } if *host == GMAIL.domain => {
            stage.happening(happening);
            questions.push(asked.clone());
            None
        }
        Happening::Line { host, .. } if *host == EXAMPLE.domain => Some(()),
        _ => None,
    };
    world
        .reel
        .follow(letters.mark, "the connection to example.com's server", seen)
        .await?;

    let answered = |name: &str, kind: &str, answer: &str| {
        questions.iter().any(|q| {
            q.name.eq_ignore_ascii_case(name) && q.kind == kind && q.answer.iter().any(|a| a == answer)
        })
    };
    let told = || {
        questions
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let mx = answered(EXAMPLE.domain, "MX", &format!("10 {}", EXAMPLE.hostname));
    stage.check("the MX record names mail.example.com", mx, told);
    let address = answered(EXAMPLE.hostname, "A", &EXAMPLE.ip.to_string());
    stage.check("its A record tells the address", address, told);
    Ok(())
}
