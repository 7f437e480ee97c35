//! What a process must be allowed to do. Asked first, because the errors of whatever is refused later do not tell.

use std::{fs, io};

/// Capabilities with their numbers. `CAP_SYS_ADMIN` includes `CAP_BPF` and `CAP_PERFMON`, and is there to make the network
/// namespace in which the form that the kernel gives to rules is learnt.
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Names of the capabilities that this process lacks.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn missing() -> io::Result<Vec<&'static str>> {
    Ok(missing_in(&fs::read_to_string("/proc/self/status")?))
}

fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    NEEDED.iter().filter(|(_, number)| effective & (1 << number) == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        for (mask, missing) in [
            ("000001ffffffffff", vec![]),
            ("0000000000201000", vec![]),
            ("0000000000200000", vec!["CAP_NET_ADMIN"]),
            ("000000c000001000", vec!["CAP_SYS_ADMIN"]),
            ("0000000000000000", vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]),
        ] {
            let status = format!("Name:\tportico\nCapPrm:\t0\nCapEff:\t{mask}\nCapBnd:\t0\n");
            assert_eq!(missing_in(&status), missing, "{mask}");
        }
    }
}
