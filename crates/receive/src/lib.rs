//! Listeners for SMTP and submission: drives smtp sessions, gathers evidence, commits.
