//! Kubernetes manifests for the laboratory, written the way a deployment tool should: whole files, moved into place.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    LabError,
    addr::{self, Family, Pair},
    topology::Backend,
};

/// Namespace of all objects.
pub const NAMESPACE: &str = "lab";
/// Name of the gateway's Node object.
pub const NODE: &str = "gateway";

/// A Service with its endpoints. `Default` is a `ClusterIP` Service without addresses or ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Name, in [`NAMESPACE`].
    pub name: String,
    /// `spec.type`.
    pub kind: Kind,
    /// `spec.clusterIPs`.
    pub cluster_ip: Option<Pair>,
    /// `status.loadBalancer.ingress`.
    pub load_balancer: Option<Pair>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `spec.ports`; those of the EndpointSlices follow from them.
    pub ports: Vec<Port>,
    /// `spec.externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// `spec.sessionAffinity: ClientIP`.
    pub client_ip_affinity: bool,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<String>,
    /// `metadata.annotations`.
    pub annotations: Vec<(String, String)>,
    /// Endpoints; an EndpointSlice a family is made of them.
    pub endpoints: Vec<Endpoint>,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `ClusterIP`.
    #[default]
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As the API spells it.
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// On the service's addresses.
    pub port: u16,
    /// On the node's addresses.
    pub node_port: Option<u16>,
    /// Of the endpoints.
    pub target: u16,
}

impl Port {
    /// TCP and UDP on one port, towards the laboratory's servers.
    #[must_use]
    pub fn both(port: u16, node_port: Option<u16>) -> Vec<Self> {
        [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]
            .map(|(name, protocol)| Self {
                name: name.to_owned(),
                protocol,
                port,
                node_port,
                target: Backend::PORT,
            })
            .to_vec()
    }
}

/// An endpoint, or rather one a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Pair,
    /// `nodeName`.
    pub node: String,
    /// `conditions.ready`.
    pub ready: bool,
}

impl From<&Backend> for Endpoint {
    fn from(backend: &Backend) -> Self {
        Self { addresses: backend.addresses, node: format!("node-of-{}", backend.name), ready: true }
    }
}

impl Service {
    /// A dual-stack Service of type `LoadBalancer` with a cluster address, a load-balancer address, and a port that
    /// is served over TCP and UDP there and as a NodePort.
    #[must_use]
    pub fn full(name: &str, n: u8, port: u16, node_port: u16) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::LoadBalancer,
            cluster_ip: Some(addr::cluster_ip(n)),
            load_balancer: Some(addr::vip(n)),
            ports: Port::both(port, Some(node_port)),
            ..Self::default()
        }
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these backends as its only endpoints.
    #[must_use]
    pub fn with<'a>(mut self, backends: impl IntoIterator<Item = &'a Backend>) -> Self {
        self.endpoints = backends.into_iter().map(Endpoint::from).collect();
        self
    }

    /// The Service object.
    #[must_use]
    pub fn service(&self) -> Value {
        let ports: Vec<_> = self.ports.iter().map(service_port).collect();
        let kind = match self.kind {
            Kind::ClusterIp => "ClusterIP",
            Kind::NodePort => "NodePort",
            Kind::LoadBalancer => "LoadBalancer",
        };
        let mut spec = json!({ "type": kind, "ports": ports });
        if let Some(pair) = self.cluster_ip {
            spec["clusterIP"] = json!(pair.v4);
            spec["clusterIPs"] = json!(pair.both());
            spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
            spec["ipFamilyPolicy"] = json!("RequireDualStack");
        }
        if !self.external_ips.is_empty() {
            spec["externalIPs"] = json!(self.external_ips);
        }
        if self.external_local {
            spec["externalTrafficPolicy"] = json!("Local");
        }
        if let Some(port) = self.health_check_node_port {
            spec["healthCheckNodePort"] = json!(port);
        }
        if self.client_ip_affinity {
            spec["sessionAffinity"] = json!("ClientIP");
        }
        if !self.source_ranges.is_empty() {
            spec["loadBalancerSourceRanges"] = json!(self.source_ranges);
        }
        let ingress: Vec<_> =
            self.load_balancer.iter().flat_map(|p| p.both()).map(|ip| json!({ "ip": ip })).collect();
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "namespace": NAMESPACE, "name": self.name },
            "spec": spec,
        });
        for (name, value) in &self.annotations {
            service["metadata"]["annotations"][name] = json!(value);
        }
        if !ingress.is_empty() {
            service["status"] = json!({ "loadBalancer": { "ingress": ingress } });
        }
        service
    }

    /// Its EndpointSlice of a family.
    #[must_use]
    pub fn slice(&self, family: Family) -> Value {
        let (kind, suffix) = match family {
            Family::V4 => ("IPv4", "ipv4"),
            Family::V6 => ("IPv6", "ipv6"),
        };
        let endpoint = |e: &Endpoint| {
            json!({
                "addresses": [e.addresses.of(family)],
                "conditions": { "ready": e.ready },
                "nodeName": e.node,
            })
        };
        let port = |p: &Port| json!({ "name": p.name, "protocol": p.protocol.name(), "port": p.target });
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE,
                "name": format!("{}-{suffix}", self.name),
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": kind,
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    }
}

fn service_port(port: &Port) -> Value {
    let mut value = json!({
        "name": port.name,
        "protocol": port.protocol.name(),
        "port": port.port,
        "targetPort": port.target,
    });
    if let Some(node_port) = port.node_port {
        value["nodePort"] = json!(node_port);
    }
    value
}

/// The gateway's Node object.
#[must_use]
pub fn node() -> Value {
    let address = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": NODE },
        "status": { "addresses": addr::GATEWAY.both().map(address) },
    })
}

/// A directory of manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    /// In an existing directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes the gateway's Node to `node.yaml`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_node(&self) -> Result<(), LabError> {
        self.put_objects("node.yaml", &[node()])
    }

    /// Writes a Service and its EndpointSlices to `<name>.yaml`, replacing what was there.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put(&self, service: &Service) -> Result<(), LabError> {
        let [v4, v6] = Family::ALL.map(|family| service.slice(family));
        self.put_objects(&format!("{}.yaml", service.name), &[service.service(), v4, v6])
    }

    /// Writes objects as YAML documents.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_objects(&self, file: &str, objects: &[Value]) -> Result<(), LabError> {
        let text = serde_saphyr::to_string_multiple(objects)
            .map_err(|e| LabError::Parse { what: format!("objects for {file}"), text: e.to_string() })?;
        self.put_text(file, &text)
    }

    /// Writes any text, so that a reader sees the old file or the new one and nothing between.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put_text(&self, file: &str, text: &str) -> Result<(), LabError> {
        let temporary = self.directory.join(format!(".{file}.new"));
        let path = self.directory.join(file);
        fs::write(&temporary, text).map_err(LabError::file("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(LabError::file("move into place", path))
    }

    /// Removes the file of a Service.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), LabError> {
        let path = self.directory.join(format!("{name}.yaml"));
        fs::remove_file(&path).map_err(LabError::file("remove", path))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        core::v1::{Node, Service as V1Service},
        discovery::v1::EndpointSlice,
    };

    use super::*;

    #[test]
    fn objects_are_what_kubernetes_understands() {
        let mut service = Service::full("web", 1, 80, 30080);
        service.external_ips = addr::vip(9).both().to_vec();
        service.source_ranges = vec!["198.51.100.0/24".to_owned()];
        service.endpoints =
            vec![Endpoint { addresses: addr::backend(1), node: "n".to_owned(), ready: false }];

        let v1: V1Service = serde_json::from_value(service.service()).unwrap();
        let spec = v1.spec.unwrap();
        assert_eq!(spec.cluster_ips.unwrap(), ["192.0.2.1", "2001:db8:c1::1"]);
        assert_eq!(spec.external_ips.unwrap(), ["203.0.113.9", "2001:db8:1b::9"]);
        let ports = spec.ports.unwrap();
        let ports: Vec<_> = ports.iter().map(|p| (p.protocol.as_deref(), p.port, p.node_port)).collect();
        assert_eq!(ports, [(Some("TCP"), 80, Some(30080)), (Some("UDP"), 80, Some(30080))]);
        let ingress = v1.status.unwrap().load_balancer.unwrap().ingress.unwrap();
        assert_eq!(ingress.first().unwrap().ip.as_deref(), Some("203.0.113.1"));

        for (family, kind, address) in
            [(Family::V4, "IPv4", "198.18.1.2"), (Family::V6, "IPv6", "2001:db8:b:1::2")]
        {
            let slice: EndpointSlice = serde_json::from_value(service.slice(family)).unwrap();
            assert_eq!(slice.address_type, kind);
            let endpoint = slice.endpoints.first().unwrap();
            assert_eq!(endpoint.addresses, [address]);
            assert_eq!(endpoint.conditions.as_ref().unwrap().ready, Some(false));
        }
        let node: Node = serde_json::from_value(node()).unwrap();
        assert_eq!(node.status.unwrap().addresses.unwrap().len(), 2);
    }

    #[test]
    fn files_replace_each_other_whole() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = Manifests::new(directory.path());
        let service = Service::full("web", 1, 80, 30080);
        manifests.put_node().unwrap();
        manifests.put(&service).unwrap();
        let text = fs::read_to_string(directory.path().join("web.yaml")).unwrap();
        assert_eq!(text.matches("\n---\n").count(), 2, "{text}");
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["node.yaml", "web.yaml"]);
        manifests.remove("web").unwrap();
        assert_eq!(names(), ["node.yaml"]);
    }
}
