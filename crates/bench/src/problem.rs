//! What can go wrong in the bench, as one sentence for the person at the terminal.
//!
//! Promises: the sentence says what was tried, why it failed and, where we know, what to change.
//! Never: a panic on anything that comes from outside.

/// A sentence that ends the command.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub String);

/// What everything in the bench answers.
pub type Outcome<T> = Result<T, Problem>;

/// Says what was tried when something fails.
pub trait Trying<T> {
    /// The error becomes `what: error`.
    ///
    /// # Errors
    /// Whenever `self` is one.
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: std::fmt::Display> Trying<T> for Result<T, E> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Problem(format!("{}: {error}", what())))
    }
}

/// Refuses addresses that are not on loopback: the bench never loads another machine.
///
/// # Errors
/// When `address` is not a loopback address.
pub fn only_loopback(address: std::net::SocketAddr) -> Outcome<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(Problem(format!(
        "{address} is not a loopback address: the bench stays on this machine; use 127.0.0.1 or ::1"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loaded() {
        assert!(only_loopback("127.0.0.1:25".parse().unwrap()).is_ok());
        assert!(only_loopback("127.9.9.9:25".parse().unwrap()).is_ok());
        assert!(only_loopback("[::1]:25".parse().unwrap()).is_ok());
        for far in ["192.0.2.1:25", "0.0.0.0:25", "[2001:db8::1]:25", "[::]:25"] {
            let refusal = only_loopback(far.parse().unwrap()).unwrap_err();
            assert!(refusal.to_string().contains("loopback"), "{refusal}");
        }
    }
}
