use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use super::{Converted, address, belongs_elsewhere, name, port, protocol};
use crate::model::{Protocol, Service, ServicePort, TrafficPolicy};

/// A Service; nothing if it has no cluster IP (`ExternalName`, headless), which is how kube-proxy tells that there is
/// nothing to translate, or if its labels say that it is not ours to serve.
///
/// # Errors
/// If it has no valid name, cluster IP or port, or has a cluster IP, port, protocol, type or policy that does not exist.
pub fn service(from: &v1::Service) -> Result<Converted<Service>, String> {
    let name = name::namespaced(&from.metadata)?;
    name::label("metadata.name", &name.name)?;
    if belongs_elsewhere(from.metadata.labels.as_ref()) {
        return Ok(Converted::none());
    }
    let spec = from.spec.as_ref().ok_or("spec is missing")?;
    let kind = spec.type_.as_deref().filter(|t| !t.is_empty()).unwrap_or("ClusterIP");
    let exposed = match kind {
        "ExternalName" => return Ok(Converted::none()),
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|e| !e.is_empty()),
        "NodePort" | "LoadBalancer" => true,
        other => return Err(format!("spec.type: {other:?} is not a type of Service")),
    };
    let listed = listed_cluster_ips(spec);
    if listed.iter().any(|(_, ip)| *ip == "None") {
        return Ok(Converted::none());
    }
    // The API server assigns the one and demands the others, so this is a manifest, or what there is of one.
    if listed.is_empty() {
        return Err("spec.clusterIP is empty, and a Service without cluster IP is not served".to_owned());
    }
    if spec.ports.as_ref().is_none_or(Vec::is_empty) {
        return Err("spec.ports is empty".to_owned());
    }

    let mut defects = Vec::new();
    let mut notes = Vec::new();
    let cluster_ips = cluster_ips(spec, &listed, &mut defects)?;
    let families = Families {
        ipv4: cluster_ips.iter().any(IpAddr::is_ipv4),
        ipv6: cluster_ips.iter().any(IpAddr::is_ipv6),
    };
    let external_ips = spec.external_ips.iter().flatten().enumerate();
    let external_ips = addresses(
        external_ips.map(|(i, ip)| (format!("spec.externalIPs[{i}]"), ip.as_str())),
        families,
        &mut defects,
        &mut notes,
    );
    let load_balancer_ips =
        addresses(ingress(from.status.as_ref())?.into_iter(), families, &mut defects, &mut notes);
    let load_balancer_ips = without_filtered(spec, load_balancer_ips, &mut notes);

    let external_policy = policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref())?;
    let internal_policy = policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref())?;
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" | "None" => {}
        "ClientIP" => notes.push(
            "spec.sessionAffinity: ClientIP is not honoured, a client's connections may go to different endpoints"
                .to_owned(),
        ),
        other => return Err(format!("spec.sessionAffinity: {other:?} is not an affinity (None or ClientIP)")),
    }
    let ports = ports(spec.ports.as_deref().unwrap_or_default(), &mut defects)?;

    let object = (!cluster_ips.is_empty()).then_some(Service {
        name,
        created: from.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()),
        cluster_ips,
        external_ips,
        load_balancer_ips,
        ipv4: families.ipv4,
        ipv6: families.ipv6,
        external_policy: if exposed { external_policy } else { TrafficPolicy::Cluster },
        internal_policy,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: health_check_node_port(spec, external_policy)?,
        ports,
    });
    Ok(Converted { object, defects, notes })
}

/// Of a load balancer that wants to know which nodes have endpoints.
fn health_check_node_port(spec: &v1::ServiceSpec, external: TrafficPolicy) -> Result<Option<u16>, String> {
    let wanted = spec.type_.as_deref() == Some("LoadBalancer") && external == TrafficPolicy::Local;
    let number = spec.health_check_node_port.filter(|number| wanted && *number != 0);
    number.map(|number| port("spec.healthCheckNodePort", number)).transpose()
}

/// Families in which a Service is served: those in which it has a cluster IP, as with kube-proxy.
#[derive(Clone, Copy)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

/// `spec.clusterIPs`, or `spec.clusterIP` if there are none, with their paths.
fn listed_cluster_ips(spec: &v1::ServiceSpec) -> Vec<(String, &str)> {
    let plural = spec.cluster_ips.as_deref().unwrap_or_default();
    let singular = spec.cluster_ip.as_deref().unwrap_or_default();
    let plural = plural.iter().enumerate().map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip.as_str()));
    let listed: Vec<_> = plural.filter(|(_, ip)| !ip.is_empty()).collect();
    match listed.is_empty() {
        true if !singular.is_empty() => vec![("spec.clusterIP".to_owned(), singular)],
        _ => listed,
    }
}

fn cluster_ips(
    spec: &v1::ServiceSpec,
    listed: &[(String, &str)],
    defects: &mut Vec<String>,
) -> Result<Vec<IpAddr>, String> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if let Some(other) = families.iter().find(|f| *f != "IPv4" && *f != "IPv6") {
        return Err(format!("spec.ipFamilies: {other:?} is not an address family (IPv4 or IPv6)"));
    }
    let mut kept: Vec<IpAddr> = Vec::new();
    for (path, text) in listed {
        let address = address::parse(text).ok_or_else(|| format!("{path}: {text:?} is not an IP address"))?;
        let family = address::family(address);
        if let Err(defect) = address::usable(path, text) {
            defects.push(defect);
        } else if !families.is_empty() && !families.iter().any(|f| f == family) {
            defects.push(format!("{path}: {address} is {family}, which is not in spec.ipFamilies"));
        } else if kept.iter().any(|k| k.is_ipv4() == address.is_ipv4()) {
            defects.push(format!("{path}: {address} is a second {family} address"));
        } else {
            kept.push(address);
        }
    }
    Ok(kept)
}

/// The addresses that are served. One of another family than the Service's is no mistake (a load balancer may announce
/// both), but kube-proxy does not serve it and neither do we.
fn addresses<'a>(
    listed: impl Iterator<Item = (String, &'a str)>,
    families: Families,
    defects: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Vec<IpAddr> {
    let mut kept = Vec::new();
    for (path, text) in listed {
        match address::usable(&path, text) {
            Err(defect) => defects.push(defect),
            Ok(address) if kept.contains(&address) => {}
            Ok(address) if if address.is_ipv4() { families.ipv4 } else { families.ipv6 } => {
                kept.push(address);
            }
            Ok(address) => {
                let family = address::family(address);
                notes
                    .push(format!("{path}: {address} is not served, the Service has no {family} cluster IP"));
            }
        }
    }
    kept
}

/// Load-balancer addresses with their paths, without host names and without those at which a proxy of the load
/// balancer's own ends the connections, so that nothing with such a destination is meant for the node.
fn ingress(status: Option<&v1::ServiceStatus>) -> Result<Vec<(String, &str)>, String> {
    let listed = status.and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_deref());
    let mut kept = Vec::new();
    for (i, entry) in listed.unwrap_or_default().iter().enumerate() {
        let path = format!("status.loadBalancer.ingress[{i}]");
        let ip = entry.ip.as_deref().filter(|ip| !ip.is_empty());
        match entry.ip_mode.as_deref().unwrap_or("VIP") {
            "VIP" => kept.extend(ip.map(|ip| (format!("{path}.ip"), ip))),
            "Proxy" => {}
            other => return Err(format!("{path}.ipMode: {other:?} is not a mode (VIP or Proxy)")),
        }
    }
    Ok(kept)
}

/// Leaves out the load-balancer addresses to which `spec.loadBalancerSourceRanges` restricts access. The restriction is
/// not implemented, and serving without it would open to all what is meant for a few. It is no defect of the object:
/// the version before it, without the restriction, must not stay in force.
fn without_filtered(spec: &v1::ServiceSpec, addresses: Vec<IpAddr>, notes: &mut Vec<String>) -> Vec<IpAddr> {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let ranges: Vec<&str> = ranges.iter().map(|r| r.trim()).filter(|r| !r.is_empty()).collect();
    if ranges.is_empty() {
        return addresses;
    }
    let open = |address: &IpAddr| {
        ranges.iter().filter_map(|r| r.split_once('/')).any(|(network, length)| {
            length == "0" && address::parse(network).is_some_and(|n| n.is_ipv4() == address.is_ipv4())
        })
    };
    let (kept, filtered): (Vec<_>, Vec<_>) = addresses.into_iter().partition(open);
    if !filtered.is_empty() {
        let filtered: Vec<_> = filtered.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "spec.loadBalancerSourceRanges is not implemented, so {} stays unserved rather than open to all",
            filtered.join(", ")
        ));
    }
    kept
}

fn policy(path: &str, name: Option<&str>) -> Result<TrafficPolicy, String> {
    match name.unwrap_or_default() {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => Err(format!("{path}: {other:?} is not a policy (Cluster or Local)")),
    }
}

fn ports(from: &[v1::ServicePort], defects: &mut Vec<String>) -> Result<Vec<ServicePort>, String> {
    let mut kept: Vec<(usize, ServicePort)> = Vec::with_capacity(from.len());
    for (i, entry) in from.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let number = port(&format!("{path}.port"), entry.port)?;
        let node_port = entry.node_port.filter(|n| *n != 0);
        let node_port = node_port.map(|n| port(&format!("{path}.nodePort"), n)).transpose()?;
        let name = entry.name.clone().unwrap_or_default();
        if !name.is_empty() {
            name::label(&format!("{path}.name"), &name)?;
        }
        let Some(protocol) = protocol(&format!("{path}.protocol"), entry.protocol.as_deref())? else {
            defects.push(format!("{path}: SCTP is not served"));
            continue;
        };
        let new = ServicePort { name, protocol, port: number, node_port };
        match clash(&kept, &new) {
            Some((first, what)) => defects.push(format!("{path}: spec.ports[{first}] has the same {what}")),
            None => kept.push((i, new)),
        }
    }
    Ok(kept.into_iter().map(|(_, port)| port).collect())
}

/// Which port has the name or a number of `new` already, and which of them.
fn clash(kept: &[(usize, ServicePort)], new: &ServicePort) -> Option<(usize, String)> {
    let same = |protocol: Protocol| protocol == new.protocol;
    kept.iter().filter(|(_, old)| same(old.protocol)).find_map(|(i, old)| {
        let what = if old.port == new.port {
            format!("{} port {}", new.protocol, new.port)
        } else if old.name == new.name {
            format!("name {:?}", new.name)
        } else if old.node_port.is_some() && old.node_port == new.node_port {
            format!("{} nodePort {}", new.protocol, new.node_port.unwrap_or_default())
        } else {
            return None;
        };
        Some((*i, what))
    })
}

#[cfg(test)]
mod tests;
