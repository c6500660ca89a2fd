//! The journey of alice's message as each server recorded it: what `posthaste trace` answers.

use super::Letters;
use crate::demo::Broken;
use crate::demo::site::Site;
use crate::demo::stage::Stage;
use crate::demo::world::World;
use admin::words::Told;
use admin::{Request, Response};

pub async fn play(stage: &mut Stage, world: &mut World, letters: &mut Letters) -> Result<(), Broken> {
    let message_id = letters
        .message_id
        .clone()
        .ok_or_else(|| Broken::said("the Message-ID is not known"))?;
    for (site, id) in [
        (&world.gmail, letters.at_gmail),
        (&world.example, letters.at_example),
    ] {
        let host = site.identity.hostname;
        let told = trace(site, &message_id).await?;
        stage.check(
            &format!("{host} finds the journey by the Message-ID alone"),
            told.len() == 1 && Some(told[0].id) == id,
            || format!("{} journeys for {message_id}, the id is {id:?}", told.len()),
        );
        for one in told {
            let lines: Vec<String> = one.text.lines().map(str::to_owned).collect();
            let steps = one.story["steps"].as_array().map_or(0, Vec::len);
            stage.found(&format!("{host} tells (posthaste trace '{message_id}'):"), &lines);
            stage.check(
                &format!("{host} tells it from its arrival to its end"),
                steps >= 2,
                || format!("{steps} steps"),
            );
        }
    }
    Ok(())
}

async fn trace(site: &Site, what: &str) -> Result<Vec<Told>, Broken> {
    match site
        .perform(Request::Trace {
            what: what.to_owned(),
            limit: 5,
        })
        .await?
    {
        Response::Stories(stories) => Ok(stories),
        _ => Err(Broken::said("asking for the journey gave something else")),
    }
}
