//! After each cut: everything is looked at, and held against the ledger.

use crate::failure::{Failure, What};
use crate::house::{House, PEOPLE};
use crate::ledger::Ledger;
use crate::sight::{self, Look};
use std::sync::{Mutex, PoisonError};

/// Looks at every mailbox and at the queue, and lets the ledger settle.
///
/// # Errors
/// What can't be read or is not whole. Everything else is among the ledger's failures.
pub async fn after_cut(house: &House, ledger: &Mutex<Ledger>) -> Result<(), Failure> {
    let with =
        |work: &mut dyn FnMut(&mut Ledger)| work(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner));
    let mut unanswered = Default::default();
    let mut accounts = Vec::new();
    with(&mut |ledger| {
        unanswered = ledger.unanswered();
        accounts = PEOPLE.map(|name| ledger.account(name)).to_vec();
    });
    for (person, account) in accounts.into_iter().enumerate() {
        // An account that was not made yet has got nothing either.
        let Some(account) = account else { continue };
        let there = house.directory.account(account).await;
        if there
            .map_err(|error| Failure::unreadable("an account", &error))?
            .is_none()
        {
            let about = format!("the account of person {person}");
            return Err(Failure::new(What::Lost, about));
        }
        let sights = sight::mailboxes(house, ledger, person, account, Look::AtAll).await?;
        with(&mut |ledger| ledger.shown(person, &sights));
    }
    let open = sight::queue(house, ledger, Look::AtAll).await?;
    with(&mut |ledger| {
        ledger.queue_shows(&open);
        ledger.count_kept(&unanswered);
        // Those whose place is in a mailbox came to be promised when it was shown.
        ledger.settle();
    });
    Ok(())
}
