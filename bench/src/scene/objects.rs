//! Services of the data-path scenes: their addresses, and manifests for Portico.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lab::manifest::NAMESPACE;

/// The port on which services listen.
pub(crate) const PORT: u16 = 80;
/// The one on which their endpoints do.
pub(crate) const TARGET: u16 = 8080;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Services there are, all with the same number of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    pub(crate) family: Family,
    pub(crate) udp: bool,
    pub(crate) number: u32,
    pub(crate) endpoints: u32,
    /// Clients' addresses are replaced.
    pub(crate) masquerade: bool,
}

impl Services {
    /// `tcp` or `udp`.
    pub(crate) const fn protocol(&self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }

    /// A service's address: consecutive, as the generator wants them.
    pub(crate) fn address(&self, service: u32) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::from_bits(0x0a00_0100 + service).into(),
            Family::V6 => Ipv6Addr::from_bits((0xfd10 << 112) + 0x1_0000 + u128::from(service)).into(),
        }
    }

    /// Addresses of a service's endpoints, no other service's.
    pub(crate) fn endpoints(&self, service: u32) -> impl Iterator<Item = IpAddr> {
        let (family, first) = (self.family, service * self.endpoints);
        (first..first + self.endpoints).map(move |n| match family {
            Family::V4 => Ipv4Addr::from_bits(0xac10_0100 + n).into(),
            Family::V6 => Ipv6Addr::from_bits((0xfd17 << 112) + 0x1_0000 + u128::from(n)).into(),
        })
    }

    /// All of them as manifests.
    pub(crate) fn manifests(&self) -> String {
        let mut text = String::new();
        for service in 0..self.number {
            self.manifest(&mut text, service);
        }
        text
    }

    fn manifest(&self, text: &mut String, service: u32) {
        let (address, protocol) = (self.address(service), self.protocol().to_uppercase());
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        // Writing to a `String` does not fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: service-{service}\n  namespace: {NAMESPACE}\n\
             spec:\n  type: ClusterIP\n  clusterIP: '{address}'\n  clusterIPs: ['{address}']\n  ipFamilies: \
             [{family}]\n  ports:\n  - {{ name: main, protocol: {protocol}, port: {PORT}, targetPort: {TARGET} }}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: service-{service}-1\n  \
             namespace: {NAMESPACE}\n  labels:\n    kubernetes.io/service-name: service-{service}\naddressType: \
             {family}\nports:\n- {{ name: main, protocol: {protocol}, port: {TARGET} }}\nendpoints:\n"
        );
        for endpoint in self.endpoints(service) {
            let _ = write!(
                text,
                "- addresses: ['{endpoint}']\n  conditions: {{ ready: true }}\n  nodeName: elsewhere\n"
            );
        }
    }
}
