//! Domains, accounts, aliases, credentials and app passwords.
