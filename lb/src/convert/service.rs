use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1;

use super::{Remarks, Selector, address, address::Unfit, guard::guard, name, port, protocol};
use crate::{
    model::{
        Family, PerFamily, Protocol, Service, ServicePort, TrafficPolicy, address::network, change::Converted,
    },
    text::quote,
};

/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` where it is not given, in seconds, as the API server has it.
const AFFINITY: u32 = 10_800;
/// The longest that the API server allows.
const MAX_AFFINITY: u32 = 86_400;

/// A Service; nothing if it has no cluster IP (`ExternalName`, headless), which is how kube-proxy tells that there is
/// nothing to translate, or if it is another proxy's to serve.
///
/// Its type decides about policies and the health check alone: as with kube-proxy, NodePorts, external and load-balancer
/// addresses are served if they are there.
///
/// # Errors
/// If it has no valid name, cluster IPs or ports, or has a type, family, policy or affinity that does not exist.
pub fn service(from: &v1::Service, selector: &Selector) -> Result<Converted<Service>, String> {
    let name = name::namespaced(&from.metadata)?;
    name::label("metadata.name", &name.name)?;
    if !selector.selects(from.metadata.labels.as_ref()) {
        return Ok(Converted::none());
    }
    let spec = from.spec.as_ref().ok_or("spec is missing")?;
    let kind = spec.type_.as_deref().filter(|t| !t.is_empty()).unwrap_or("ClusterIP");
    let exposed = match kind {
        "ExternalName" => return Ok(Converted::none()),
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|e| !e.is_empty()),
        "NodePort" | "LoadBalancer" => true,
        other => return Err(format!("spec.type: {} is not a type of Service", quote(other))),
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

    let mut remarks = Remarks::default();
    let cluster_ips = cluster_ips(spec, &listed, &mut remarks)?;
    // Those in which it has a cluster IP, as with kube-proxy.
    let families = PerFamily::from_fn(|family| cluster_ips.iter().any(|ip| Family::of(*ip) == family));
    let external_ips = spec.external_ips.iter().flatten().enumerate();
    let external_ips = external_ips.map(|(i, ip)| {
        let path = format!("spec.externalIPs[{i}]");
        let address = address::usable(&path, ip);
        (path, address)
    });
    let external_ips = addresses(external_ips, families, &mut remarks);
    let announced = ingress(from.status.as_ref(), &mut remarks).into_iter().map(|(path, ip)| {
        let address = address::announced(&path, ip);
        (path, address)
    });
    let load_balancer_ips = addresses(announced, families, &mut remarks);
    let listed_ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let (source_ranges, load_balancer_ips) = match source_ranges(listed_ranges, &mut remarks) {
        Some(ranges) => (ranges, load_balancer_ips),
        None => (Vec::new(), withhold(load_balancer_ips, &mut remarks)),
    };

    let external_policy = policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref())?;
    let external_policy = if exposed { external_policy } else { TrafficPolicy::Cluster };
    let internal_policy = policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref())?;
    let affinity = affinity(spec, &mut remarks)?;
    let needs_health_check = kind == "LoadBalancer" && external_policy == TrafficPolicy::Local;
    let health_check_node_port =
        spec.health_check_node_port.filter(|port| needs_health_check && *port != 0).and_then(|number| {
            port("spec.healthCheckNodePort", number).map_err(|defect| remarks.defects.push(defect)).ok()
        });
    let guard = guard(from.metadata.annotations.as_ref(), &mut remarks);
    let ports = ports(spec.ports.as_deref().unwrap_or_default(), &mut remarks);

    let nothing_left = cluster_ips.is_empty() || (ports.is_empty() && !remarks.defects.is_empty());
    let object = (!nothing_left).then_some(Service {
        name,
        created: from.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second()),
        cluster_ips,
        external_ips,
        load_balancer_ips,
        families,
        external_policy,
        internal_policy,
        affinity,
        source_ranges,
        guard,
        health_check_node_port,
        ports,
    });
    Ok(remarks.on(object))
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

/// The cluster IPs. Each has the family that has its place in `spec.ipFamilies`.
fn cluster_ips(
    spec: &v1::ServiceSpec,
    listed: &[(String, &str)],
    remarks: &mut Remarks,
) -> Result<Vec<IpAddr>, String> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if let Some(other) = families.iter().find(|f| *f != "IPv4" && *f != "IPv6") {
        return Err(format!("spec.ipFamilies: {} is not an address family (IPv4 or IPv6)", quote(other)));
    }
    let mut kept: Vec<IpAddr> = Vec::new();
    for (i, (path, text)) in listed.iter().enumerate() {
        let address = match address::usable(path, text) {
            Ok(address) => address,
            Err(unfit) => {
                remarks.defects.push(unfit.into_line());
                continue;
            }
        };
        let family = address::family(address);
        match families.get(i) {
            Some(expected) if expected != family => {
                remarks
                    .defects
                    .push(format!("{path}: {address} is {family}, but spec.ipFamilies[{i}] is {expected}"));
            }
            None if !families.is_empty() => {
                remarks.defects.push(format!("{path}: {address} has no family in spec.ipFamilies"));
            }
            _ if kept.iter().any(|k| k.is_ipv4() == address.is_ipv4()) => {
                remarks.defects.push(format!("{path}: {address} is a second {family} address"));
            }
            _ => kept.push(address),
        }
    }
    Ok(kept)
}

/// The addresses that are served. One of another family than the Service's is no mistake (a load balancer may announce
/// both), but kube-proxy does not serve it and neither do we.
fn addresses(
    listed: impl Iterator<Item = (String, Result<IpAddr, Unfit>)>,
    families: PerFamily<bool>,
    remarks: &mut Remarks,
) -> Vec<IpAddr> {
    let mut kept = Vec::new();
    for (path, address) in listed {
        match address {
            Err(unfit) => remarks.unfit(unfit),
            Ok(address) if kept.contains(&address) => {}
            Ok(address) if families[Family::of(address)] => {
                kept.push(address);
            }
            Ok(address) => {
                let family = address::family(address);
                let note = format!("{path}: {address} is not served, the Service has no {family} cluster IP");
                remarks.notes.push(note);
            }
        }
    }
    kept
}

/// Load-balancer addresses with their paths, without host names and without those at which a proxy of the load
/// balancer's own ends the connections, so that nothing with such a destination is meant for the node.
fn ingress<'a>(status: Option<&'a v1::ServiceStatus>, remarks: &mut Remarks) -> Vec<(String, &'a str)> {
    let listed = status.and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_deref());
    let mut kept = Vec::new();
    for (i, entry) in listed.unwrap_or_default().iter().enumerate() {
        let path = format!("status.loadBalancer.ingress[{i}]");
        let ip = entry.ip.as_deref().filter(|ip| !ip.is_empty());
        match entry.ip_mode.as_deref().unwrap_or("VIP") {
            "VIP" => kept.extend(ip.map(|ip| (format!("{path}.ip"), ip))),
            "Proxy" => {}
            other => {
                remarks.defects.push(format!("{path}.ipMode: {} is not a mode (VIP or Proxy)", quote(other)));
            }
        }
    }
    kept
}

/// `spec.loadBalancerSourceRanges`, without those of a family in which one of them holds every address; none if there
/// are some and not one can be understood. A mistake in a restriction is no defect of the object: the version before it,
/// without the restriction, must not stay in force.
fn source_ranges(listed: &[String], remarks: &mut Remarks) -> Option<Vec<IpNet>> {
    let mut ranges = Vec::new();
    for (i, text) in listed.iter().enumerate() {
        match network(text.trim()) {
            Some(range) if ranges.contains(&range) => {}
            Some(range) => ranges.push(range),
            None => remarks.notes.push(format!(
                "spec.loadBalancerSourceRanges[{i}]: {} is not a network, and is skipped",
                quote(text)
            )),
        }
    }
    if ranges.is_empty() && !listed.is_empty() {
        return None;
    }
    let is_ipv4 = |range: &IpNet| range.addr().is_ipv4();
    let open = ranges.iter().filter(|range| range.prefix_len() == 0).map(is_ipv4).collect::<Vec<_>>();
    ranges.retain(|range| !open.contains(&is_ipv4(range)));
    Some(ranges)
}

/// Leaves out the load-balancer addresses where access was to be restricted, but nobody knows to whom. kube-proxy would
/// open them to all.
fn withhold(addresses: Vec<IpAddr>, remarks: &mut Remarks) -> Vec<IpAddr> {
    if !addresses.is_empty() {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        remarks.notes.push(format!(
            "spec.loadBalancerSourceRanges holds no network, so {} stays unserved rather than open to all",
            addresses.join(", ")
        ));
    }
    Vec::new()
}

/// For how many seconds a client stays with its endpoint, if it does.
fn affinity(spec: &v1::ServiceSpec, remarks: &mut Remarks) -> Result<Option<u32>, String> {
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" | "None" => return Ok(None),
        "ClientIP" => {}
        other => {
            return Err(format!(
                "spec.sessionAffinity: {} is not an affinity (None or ClientIP)",
                quote(other)
            ));
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let Some(given) = config.and_then(|c| c.timeout_seconds) else { return Ok(Some(AFFINITY)) };
    let seconds = u32::try_from(given).ok().filter(|s| (1..=MAX_AFFINITY).contains(s));
    if seconds.is_none() {
        remarks.defects.push(format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {given} is not from 1 to {MAX_AFFINITY}"
        ));
    }
    Ok(seconds.or(Some(AFFINITY)))
}

fn policy(path: &str, name: Option<&str>) -> Result<TrafficPolicy, String> {
    match name.unwrap_or_default() {
        "" | "Cluster" => Ok(TrafficPolicy::Cluster),
        "Local" => Ok(TrafficPolicy::Local),
        other => Err(format!("{path}: {} is not a policy (Cluster or Local)", quote(other))),
    }
}

fn ports(from: &[v1::ServicePort], remarks: &mut Remarks) -> Vec<ServicePort> {
    let mut kept: Vec<(usize, ServicePort)> = Vec::with_capacity(from.len());
    for (i, entry) in from.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        match service_port(&path, entry) {
            Err(defect) => remarks.defects.push(defect),
            Ok(None) => remarks.notes.push(format!("{path}: SCTP is not served")),
            Ok(Some(new)) => match clash(&kept, &new) {
                Some((first, what)) => {
                    remarks.defects.push(format!("{path}: spec.ports[{first}] has the same {what}"));
                }
                None => kept.push((i, new)),
            },
        }
    }
    kept.into_iter().map(|(_, port)| port).collect()
}

/// The port; none if its protocol is not served.
fn service_port(path: &str, entry: &v1::ServicePort) -> Result<Option<ServicePort>, String> {
    let number = port(&format!("{path}.port"), entry.port)?;
    let node_port = entry.node_port.filter(|n| *n != 0);
    let node_port = node_port.map(|n| port(&format!("{path}.nodePort"), n)).transpose()?;
    let name = entry.name.clone().unwrap_or_default();
    if !name.is_empty() {
        name::label(&format!("{path}.name"), &name)?;
    }
    let protocol = protocol(&format!("{path}.protocol"), entry.protocol.as_deref())?;
    Ok(protocol.map(|protocol| ServicePort { name, protocol, port: number, node_port }))
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
