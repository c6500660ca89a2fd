//! The bits that both sides agree on before anything else: what a filter may change, and which
//! steps it wants to be spared, or not to answer.

/// What a filter may do to a message, as bits.
pub mod actions {
    /// Add header fields.
    pub const ADD_HEADERS: u32 = 0x01;
    /// Replace the body.
    pub const CHANGE_BODY: u32 = 0x02;
    /// Add recipients.
    pub const ADD_RECIPIENTS: u32 = 0x04;
    /// Remove recipients.
    pub const REMOVE_RECIPIENTS: u32 = 0x08;
    /// Change and remove header fields.
    pub const CHANGE_HEADERS: u32 = 0x10;
    /// Ask for quarantine.
    pub const QUARANTINE: u32 = 0x20;
    /// Change the reverse-path.
    pub const CHANGE_SENDER: u32 = 0x40;
    /// Add recipients with ESMTP parameters.
    pub const ADD_RECIPIENTS_WITH_PARAMETERS: u32 = 0x80;
    /// Say which macros it wants at which stage.
    pub const CHOOSE_MACROS: u32 = 0x100;
    /// All that this crate serves, which is all that version 6 has.
    pub const ALL: u32 = 0x1ff;
}

/// Steps of the protocol that a filter wants to be spared (NO) or not to answer (NR), as bits.
pub mod steps {
    /// Not told of the connection.
    pub const NO_CONNECT: u32 = 0x01;
    /// Not told of HELO.
    pub const NO_HELO: u32 = 0x02;
    /// Not told of MAIL.
    pub const NO_MAIL: u32 = 0x04;
    /// Not told of RCPT.
    pub const NO_RCPT: u32 = 0x08;
    /// Not given the body.
    pub const NO_BODY: u32 = 0x10;
    /// Not given the header fields.
    pub const NO_HEADERS: u32 = 0x20;
    /// Not told where the header section ends.
    pub const NO_END_OF_HEADER: u32 = 0x40;
    /// Does not answer header fields.
    pub const NR_HEADER: u32 = 0x80;
    /// Not told of unknown commands.
    pub const NO_UNKNOWN: u32 = 0x100;
    /// Not told of DATA.
    pub const NO_DATA: u32 = 0x200;
    /// May answer "skip" to a piece of the body.
    pub const SKIP: u32 = 0x400;
    /// Told of recipients that were refused, too.
    pub const REFUSED_RECIPIENTS: u32 = 0x800;
    /// Does not answer the connection.
    pub const NR_CONNECT: u32 = 0x1000;
    /// Does not answer HELO.
    pub const NR_HELO: u32 = 0x2000;
    /// Does not answer MAIL.
    pub const NR_MAIL: u32 = 0x4000;
    /// Does not answer RCPT.
    pub const NR_RCPT: u32 = 0x8000;
    /// Does not answer DATA.
    pub const NR_DATA: u32 = 0x1_0000;
    /// Does not answer unknown commands.
    pub const NR_UNKNOWN: u32 = 0x2_0000;
    /// Does not answer the end of the header section.
    pub const NR_END_OF_HEADER: u32 = 0x4_0000;
    /// Does not answer pieces of the body.
    pub const NR_BODY: u32 = 0x8_0000;
    /// Values of header fields keep the white space behind the colon, both ways.
    pub const LEADING_SPACE: u32 = 0x10_0000;
    /// All that this crate serves. Packets over 64 KiB are not.
    pub const ALL: u32 = 0x1f_ffff;
}

/// The version that is offered.
pub const VERSION: u32 = 6;
/// The lowest version that is served.
pub const VERSION_MIN: u32 = 2;

/// What both sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The filter's version, which counts.
    pub version: u32,
    /// Bits of [`actions`].
    pub actions: u32,
    /// Bits of [`steps`].
    pub steps: u32,
}
