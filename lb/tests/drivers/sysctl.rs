//! Kernel settings in a network namespace other than the initial one.

use portico::driver::sysctl;

use crate::netns::Netns;

#[test]
fn what_all_namespaces_share_cannot_be_set_in_one() {
    Netns::new().run(|| {
        for name in ["net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_buckets"] {
            assert!(sysctl::writable(name).unwrap_err().is_forbidden(), "{name}");
        }
        let name = "net/netfilter/nf_conntrack_udp_timeout";
        sysctl::writable(name).unwrap();
        sysctl::write(name, "20").unwrap();
        assert_eq!(sysctl::read(name).unwrap(), "20");
        assert!(sysctl::writable("net/netfilter/nonesuch").unwrap_err().is_absent());
    });
}
