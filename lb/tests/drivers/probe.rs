//! The probe tells whether translation is active and leaves nothing behind.

use portico::driver::{
    conntrack,
    nft::{Family, Nft},
    probe::{Translation, probe},
};

use crate::netns::Netns;

fn probes(netns: &Netns, nft: &Nft) -> [Translation; 2] {
    let probes = netns.run(|| Family::ALL.map(|family| probe(nft, family).unwrap()));
    assert_eq!(netns.run(|| conntrack::flows().unwrap()), []);
    assert_eq!(netns.sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null"), "");
    probes
}

#[test]
fn translation_is_active_until_somebody_interferes() {
    let netns = Netns::new();
    // The worst that can be set for a packet that is not dropped.
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        netns.sysctl(name, "1");
    }
    let nft = Nft::new();
    assert_eq!(probes(&netns, &nft), [Translation::Inactive, Translation::Inactive]);
    for damage in [
        "nft flush chain inet portico translate",
        "nft flush map inet portico backends4; nft flush map inet portico backends6",
        "nft flush chain inet portico settle",
        "nft flush ruleset",
    ] {
        netns.run(|| nft.ensure().unwrap());
        assert_eq!(probes(&netns, &nft), [Translation::Active, Translation::Active]);
        netns.sh(damage);
        assert_eq!(probes(&netns, &nft), [Translation::Inactive, Translation::Inactive], "{damage}");
    }
}

#[test]
fn a_family_can_fail_alone() {
    let netns = Netns::new();
    let nft = Nft::new();
    netns.run(|| nft.ensure().unwrap());
    netns.sh("nft flush map inet portico backends4");
    assert_eq!(probes(&netns, &nft), [Translation::Inactive, Translation::Active]);
}

#[test]
fn it_says_what_keeps_it_from_knowing() {
    let netns = Netns::new();
    let nft = Nft::new();
    netns.run(|| nft.ensure().unwrap());
    netns.sysctl("ipv6/conf/lo/disable_ipv6", "1");
    let [v4, v6] = probes(&netns, &nft);
    assert_eq!(v4, Translation::Active);
    assert_eq!(v6, Translation::Unknown("IPv6 is disabled on the loopback interface".to_owned()));
    netns.sysctl("ipv6/conf/lo/disable_ipv6", "0");
    netns.sh("ip link set lo down");
    let down = Translation::Unknown("the loopback interface is down".to_owned());
    assert_eq!(probes(&netns, &nft), [down.clone(), down]);
}
