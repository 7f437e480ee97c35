//! Ways for a packet through the gateway.

use std::time::Duration;

use clap::ValueEnum;

/// What forwards packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Variant {
    /// The gateway's XDP program drops: what the generator itself costs.
    Drop,
    /// The gateway's XDP program redirects to one neighbour: the least that forwarding costs.
    Redirect,
    /// Portico, established flows in XDP.
    FastPath,
    /// The same without its cache of verdicts.
    FastPathUncached,
    /// Portico: XDP decides, the kernel translates and forwards.
    XdpDecides,
    /// Portico without XDP.
    TcOnly,
    /// The kernel forwards by its routes; no conntrack, no translation.
    Route,
    /// Rules as kube-proxy's nftables mode has them.
    Nftables,
    /// Rules as its iptables mode has them.
    Iptables,
    /// kube-proxy itself in its nftables mode, if PORTICO_BENCH_KUBE_PROXY names its binary.
    KubeProxy,
}

impl Variant {
    pub(crate) const ALL: [Self; 10] = [
        Self::Drop,
        Self::Redirect,
        Self::FastPath,
        Self::FastPathUncached,
        Self::XdpDecides,
        Self::TcOnly,
        Self::Route,
        Self::Nftables,
        Self::Iptables,
        Self::KubeProxy,
    ];

    /// For tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "XDP_DROP",
            Self::Redirect => "bare XDP_REDIRECT",
            Self::FastPath => "Portico, fast path",
            Self::FastPathUncached => "Portico, fast path, no cache",
            Self::XdpDecides => "Portico, XDP decides",
            Self::TcOnly => "Portico, tc only",
            Self::Route => "kernel, routing alone",
            Self::Nftables => "nftables as kube-proxy's",
            Self::Iptables => "iptables as kube-proxy's",
            Self::KubeProxy => "kube-proxy, nftables",
        }
    }

    /// Whether it looks at conntrack, so that flows have to be established.
    pub(crate) const fn tracks(self) -> bool {
        !matches!(self, Self::Drop | Self::Redirect | Self::Route)
    }

    /// Whether `portico run` does it.
    pub(crate) const fn is_portico(self) -> bool {
        matches!(self, Self::FastPath | Self::FastPathUncached | Self::XdpDecides | Self::TcOnly)
    }

    /// How long a turn of established flows takes: at least so long. What was learned of a flow is trusted for a second, so
    /// a shorter turn would see more of the first questions or less of the later ones than there are.
    pub(crate) fn turn(self, least: Duration) -> Duration {
        if self == Self::FastPath { least.max(TRUST) } else { least }
    }

    /// Options of `portico run` for it; those that the binary knows, where they only say what it does anyway.
    pub(crate) fn options(self, help: &str) -> Vec<&'static str> {
        let wanted: &[[&'static str; 2]] = match self {
            Self::FastPath => &[["--fast-path", "on"]],
            Self::FastPathUncached => &[["--fast-path", "on"], ["--flow-cache", "0"]],
            Self::XdpDecides | Self::TcOnly => &[["--fast-path", "off"]],
            _ => &[],
        };
        let known = wanted.iter().filter(|[flag, value]| *value != "off" || knows(help, flag));
        known.copied().flatten().collect()
    }

    /// Why it cannot be measured with this `portico`, given its `run --help`.
    pub(crate) fn lacks(self, help: &str) -> Option<String> {
        let needed: &[&str] = match self {
            Self::FastPath => &["--fast-path"],
            Self::FastPathUncached => &["--fast-path", "--flow-cache"],
            _ => &[],
        };
        let missing: Vec<_> = needed.iter().copied().filter(|flag| !knows(help, flag)).collect();
        (!missing.is_empty()).then(|| format!("portico run has no {}", missing.join(" and no ")))
    }
}

/// For how long Portico's cache trusts what it learned.
const TRUST: Duration = Duration::from_secs(1);

/// Whether a help text has an option.
pub(crate) fn knows(help: &str, flag: &str) -> bool {
    help.split_whitespace()
        .any(|word| word.trim_end_matches([',', ']']).split(['=', '[']).next() == Some(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "Options:\n      --xdp <MODE>\n";
    const NEW: &str =
        "Options:\n      --fast-path <MODE>  see --flow-cached\n      --flow-cache[=<SWITCH>]\n";

    #[test]
    fn variants_need_what_the_help_offers() {
        assert_eq!(
            Variant::FastPathUncached.lacks(OLD).as_deref(),
            Some("portico run has no --fast-path and no --flow-cache")
        );
        assert_eq!(Variant::FastPathUncached.lacks(NEW), None);
        assert_eq!(Variant::XdpDecides.lacks(OLD), None);
    }

    #[test]
    fn what_is_not_offered_needs_no_switching_off() {
        assert!(Variant::XdpDecides.options(OLD).is_empty());
        assert_eq!(Variant::XdpDecides.options(NEW), ["--fast-path", "off"]);
        assert_eq!(Variant::FastPathUncached.options(NEW), ["--fast-path", "on", "--flow-cache", "0"]);
    }
}
