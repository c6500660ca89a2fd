//! The connection that an exchange runs in, as far as it can be named: channel bindings (RFC 5056).

use std::fmt;

/// What is known of the connection. The default is one without TLS.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Channel {
    /// `tls-exporter` (RFC 9266): 32 octets that only the two ends of this connection know.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 §4): the hash of the certificate that we showed.
    pub end_point: Option<Vec<u8>>,
    /// Whether the client showed a certificate, it was verified, and it names an address.
    pub has_certificate: bool,
}

/// A kind of channel binding that we speak. `tls-unique` is not among them: it is undefined for
/// TLS 1.3 (RFC 9266 §1) and was broken before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// RFC 9266.
    Exporter,
    /// RFC 5929 §4.
    EndPoint,
}

impl Binding {
    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Binding::Exporter => "tls-exporter",
            Binding::EndPoint => "tls-server-end-point",
        }
    }
}

impl Channel {
    /// Whether a mechanism can be bound to it.
    #[must_use]
    pub const fn can_bind(&self) -> bool {
        self.exporter.is_some() || self.end_point.is_some()
    }

    /// The data of the binding with this name; `None` when we don't have it.
    #[must_use]
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        if name == Binding::Exporter.name() {
            return self.exporter.as_ref().map(<[u8; 32]>::as_slice);
        }
        self.end_point
            .as_deref()
            .filter(|_| name == Binding::EndPoint.name())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("exporter", &self.exporter.is_some())
            .field("end_point", &self.end_point.is_some())
            .field("has_certificate", &self.has_certificate)
            .finish()
    }
}
