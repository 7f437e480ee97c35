/// Kinds of packets, and what the fixtures of each end in; one a family and protocol.
pub(super) const CLASSES: [(&str, &str); 12] = [
    ("VIP, ", ": VIP"),
    ("VIP with three backends, ", ": VIP, several backends"),
    ("NodePort, ", ": NodePort"),
    ("VLAN and VIP, ", ": VLAN"),
    ("middle of a connection, ", ": middle of a connection"),
    ("no frontend, ", ": backend directly"),
    ("refused, ", ": VIP, refused"),
    ("ICMP error about ", ": ICMP error"),
    ("later fragment, ", ": later fragment"),
    ("IPv4 options, ", ": options"),
    ("six extension headers, ", ": six extension headers"),
    ("ARP", "ARP"),
];
