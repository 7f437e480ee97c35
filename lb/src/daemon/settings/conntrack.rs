//! What conntrack is to be set to: kube-proxy's rules (`pkg/proxy/conntrack/sysctls.go`). Pure.

use std::time::Duration;

use crate::config::Conntrack;

/// Entries for each CPU add up to no more than this, as on kube-proxy since 1.36. An explicit minimum counts all the same.
const MOST: u64 = 1 << 20;
/// Entries for each bucket of the hash table.
const LOAD: u64 = 4;

/// A setting of conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name, with slashes.
    pub(super) name: &'static str,
    /// Its value.
    pub(super) value: u64,
    /// Whether a higher one is left alone.
    pub(super) at_least: bool,
    /// Why.
    pub(super) reason: &'static str,
}

/// What is wanted on a machine with so many CPUs.
pub(super) fn wanted(options: &Conntrack, cpus: u64) -> Vec<Wanted> {
    let entries = options.max_per_core.filter(|per_core| *per_core > 0).map(|per_core| {
        let scaled = u64::from(per_core).saturating_mul(cpus).min(MOST);
        scaled.max(options.min.unwrap_or_default().into())
    });
    let at_least = |name, value, reason| Wanted { name, value, at_least: true, reason };
    let size = entries.map(|entries| {
        [
            // The other way round the table would be crowded in between.
            at_least("net/netfilter/nf_conntrack_buckets", entries / LOAD, "conntrack finds entries fast"),
            at_least("net/netfilter/nf_conntrack_max", entries, "conntrack has room for many flows"),
        ]
    });
    let timeout = |name, duration: Option<Duration>| {
        let seconds = duration.map_or(0, |duration| duration.as_secs());
        let reason = "idle flows are forgotten as configured";
        (seconds > 0).then_some(Wanted { name, value: seconds, at_least: false, reason })
    };
    let timeouts = [
        timeout("net/netfilter/nf_conntrack_tcp_timeout_established", options.tcp_established_timeout),
        timeout("net/netfilter/nf_conntrack_tcp_timeout_close_wait", options.tcp_close_wait_timeout),
        timeout("net/netfilter/nf_conntrack_udp_timeout", options.udp_timeout),
        timeout("net/netfilter/nf_conntrack_udp_timeout_stream", options.udp_stream_timeout),
    ];
    size.into_iter().flatten().chain(timeouts.into_iter().flatten()).collect()
}

impl Wanted {
    /// Whether a value that was found will do.
    pub(super) fn is_met(&self, found: &str) -> bool {
        found
            .parse()
            .is_ok_and(|found: u64| if self.at_least { found >= self.value } else { found == self.value })
    }
}

/// CPUs that are online, whichever of them this process may use.
pub(super) fn cpus() -> u64 {
    // SAFETY: the call takes no pointer.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u64::try_from(online).unwrap_or_default().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Conntrack = Conntrack {
        max_per_core: None,
        min: None,
        tcp_established_timeout: None,
        tcp_close_wait_timeout: None,
        udp_timeout: None,
        udp_stream_timeout: None,
    };

    fn values(options: &Conntrack, cpus: u64) -> Vec<(&'static str, u64)> {
        let short = |name: &'static str| name.strip_prefix("net/netfilter/nf_conntrack_").unwrap();
        wanted(options, cpus).into_iter().map(|wanted| (short(wanted.name), wanted.value)).collect()
    }

    #[test]
    fn defaults_are_those_of_kube_proxy() {
        let expected = [
            ("buckets", 32_768),
            ("max", 131_072),
            ("tcp_timeout_established", 86_400),
            ("tcp_timeout_close_wait", 3_600),
        ];
        assert_eq!(values(&Conntrack::default(), 2), expected);
    }

    #[test]
    fn room_is_by_cpu_with_a_minimum_and_a_cap() {
        for (per_core, min, cpus, expected) in [
            (Some(32_768), Some(131_072), 1, Some(131_072)),
            (Some(32_768), Some(131_072), 8, Some(262_144)),
            (Some(32_768), Some(131_072), 96, Some(1_048_576)),
            (Some(32_768), Some(2_000_000), 96, Some(2_000_000)),
            (Some(1_000), None, 3, Some(3_000)),
            (Some(u32::MAX), None, u64::MAX, Some(1_048_576)),
            (Some(0), Some(131_072), 8, None),
            (None, Some(131_072), 8, None),
        ] {
            let options = Conntrack { max_per_core: per_core, min, ..NONE };
            let found = values(&options, cpus).into_iter().find(|(name, _)| *name == "max").map(|(_, v)| v);
            assert_eq!(found, expected, "{per_core:?} x {cpus}, {min:?}");
        }
    }

    #[test]
    fn what_is_not_said_is_left_alone() {
        assert_eq!(values(&NONE, 8), []);
        let udp = Conntrack {
            udp_timeout: Some(Duration::from_secs(20)),
            udp_stream_timeout: Some(Duration::ZERO),
            ..NONE
        };
        assert_eq!(values(&udp, 8), [("udp_timeout", 20)]);
    }

    #[test]
    fn room_is_only_ever_raised_and_timeouts_are_exact() {
        let [room, timeout] =
            [true, false].map(|at_least| Wanted { name: "", value: 100, at_least, reason: "" });
        for (found, room_met, timeout_met) in
            [("99", false, false), ("100", true, true), ("101", true, false), ("?", false, false)]
        {
            assert_eq!((room.is_met(found), timeout.is_met(found)), (room_met, timeout_met), "{found}");
        }
    }
}
