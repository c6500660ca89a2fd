//! Certificates (files, self-signed), SNI, reload, and how a peer is verified.
