//! The language of POP3: codec and session as state machines without I/O.
