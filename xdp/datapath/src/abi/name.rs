use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest `namespace/name:port/PROTO`: three DNS labels of 63 bytes (a Service's name is one), three separators and
/// a protocol, rounded up.
const BYTES: usize = 200;

/// The name of a service port, `namespace/name:port/tcp`, kept in the kernel so that what is there can be read with
/// names while no daemon runs, and so that a restarted daemon gives each service port the id it had.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
pub struct Name([u8; BYTES]);

impl Name {
    /// The name, or none if it does not fit.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    /// The text; empty if the bytes are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(BYTES);
        self.0.get(..end).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

super::pod!(Name);
