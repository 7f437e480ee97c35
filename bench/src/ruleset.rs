//! Rulesets of the structure that kube-proxy gives its own, in its nftables and its iptables mode, for services without
//! affinity, source ranges or policies.

use std::{fmt::Write as _, net::IpAddr};

use crate::scene::objects::{Family, PORT, Services, TARGET};

/// For `nft -f`: a verdict map picks the service's chain, that picks an endpoint's chain at random, that translates.
pub(crate) fn nft(services: &Services) -> String {
    let address = match services.family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    };
    let (ip, protocol) = (ip(services.family), services.protocol());
    let mut text = format!(
        "table {ip} kube-proxy {{\n\
         \x20 chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}\n\
         \x20 chain masquerading {{\n\
         \x20   meta mark & 0x4000 == 0 return\n\
         \x20   meta mark set meta mark ^ 0x4000\n\
         \x20   masquerade fully-random\n\
         \x20 }}\n"
    );
    // Writing to a `String` does not fail.
    for service in 0..services.number {
        chains(&mut text, services, service);
    }
    let elements = (0..services.number)
        .map(|n| format!("{} . {protocol} . {PORT} : goto service-{n}", services.address(n)))
        .collect::<Vec<_>>()
        .join(", ");
    let _ = write!(
        text,
        "\x20 map service-ips {{\n\
         \x20   type {address} . inet_proto . inet_service : verdict\n\
         \x20   elements = {{ {elements} }}\n\
         \x20 }}\n\
         \x20 map service-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         \x20 set nodeport-ips {{ type {address}; }}\n\
         \x20 map no-endpoint-services {{ type {address} . inet_proto . inet_service : verdict; }}\n\
         \x20 map firewall-ips {{ type {address} . inet_proto . inet_service : verdict; }}\n\
         \x20 chain services {{\n\
         \x20   {ip} daddr . meta l4proto . th dport vmap @service-ips\n\
         \x20   {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n\
         \x20 }}\n\
         \x20 chain service-endpoints-check {{ {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}\n\
         \x20 chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}\n\
         \x20 chain filter-prerouting {{\n\
         \x20   type filter hook prerouting priority -110\n\
         \x20   ct state new jump firewall-check\n\
         \x20 }}\n\
         \x20 chain filter-forward {{\n\
         \x20   type filter hook forward priority -110\n\
         \x20   ct state new jump service-endpoints-check\n\
         \x20 }}\n\
         \x20 chain filter-output {{\n\
         \x20   type filter hook output priority -110\n\
         \x20   ct state new jump service-endpoints-check\n\
         \x20   ct state new jump firewall-check\n\
         \x20 }}\n\
         \x20 chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         \x20 chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         \x20 chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}\n\
         }}\n"
    );
    text
}

const fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// A service's chain and those of its endpoints.
fn chains(text: &mut String, services: &Services, service: u32) {
    let (ip, protocol) = (ip(services.family), services.protocol());
    // Writing to a `String` does not fail.
    for (n, endpoint) in services.endpoints(service).enumerate() {
        let to = socket(endpoint, TARGET);
        let _ = writeln!(
            text,
            "  chain endpoint-{service}-{n} {{ {ip} saddr {endpoint} jump mark-for-masquerade; meta l4proto \
             {protocol} dnat to {to}; }}"
        );
    }
    let _ = writeln!(text, "  chain service-{service} {{");
    if services.masquerade {
        let vip = services.address(service);
        let _ = writeln!(text, "    {ip} daddr {vip} {protocol} dport {PORT} jump mark-for-masquerade");
    }
    let endpoints = (0..services.endpoints).map(|n| format!("{n} : goto endpoint-{service}-{n}"));
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "    numgen random mod {} vmap {{ {endpoints} }}\n  }}", services.endpoints);
}

/// The transaction, for `nft -f`, by which the first service has other endpoints than `before`: its chain and those of
/// endpoints are emptied and written anew, those of endpoints that are gone are deleted.
pub(crate) fn nft_change(before: &Services, after: &Services) -> String {
    let ip = ip(after.family);
    let mut text = String::new();
    // What does not exist cannot be emptied; what exists can be added.
    let all = (0..before.endpoints.max(after.endpoints)).map(|n| format!("endpoint-0-{n}"));
    for chain in all.chain(["service-0".to_owned()]) {
        let _ = writeln!(text, "add chain {ip} kube-proxy {chain}\nflush chain {ip} kube-proxy {chain}");
    }
    let _ = writeln!(text, "table {ip} kube-proxy {{");
    chains(&mut text, after, 0);
    let _ = writeln!(text, "}}");
    for n in after.endpoints..before.endpoints {
        let _ = writeln!(text, "delete chain {ip} kube-proxy endpoint-0-{n}");
    }
    text
}

/// For `iptables-restore`: a rule for each service, one for each endpoint that takes its share of what is left.
pub(crate) fn iptables(services: &Services) -> String {
    let protocol = services.protocol();
    let bits = match services.family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let mut chains =
        String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n");
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for service in 0..services.number {
        let vip = services.address(service);
        let _ = writeln!(chains, ":KUBE-SVC-{service} - [0:0]");
        let _ = writeln!(
            rules,
            "-A KUBE-SERVICES -d {vip}/{bits} -p {protocol} -m {protocol} --dport {PORT} -j KUBE-SVC-{service}"
        );
        if services.masquerade {
            let _ = writeln!(
                rules,
                "-A KUBE-SVC-{service} -d {vip}/{bits} -p {protocol} -m {protocol} --dport {PORT} -j KUBE-MARK-MASQ"
            );
        }
        for (n, endpoint) in (0..).zip(services.endpoints(service)) {
            let left = services.endpoints - n;
            let share = if left > 1 {
                format!("-m statistic --mode random --probability {:.10} ", 1.0 / f64::from(left))
            } else {
                String::new()
            };
            let to = socket(endpoint, TARGET);
            let _ = writeln!(chains, ":KUBE-SEP-{service}-{n} - [0:0]");
            let _ = writeln!(rules, "-A KUBE-SVC-{service} {share}-j KUBE-SEP-{service}-{n}");
            let _ = writeln!(
                rules,
                "-A KUBE-SEP-{service}-{n} -s {endpoint}/{bits} -j KUBE-MARK-MASQ\n\
                 -A KUBE-SEP-{service}-{n} -p {protocol} -m {protocol} -j DNAT --to-destination {to}"
            );
        }
    }
    format!("{chains}{rules}COMMIT\n")
}

fn socket(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Services =
        Services { family: Family::V4, udp: false, number: 2, endpoints: 3, masquerade: true };

    #[test]
    fn nft_leads_from_address_to_service_to_endpoint() {
        let text = nft(&TWO);
        assert!(text.contains("10.0.1.1 . tcp . 80 : goto service-1"), "{text}");
        assert!(text.contains(
            "numgen random mod 3 vmap { 0 : goto endpoint-1-0, 1 : goto endpoint-1-1, 2 : goto endpoint-1-2 }"
        ));
        assert!(text.contains(
            "chain endpoint-1-2 { ip saddr 172.16.1.5 jump mark-for-masquerade; meta l4proto tcp dnat to \
             172.16.1.5:8080; }"
        ));
        assert!(text.contains("ip daddr 10.0.1.0 tcp dport 80 jump mark-for-masquerade"));
        assert!(!nft(&Services { masquerade: false, ..TWO }).contains("dport 80 jump"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn nft_changes_endpoints_in_one_transaction() {
        let one = Services { number: 1, ..TWO };
        let text = nft_change(&one, &Services { endpoints: 2, ..one });
        assert!(text.contains("flush chain ip kube-proxy service-0\n"), "{text}");
        assert!(text.contains("numgen random mod 2 vmap"));
        assert!(text.ends_with("}\ndelete chain ip kube-proxy endpoint-0-2\n"));
        let text = nft_change(&one, &Services { endpoints: 4, ..one });
        assert!(text.starts_with("add chain ip kube-proxy endpoint-0-0\n"));
        assert!(text.contains("add chain ip kube-proxy endpoint-0-3\n") && !text.contains("delete"));
    }

    #[test]
    fn nft_writes_ipv6_targets_in_brackets() {
        let text = nft(&Services { family: Family::V6, udp: true, ..TWO });
        assert!(text.contains("meta l4proto udp dnat to [fd17::1:0]:8080"), "{text}");
        assert!(text.contains("type ipv6_addr . inet_proto . inet_service : verdict"));
    }

    #[test]
    fn iptables_gives_each_endpoint_its_share_of_what_is_left() {
        let text = iptables(&TWO);
        let shares: Vec<_> =
            text.lines().filter(|line| line.starts_with("-A KUBE-SVC-0") && line.contains("SEP")).collect();
        assert_eq!(
            shares,
            [
                "-A KUBE-SVC-0 -m statistic --mode random --probability 0.3333333333 -j KUBE-SEP-0-0",
                "-A KUBE-SVC-0 -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-0-1",
                "-A KUBE-SVC-0 -j KUBE-SEP-0-2",
            ]
        );
        assert!(text.ends_with("COMMIT\n"));
    }
}
