//! The proof in small: nothing is lost by cuts, runs can be repeated, and what is broken on purpose
//! is found.
#![allow(clippy::unwrap_used)]

use powercut::era::Setting;
use powercut::{What, hardship, letter::Size, run};
use std::io::ErrorKind;
use store::simulated::Sabotage;

fn whole() -> Setting {
    Setting::default()
}

#[test]
fn nothing_is_lost_by_cuts_and_a_run_can_be_repeated() {
    let run = || run::random(1..=1, 12, whole(), 1, &|_| ());
    let first = run();
    assert!(first.found.is_empty(), "{:?}", first.found);
    let counts = first.counts;
    assert_eq!(counts.cuts, 12);
    assert!(counts.tally.acknowledged > 30, "{counts:?}");
    assert!(counts.tally.compared > 100, "{counts:?}");
    assert_eq!(run().counts, counts, "the same seed, another run");
}

#[test]
fn cuts_at_some_operations_of_the_first_life() {
    let all = run::operations_of(3);
    assert!(all > 100, "{all}");
    for operation in (1..all).step_by(29) {
        let outcome = run::every(3..=3, Some(operation), whole(), 1, &|_| ());
        assert!(outcome.found.is_empty(), "{:?}", outcome.found);
    }
}

fn is_found(setting: Setting) -> What {
    let outcome = run::random(1..=4, 80, setting, 1, &|_| ());
    let found = outcome.found.first().expect("it was not noticed");
    // The command that is printed repeats it.
    let (_, again) = run::repeat(found.seed, found.life, setting);
    assert_eq!(again.unwrap_err(), found.failure);
    found.failure.what
}

#[test]
fn a_disk_that_drops_syncs_is_found() {
    is_found(Setting {
        sabotage: Some(Sabotage::DropSync),
        ..whole()
    });
}

#[test]
fn a_disk_that_drops_the_syncs_of_folders_is_found() {
    is_found(Setting {
        sabotage: Some(Sabotage::DropDirSync),
        ..whole()
    });
}

#[test]
fn a_disk_that_reorders_across_syncs_is_found() {
    is_found(Setting {
        sabotage: Some(Sabotage::Reorder),
        ..whole()
    });
}

#[test]
fn a_server_that_answers_too_early_is_found() {
    is_found(Setting {
        hasty: true,
        ..whole()
    });
}

#[test]
fn an_error_at_any_operation_loses_nothing() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        hardship::error_at_every(5, kind, 31).unwrap();
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    hardship::failed_sync().unwrap();
}

#[test]
fn a_full_disk_answers_452_serves_on_and_recovers_by_itself() {
    hardship::full_disk().unwrap();
}

#[test]
fn a_flipped_bit_is_found_named_and_contained() {
    hardship::flipped_bit(Size::Small).unwrap();
    hardship::flipped_bit(Size::Large).unwrap();
}
