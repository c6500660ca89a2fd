//! The language of SMTP: codec, server session and client session as state machines without I/O.
