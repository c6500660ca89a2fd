//! What can be wrong with a filter's side of the conversation. One variant a fault.

/// A fault of a filter; after it the conversation is over. [`Fault::OutOfTurn`] is the driver's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A packet longer than the limit was announced.
    #[error("it announced a packet of {0} octets")]
    PacketTooLong(u32),
    /// A packet without a command.
    #[error("it sent an empty packet")]
    EmptyPacket,
    /// An answer that the protocol does not have.
    #[error("it sent an answer of unknown kind 0x{0:02x}")]
    UnknownAnswer(u8),
    /// A packet whose inside does not fit its kind.
    #[error("it sent a malformed answer: {0}")]
    Malformed(&'static str),
    /// A version that is not served: below 2, or above the one that was offered.
    #[error("it speaks version {0} of the protocol; versions 2 to 6 are served")]
    Version(u32),
    /// It wants to do, or to be spared, what was not offered.
    #[error("it asks for {0} that were not offered: 0x{1:x}")]
    NotOffered(&'static str, u32),
    /// An answer that does not belong here, or that nobody asked for.
    #[error("it sent what does not belong here: {0}")]
    Unexpected(&'static str),
    /// A change of a kind that it did not announce.
    #[error("it sent a change that it had not announced: {0}")]
    NotAgreed(&'static str),
    /// More changes than the limit.
    #[error("it sent more than {0} changes")]
    TooManyChanges(usize),
    /// Changes with more octets than the limit.
    #[error("its changes hold too many octets: more than {0}")]
    TooManyOctets(usize),
    /// A header field that cannot be one.
    #[error("it sent a header field that cannot be one: {0}")]
    BadField(&'static str),
    /// An address that is none.
    #[error("it sent an address that is none")]
    BadAddress,
    /// A reply that is none, or that is neither 4xx nor 5xx.
    #[error("it sent a reply for the client that is none of 4xx or 5xx")]
    BadReply,
    /// It says that its own connection failed.
    #[error("it says that its own connection failed")]
    ConnectionFailed,
    /// Our driver asked out of turn.
    #[error("it was asked out of turn (a fault of ours)")]
    OutOfTurn,
}
