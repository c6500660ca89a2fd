//! The language of IMAP: codec and session as state machines without I/O.
