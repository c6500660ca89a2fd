//! The parts of the demo in the order in which they play: the five steps, then what goes wrong.
//!
//! Each part lives in its own file and does what its title says, for real.

mod blocklisted;
mod forged;
mod journeys;
mod judgement;
mod letter;
mod lookup;
mod no_tls;
mod outage;
mod password;
mod relay;
mod retrieval;
mod second_factor;
mod submission;

use super::Broken;
use super::stage::Stage;
use super::world::World;
use mail::QueueId;

/// One part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Submission,
    Lookup,
    Relay,
    Judgement,
    Retrieval,
    Journeys,
    Forged,
    Blocklisted,
    Outage,
    Password,
    SecondFactor,
    NoTls,
}

/// All parts, in order. Later ones build on what earlier ones left in `Letters`.
pub const PARTS: &[Part] = &[
    Part::Submission,
    Part::Lookup,
    Part::Relay,
    Part::Judgement,
    Part::Retrieval,
    Part::Journeys,
    Part::Forged,
    Part::Blocklisted,
    Part::Outage,
    Part::Password,
    Part::SecondFactor,
    Part::NoTls,
];

/// What earlier parts leave for later ones.
#[derive(Default)]
pub struct Letters {
    /// Where the reel stood before alice's first message was sent.
    pub mark: usize,
    /// Under which id gmail.com's server took it.
    pub at_gmail: Option<QueueId>,
    /// Under which id example.com's server took it.
    pub at_example: Option<QueueId>,
    /// Its Message-ID, with the brackets.
    pub message_id: Option<String>,
}

impl Part {
    /// For machines.
    pub fn id(self) -> &'static str {
        match self {
            Part::Submission => "step-1",
            Part::Lookup => "step-2",
            Part::Relay => "step-3",
            Part::Judgement => "step-4",
            Part::Retrieval => "step-5",
            Part::Journeys => "journey",
            Part::Forged => "forged",
            Part::Blocklisted => "blocklisted",
            Part::Outage => "outage",
            Part::Password => "password",
            Part::SecondFactor => "second-factor",
            Part::NoTls => "no-tls",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Part::Submission => "Alice composes and sends",
            Part::Lookup => "gmail.com asks the DNS where example.com's mail goes",
            Part::Relay => "SMTP from server to server",
            Part::Judgement => "example.com judges who sent it, and stores it",
            Part::Retrieval => "Bob retrieves it over IMAP and POP3",
            Part::Journeys => "The journey, told by both servers",
            Part::Forged => "Rejected: a forged alice@gmail.com",
            Part::Blocklisted => "Rejected: a sender on a blocklist",
            Part::Outage => "Connection refused: example.com's server is down",
            Part::Password => "Authentication failed: wrong password",
            Part::SecondFactor => "Authentication failed: an app password is needed",
            Part::NoTls => "Authentication failed: TLS is required",
        }
    }

    /// Plays it.
    pub async fn play(
        self,
        stage: &mut Stage,
        world: &mut World,
        letters: &mut Letters,
    ) -> Result<(), Broken> {
        match self {
            Part::Submission => submission::play(stage, world, letters).await,
            Part::Lookup => lookup::play(stage, world, letters).await,
            Part::Relay => relay::play(stage, world, letters).await,
            Part::Judgement => judgement::play(stage, world, letters).await,
            Part::Retrieval => retrieval::play(stage, world).await,
            Part::Journeys => journeys::play(stage, world, letters).await,
            Part::Forged => forged::play(stage, world).await,
            Part::Blocklisted => blocklisted::play(stage, world).await,
            Part::Outage => outage::play(stage, world).await,
            Part::Password => password::play(stage, world).await,
            Part::SecondFactor => second_factor::play(stage, world).await,
            Part::NoTls => no_tls::play(stage, world).await,
        }
    }
}
