//! Orders about blocks and about what accounts may send in a day.

use super::Office;
use crate::words::{BlockOrder, LimitOrder, Refusal, Response, SuppressionOrder};
use limits::{Block, OwnDaily, Subject};
use mail::{EmailAddress, date};
use std::time::Duration;

/// Who makes the blocks that are ordered here.
const BY_OPERATOR: &str = "operator";
/// A block lasts this long at most: ten years.
const BLOCK_SECS_MAX: u64 = 3_660 * 86_400;

impl Office {
    pub(super) async fn block(&self, order: BlockOrder) -> Result<Response, Refusal> {
        let now = self.clock.now();
        match order {
            BlockOrder::List => {
                let mut blocks = self.limits.blocks().await?;
                blocks.retain(|b| b.until > now);
                Ok(Response::Blocks(blocks))
            }
            BlockOrder::Add { subject, secs, why } => {
                if !(1..=BLOCK_SECS_MAX).contains(&secs) {
                    return Err(Refusal::invalid("a block lasts from a second to ten years"));
                }
                if why.chars().any(char::is_control) {
                    return Err(Refusal::invalid("the reason holds control characters"));
                }
                let block = Block {
                    subject,
                    from: now,
                    until: now.plus(Duration::from_secs(secs)),
                    why,
                    by: BY_OPERATOR.to_owned(),
                };
                let done = format!(
                    "{} is blocked until {}",
                    block.subject,
                    date::iso8601(block.until)
                );
                self.limits.block(block, now).await?;
                Ok(Response::Done(done))
            }
            BlockOrder::Remove { subject } => self.lift(&subject).await,
        }
    }

    async fn lift(&self, subject: &Subject) -> Result<Response, Refusal> {
        if self.limits.lift(subject).await? {
            return Ok(Response::Done(format!("{subject} is not blocked any more")));
        }
        Err(Refusal::not_found(format!(
            "{subject} is not blocked; see: posthaste block list"
        )))
    }

    pub(super) async fn suppression(&self, order: SuppressionOrder) -> Result<Response, Refusal> {
        match order {
            SuppressionOrder::List { behind } => {
                let behind = behind.as_ref().map(|(s, r)| (s.as_str(), r.as_str()));
                Ok(Response::Suppressed(self.limits.suppressions(behind).await?))
            }
            SuppressionOrder::Find { login, address } => {
                let found = self.limits.suppressed(&login, &address, self.clock.now()).await?;
                Ok(Response::Suppressed(found.into_iter().collect()))
            }
            SuppressionOrder::Remove { address, sender } => {
                match self.limits.unsuppress(sender.as_deref(), &address).await? {
                    0 => Err(Refusal::not_found(format!(
                        "{address} is not suppressed; see: posthaste suppression list"
                    ))),
                    1 => Ok(Response::Done(format!("{address} is not suppressed any more"))),
                    n => Ok(Response::Done(format!(
                        "{address} is not suppressed any more, for {n} senders"
                    ))),
                }
            }
        }
    }

    pub(super) async fn limit_account(
        &self,
        address: &EmailAddress,
        order: LimitOrder,
    ) -> Result<Response, Refusal> {
        let account = self.account(address).await?;
        let now = self.clock.now();
        match order {
            LimitOrder::Show => {}
            LimitOrder::Default => self.limits.set_own(account.id, OwnDaily::default()).await?,
            LimitOrder::Set {
                messages,
                first_recipients,
            } => {
                let own = self.limits.today(account.id, now).await?.own;
                let own = OwnDaily {
                    messages: messages.or(own.messages),
                    first_recipients: first_recipients.or(own.first_recipients),
                };
                self.limits.set_own(account.id, own).await?;
            }
        }
        Ok(Response::Today {
            address: account.address,
            today: self.limits.today(account.id, now).await?,
        })
    }
}

impl From<limits::Error> for Refusal {
    fn from(error: limits::Error) -> Self {
        match error {
            limits::Error::TooManyBlocks(_) => Self::invalid(error.to_string()),
            _ => Self::failed(error),
        }
    }
}
