//! Listeners for IMAP and POP3.
