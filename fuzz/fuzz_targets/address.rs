//! Reads arbitrary bytes as an address wherever one is read: alone, in MAIL and RCPT, in a header field,
//! as ORCPT.
#![no_main]

use mail::EmailAddress;
use mail::delivery::OriginalRecipient;
use smtp::command::{self, Command};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mail::mime::addresses(data);
    for (before, behind) in [
        ("MAIL FROM:<", "> SIZE=1"),
        ("RCPT TO:<", ">"),
        ("RCPT TO:<a@b.c> ORCPT=", ""),
    ] {
        let line = [before.as_bytes(), data, behind.as_bytes()].concat();
        if let Ok(Command::Rcpt(rcpt)) = command::parse(&line)
            && let mail::Recipient::Address(address) = rcpt.recipient
        {
            round(&address);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(address) = EmailAddress::parse(text) {
        round(&address);
    }
    if let Some(original) = OriginalRecipient::parse(text) {
        assert_eq!(OriginalRecipient::parse(&original.to_string()), Some(original));
    }
});

/// What is written is read back as the same, and fits on one line.
fn round(address: &EmailAddress) {
    let text = address.to_string();
    assert!(!text.chars().any(|c| c.is_control()), "{text:?}");
    assert_eq!(EmailAddress::parse(&text).as_ref(), Ok(address));
}
