use std::{net::IpAddr, time::Duration};

use k8s_openapi::{api::discovery::v1, jiff::Timestamp};

use super::{Converted, SERVICE_NAME, TRIGGER_TIME, address, belongs_elsewhere, name, port, protocol};
use crate::model::{Conditions, Endpoint, ObjectName, Slice, SlicePort};

/// An EndpointSlice; nothing if its addresses are domain names, or if its labels say that it is not ours to serve.
///
/// # Errors
/// If it has no valid name, names no Service, or has an address type, protocol or port that does not exist.
pub fn slice(from: &v1::EndpointSlice) -> Result<Converted<Slice>, String> {
    let name = name::namespaced(&from.metadata)?;
    let labels = from.metadata.labels.as_ref();
    if belongs_elsewhere(labels) {
        return Ok(Converted::none());
    }
    let ipv4 = match from.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => return Ok(Converted::none()),
        other => return Err(format!("addressType: {other:?} is not an address type (IPv4, IPv6 or FQDN)")),
    };
    let service = labels.and_then(|l| l.get(SERVICE_NAME)).filter(|s| !s.is_empty()).ok_or_else(|| {
        format!("metadata.labels has no {SERVICE_NAME:?}, so the slice belongs to no Service")
    })?;
    name::label(&format!("metadata.labels[{SERVICE_NAME:?}]"), service)?;
    let service = ObjectName::new(&name.namespace, service);

    let mut defects = Vec::new();
    let ports = ports(from.ports.as_deref().unwrap_or_default(), &mut defects)?;
    let mut endpoints = Vec::with_capacity(from.endpoints.len());
    for (i, endpoint) in from.endpoints.iter().enumerate() {
        match endpoint_address(i, endpoint, ipv4) {
            Ok(address) => endpoints.push(convert_endpoint(endpoint, address)),
            Err(defect) => defects.push(defect),
        }
    }
    let triggered = triggered(from);
    let object = Some(Slice { name, service, ports, endpoints, triggered });
    Ok(Converted { object, defects, notes: Vec::new() })
}

/// None if it is not there or no time of RFC 3339: nothing but a metric depends on it.
fn triggered(from: &v1::EndpointSlice) -> Option<Duration> {
    let text = from.metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    Duration::try_from(text.parse::<Timestamp>().ok()?.as_duration()).ok()
}

fn ports(from: &[v1::EndpointPort], defects: &mut Vec<String>) -> Result<Vec<SlicePort>, String> {
    let mut ports: Vec<SlicePort> = Vec::with_capacity(from.len());
    for (i, entry) in from.iter().enumerate() {
        let path = format!("ports[{i}]");
        let protocol = protocol(&format!("{path}.protocol"), entry.protocol.as_deref())?;
        // No number means "all ports", which only consumers other than a proxy can make use of.
        let Some(number) = entry.port.filter(|n| *n != 0) else { continue };
        let number = port(&format!("{path}.port"), number)?;
        let name = entry.name.clone().unwrap_or_default();
        if !name.is_empty() {
            name::label(&format!("{path}.name"), &name)?;
        }
        let Some(protocol) = protocol else {
            defects.push(format!("{path}: SCTP is not served"));
            continue;
        };
        if ports.iter().any(|p| p.name == name && p.protocol == protocol) {
            defects.push(format!("{path}: {protocol} port {name:?} is there twice"));
            continue;
        }
        ports.push(SlicePort { name, protocol, port: number });
    }
    Ok(ports)
}

fn endpoint_address(i: usize, endpoint: &v1::Endpoint, ipv4: bool) -> Result<IpAddr, String> {
    let first = endpoint.addresses.first().ok_or_else(|| format!("endpoints[{i}] has no address"))?;
    let path = format!("endpoints[{i}].addresses[0]");
    let address = address::usable(&path, first)?;
    if address.is_ipv4() == ipv4 {
        Ok(address)
    } else {
        let expected = if ipv4 { "IPv4" } else { "IPv6" };
        Err(format!("{path}: {address} is {}, but addressType is {expected}", address::family(address)))
    }
}

fn convert_endpoint(from: &v1::Endpoint, address: IpAddr) -> Endpoint {
    let default = Conditions::default();
    let conditions = from.conditions.as_ref().map_or(default, |c| Conditions {
        ready: c.ready.unwrap_or(default.ready),
        serving: c.serving.unwrap_or(default.serving),
        terminating: c.terminating.unwrap_or(default.terminating),
    });
    let hints = from.hints.as_ref();
    let zones = hints.and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|h| h.for_nodes.as_deref()).unwrap_or_default();
    Endpoint {
        address,
        conditions,
        node: from.node_name.clone().filter(|n| !n.is_empty()),
        zone_hints: zones.iter().map(|z| z.name.clone()).collect(),
        node_hints: nodes.iter().map(|n| n.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests;
