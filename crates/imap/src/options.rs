//! The limits and texts of a session, handed in when it is made.

/// What an operator or a driver may set. The defaults fit a server on the internet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Our name, shown in the greeting.
    pub hostname: String,
    /// Octets of one line (without literals) before login. Default 8,192.
    pub line_octets_max_before_login: usize,
    /// Octets of one line (without literals) after login; long sets need room. Default 65,536.
    pub line_octets_max: usize,
    /// Octets of one literal that is not a message, and of all of a command's together.
    /// Default 65,536; before login 4,096 at most.
    pub literal_octets_max: usize,
    /// Octets of a message in APPEND. Default 52,428,800 (50 MiB).
    pub append_octets_max: u64,
    /// Failed logins before the connection ends. Default 3.
    pub login_failures_max: u32,
    /// Commands that could not be read or were out of place, in a row, before the connection ends.
    /// Default 20.
    pub bad_commands_max: u32,
    /// Whether LOGIN and AUTHENTICATE are allowed without TLS. Default no (RFC 3501 §11.1).
    pub allow_plaintext_login: bool,
    /// The mechanisms of AUTHENTICATE. What the connection does not allow is left out of the offer; see
    /// [`sasl::Mechanisms::on`]. Default: all that need nothing but an account.
    pub mechanisms: sasl::Mechanisms,
    /// Whether STARTTLS can be offered. Default yes.
    pub starttls: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            line_octets_max_before_login: 8_192,
            line_octets_max: 65_536,
            literal_octets_max: 65_536,
            append_octets_max: 50 * 1024 * 1024,
            login_failures_max: 3,
            bad_commands_max: 20,
            allow_plaintext_login: false,
            mechanisms: sasl::Mechanisms::default(),
            starttls: true,
        }
    }
}
