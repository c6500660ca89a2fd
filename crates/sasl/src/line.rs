//! How challenges and responses stand in a line of SMTP, IMAP and POP3: in base64.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding is right or missing; both mean the same.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a response. An empty line is the empty response.
#[must_use]
pub fn decode(line: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(line).ok()
}

/// Encodes a challenge or a response.
#[must_use]
pub fn encode(octets: impl AsRef<[u8]>) -> String {
    BASE64.encode(octets)
}
