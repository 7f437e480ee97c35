//! The names that cases use for addresses, see `lab::addr` for what is where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use lab::addr::{self, Family, Pair};
use serde_json::Value;

/// Names and addresses.
const NAMES: [(&str, Pair); 14] = [
    ("outside", addr::CLIENT),
    ("node", addr::GATEWAY),
    ("node-second", addr::GATEWAY_SECOND),
    ("loopback", Pair { v4: Ipv4Addr::LOCALHOST, v6: Ipv6Addr::LOCALHOST }),
    ("pod", addr::POD),
    ("other-pod", addr::OTHER_POD),
    ("backend1", addr::backend(1)),
    ("backend2", addr::backend(2)),
    ("cluster-ip", addr::cluster_ip(80)),
    ("cluster-ip-second", addr::cluster_ip(81)),
    ("vip", addr::vip(80)),
    ("vip-second", addr::vip(81)),
    ("external-ip", addr::vip(90)),
    ("external-ip-second", addr::vip(91)),
];

/// The port of a destination that names none.
pub(crate) const PORT: u16 = 80;
/// The port of `node-port`.
pub(crate) const NODE_PORT: u16 = 31_080;

/// The addresses that a name stands for.
pub(crate) fn pair(name: &str) -> Option<Pair> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, pair)| *pair)
}

/// The destinations, in these families, that a case's `to` means:
///
/// - `NAME` or `NAME:PORT`,
/// - `node-port`, or `node-port@NAME` for another address than the primary one,
/// - an address and a port, in one family.
pub(crate) fn destinations(to: &str, families: &[Family]) -> Result<Vec<SocketAddr>> {
    if let Ok(literal) = to.parse::<SocketAddr>() {
        let family = if literal.is_ipv4() { Family::V4 } else { Family::V6 };
        return Ok(families.contains(&family).then_some(literal).into_iter().collect());
    }
    let (name, port) = match to.split_once('@') {
        Some(("node-port", name)) => (name, NODE_PORT),
        None if to == "node-port" => ("node", NODE_PORT),
        None => match to.split_once(':') {
            Some((name, port)) => (name, port.parse().with_context(|| format!("the port of {to:?}"))?),
            None => (to, PORT),
        },
        Some(_) => bail!("{to:?}: only node-port is at an address"),
    };
    let pair = pair(name).with_context(|| format!("{to:?} is no destination"))?;
    Ok(families.iter().map(|family| SocketAddr::new(pair.of(*family), port)).collect())
}

/// Who answers at an address where nothing is translated.
pub(crate) fn untouched(to: IpAddr) -> &'static str {
    let own = [addr::GATEWAY, addr::GATEWAY_SECOND].iter().any(|pair| pair.both().contains(&to));
    if own || to.is_loopback() { lab::Surroundings::NODE } else { lab::Surroundings::UPSTREAM }
}

/// Replaces what begins with `$`: `$vip-v4` and `$vip-v6` by an address. A value that has `$v` in it stands for two,
/// one a family: `$v` is 4 or 6 there, and `$vip` the address of that family.
pub(crate) fn expand(value: &Value) -> Result<Vec<Value>> {
    let per_family = any_text(value, &|text| words(text).any(|word| word == Word::Name("v")));
    let families: &[_] = if per_family { &[Some(Family::V4), Some(Family::V6)] } else { &[None] };
    families.iter().map(|family| replace(value, *family)).collect()
}

/// As [`expand`] for one text that is about no family in particular.
pub(crate) fn expand_text(text: &str) -> Result<String> {
    replace_text(text, None)
}

fn any_text(value: &Value, test: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => test(text),
        Value::Array(values) => values.iter().any(|value| any_text(value, test)),
        Value::Object(members) => members.values().any(|value| any_text(value, test)),
        _ => false,
    }
}

fn replace(value: &Value, family: Option<Family>) -> Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(replace_text(text, family)?),
        Value::Array(values) => values.iter().map(|value| replace(value, family)).collect::<Result<_>>()?,
        Value::Object(members) => {
            let replaced = members.iter().map(|(key, value)| Ok((key.clone(), replace(value, family)?)));
            Value::Object(replaced.collect::<Result<_>>()?)
        }
        other => other.clone(),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    Text(&'a str),
    Name(&'a str),
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.split('$').enumerate().flat_map(move |(i, part)| {
        let end = if i == 0 { 0 } else { part.find(|c| !of_name(c)).unwrap_or(part.len()) };
        let (name, rest) = part.split_at(end);
        [(i > 0).then_some(Word::Name(name)), Some(Word::Text(rest))].into_iter().flatten()
    })
}

fn replace_text(text: &str, family: Option<Family>) -> Result<String> {
    let mut replaced = String::new();
    for word in words(text) {
        match word {
            Word::Text(text) => replaced.push_str(text),
            Word::Name(name) => replaced.push_str(&meaning(name, family)?),
        }
    }
    Ok(replaced)
}

fn meaning(name: &str, family: Option<Family>) -> Result<String> {
    if let (Some(family), Some(pair)) = (family, pair(name)) {
        return Ok(pair.of(family).to_string());
    }
    Ok(match (name, name.rsplit_once('-'), family) {
        ("v", _, Some(Family::V4)) => "4".to_owned(),
        ("v", _, Some(Family::V6)) => "6".to_owned(),
        (_, Some((name, suffix @ ("v4" | "v6"))), _) => {
            let pair = pair(name).with_context(|| format!("${name}-{suffix} is no address"))?;
            pair.of(if suffix == "v4" { Family::V4 } else { Family::V6 }).to_string()
        }
        (_, _, None) if pair(name).is_some() => bail!("${name} needs -v4 or -v6 where there is no $v"),
        _ => bail!("${name} is no address"),
    })
}
