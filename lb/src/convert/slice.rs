use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::{api::discovery::v1, jiff::Timestamp};

use super::{Remarks, SERVICE_NAME, Selector, TRIGGER_TIME, address, address::Unfit, name, port, protocol};
use crate::{
    model::{Conditions, Endpoint, ObjectName, Protocol, Slice, SlicePort, change::Converted},
    text::quote,
};

/// An EndpointSlice; nothing if its addresses are domain names, if it belongs to no Service, or if it is another
/// proxy's to serve.
///
/// # Errors
/// If it has no valid name, or an address type that does not exist.
pub fn slice(from: &v1::EndpointSlice, selector: &Selector) -> Result<Converted<Slice>, String> {
    let name = name::namespaced(&from.metadata)?;
    let labels = from.metadata.labels.as_ref();
    if !selector.selects(labels) {
        return Ok(Converted::none());
    }
    let ipv4 = match from.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => return Ok(Converted::none()),
        other => {
            return Err(format!("addressType: {} is not an address type (IPv4, IPv6 or FQDN)", quote(other)));
        }
    };
    let mut remarks = Remarks::default();
    let service = match service_name(labels) {
        Ok(service) => ObjectName::new(&name.namespace, service),
        Err(note) => {
            remarks.notes.push(note);
            return Ok(remarks.on(None));
        }
    };
    let ports = ports(from.ports.as_deref().unwrap_or_default(), &mut remarks);
    let mut endpoints = Vec::with_capacity(from.endpoints.len());
    for (i, endpoint) in from.endpoints.iter().enumerate() {
        match endpoint_address(i, endpoint, ipv4) {
            Ok(address) => endpoints.push(convert_endpoint(endpoint, address)),
            Err(unfit) => remarks.unfit(unfit),
        }
    }
    Ok(remarks.on(Some(Slice { name, service, ports, endpoints, triggered: triggered(from) })))
}

/// None if it is not there or no time of RFC 3339: nothing but a metric depends on it.
fn triggered(from: &v1::EndpointSlice) -> Option<Duration> {
    let text = from.metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    Duration::try_from(text.parse::<Timestamp>().ok()?.as_duration()).ok()
}

/// The Service, or a line that says why there can be none. The API server does not care, and slices are made for other
/// ends than Services, too.
fn service_name(labels: Option<&BTreeMap<String, String>>) -> Result<&str, String> {
    let service = labels.and_then(|l| l.get(SERVICE_NAME)).filter(|s| !s.is_empty()).ok_or_else(|| {
        format!("metadata.labels has no {SERVICE_NAME:?}, so the slice belongs to no Service")
    })?;
    name::label(&format!("metadata.labels[{SERVICE_NAME:?}]"), service)?;
    Ok(service)
}

fn ports(from: &[v1::EndpointPort], remarks: &mut Remarks) -> Vec<SlicePort> {
    let mut ports: Vec<SlicePort> = Vec::with_capacity(from.len());
    for (i, entry) in from.iter().enumerate() {
        let path = format!("ports[{i}]");
        // No number means "all ports", which only consumers other than a proxy can make use of.
        let Some(number) = entry.port.filter(|n| *n != 0) else { continue };
        // The API server lets any number through.
        let number = match port(&format!("{path}.port"), number) {
            Ok(number) => number,
            Err(note) => {
                remarks.notes.push(note);
                continue;
            }
        };
        match name_and_protocol(&path, entry) {
            Err(defect) => remarks.defects.push(defect),
            Ok((_, None)) => remarks.notes.push(format!("{path}: SCTP is not served")),
            Ok((name, Some(protocol))) if ports.iter().any(|p| p.name == name && p.protocol == protocol) => {
                remarks.defects.push(format!("{path}: {protocol} port {} is there twice", quote(&name)));
            }
            Ok((name, Some(protocol))) => ports.push(SlicePort { name, protocol, port: number }),
        }
    }
    ports
}

/// Both with the API server's defaults: an empty name, and TCP.
fn name_and_protocol(path: &str, entry: &v1::EndpointPort) -> Result<(String, Option<Protocol>), String> {
    let name = entry.name.clone().unwrap_or_default();
    if !name.is_empty() {
        name::label(&format!("{path}.name"), &name)?;
    }
    Ok((name, protocol(&format!("{path}.protocol"), entry.protocol.as_deref())?))
}

fn endpoint_address(i: usize, endpoint: &v1::Endpoint, ipv4: bool) -> Result<IpAddr, Unfit> {
    let first = endpoint.addresses.first();
    let first = first.ok_or_else(|| Unfit::Refused(format!("endpoints[{i}] has no address")))?;
    let path = format!("endpoints[{i}].addresses[0]");
    let address = address::usable(&path, first)?;
    if address.is_ipv4() == ipv4 {
        Ok(address)
    } else {
        let (family, expected) = (address::family(address), if ipv4 { "IPv4" } else { "IPv6" });
        Err(Unfit::Refused(format!("{path}: {address} is {family}, but addressType is {expected}")))
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
