//! Mailboxes, messages, flags, UIDs and modification sequences.
