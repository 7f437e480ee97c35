//! Where established flows are forwarded in XDP.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::text::quote;

/// `--fast-path`: on which interfaces established flows are forwarded in XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPath {
    /// On those that are not named.
    pub on: bool,
    /// On those that are.
    pub interfaces: BTreeMap<String, bool>,
}

impl Default for FastPath {
    fn default() -> Self {
        Self { on: true, interfaces: BTreeMap::new() }
    }
}

impl FastPath {
    /// From its parts, of which later ones count.
    #[must_use]
    pub fn new(parts: impl IntoIterator<Item = FastPathPart>) -> Self {
        let mut fast = Self::default();
        for FastPathPart { interface, on } in parts {
            match interface {
                None => fast.on = on,
                Some(interface) => drop(fast.interfaces.insert(interface, on)),
            }
        }
        fast
    }

    /// Whether it is wanted on an interface.
    #[must_use]
    pub fn wanted(&self, interface: &str) -> bool {
        self.interfaces.get(interface).copied().unwrap_or(self.on)
    }

    /// Whether it is wanted anywhere.
    #[must_use]
    pub fn anywhere(&self) -> bool {
        self.on || self.interfaces.values().any(|on| *on)
    }
}

/// `on`, `off`, `eth0=on`, `eth0=off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPathPart {
    /// None: those that are not named.
    pub interface: Option<String>,
    /// Whether it is wanted.
    pub on: bool,
}

impl FromStr for FastPathPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (interface, state) = match text.rsplit_once('=') {
            Some((interface, state)) => (Some(interface), state),
            None => (None, text),
        };
        let on = match state {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        match (interface, on) {
            (Some(""), _) | (_, None) => {
                Err(format!("{} is none of on, off, INTERFACE=on, INTERFACE=off", quote(text)))
            }
            (interface, Some(on)) => Ok(Self { interface: interface.map(str::to_owned), on }),
        }
    }
}

impl fmt::Display for FastPathPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(interface) = &self.interface {
            write!(f, "{interface}=")?;
        }
        f.write_str(if self.on { "on" } else { "off" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_parts_count_and_names_before_the_rest() {
        let parse = |parts: &[&str]| FastPath::new(parts.iter().map(|part| part.parse().unwrap()));
        assert!(parse(&[]).wanted("eth0"));
        let fast = parse(&["eth0=off", "eth1=on", "off", "eth0=on", "a=b=off"]);
        assert_eq!(["eth0", "eth1", "eth2", "a=b"].map(|name| fast.wanted(name)), [true, true, false, false]);
        assert!(fast.anywhere());
        assert!(!parse(&["off", "eth0=off"]).anywhere());
        for wrong in ["", "eth0", "=on", "eth0=", "eth0=maybe", "ON"] {
            assert!(wrong.parse::<FastPathPart>().is_err(), "{wrong}");
        }
    }
}
