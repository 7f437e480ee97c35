//! What a field may hold, and reading it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{Mistake, document::Tree, duration, fast_path::FastPathPart, node_port::NodePortRange};
use crate::{model::address, text::quote};

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    /// A whole number within a range.
    Int(i64, i64),
    /// A number, not less than 0.
    Number,
    Text,
    /// One of these, or "".
    OneOf(&'static [&'static str]),
    Texts,
    Duration,
    /// A duration, or a whole number of nanoseconds.
    Nanoseconds,
    /// An address.
    Ip,
    /// An address with a port; this port where there is none. "off" for nowhere.
    Bind(u16),
    Cidrs,
    /// CIDRs with commas between them, at most one of each family.
    Dual,
    /// CIDRs and keywords, see [`NodePortRange`].
    NodePorts,
    /// Where established flows are forwarded in XDP, see [`FastPathPart`].
    FastPath,
    /// Names of features, each on or off.
    Switches,
    /// klog's levels for single files.
    Modules,
    /// A quantity of bytes.
    Size,
}

pub(super) const INT32: Kind = Kind::Int(i32::MIN as i64, i32::MAX as i64);

pub(super) const COUNT: Kind = Kind::Int(0, i32::MAX as i64);

impl Kind {
    /// How the help names a value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int(..) | Self::Number => "NUMBER",
            Self::Text => "TEXT",
            Self::OneOf(_) => "MODE",
            Self::Texts => "NAMES",
            Self::Duration | Self::Nanoseconds => "DURATION",
            Self::Ip => "IP",
            Self::Bind(_) => "ADDRESS",
            Self::Cidrs | Self::Dual => "CIDRS",
            Self::NodePorts => "RANGES",
            Self::FastPath => "[INTERFACE=]on|off",
            Self::Switches => "NAME=BOOL,...",
            Self::Modules => "PATTERN=LEVEL,...",
            Self::Size => "BYTES",
        }
    }

    /// What the values of a flag, in their order, would be in a file. The last one counts, except for lists, which grow.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(super) fn given(self, values: &[String]) -> Result<Tree, String> {
        let last = values.last().map_or("", String::as_str);
        let items = || {
            let items = values.iter().flat_map(|value| value.split(','));
            items.map(str::trim).filter(|item| !item.is_empty())
        };
        Ok(match self {
            Self::Bool => Tree::Bool(match last {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(format!("{} is neither true nor false", quote(last))),
            }),
            Self::Int(..) | Self::Number => {
                last.parse().map(Tree::Number).unwrap_or_else(|_| Tree::Text(last.to_owned()))
            }
            // kube-proxy's help promises as much.
            Self::Bind(_) if last.is_empty() => Tree::Text("off".to_owned()),
            Self::Texts | Self::Cidrs | Self::NodePorts | Self::FastPath => {
                Tree::List(items().map(|item| Tree::Text(item.to_owned())).collect())
            }
            Self::Switches => {
                let switch = |item: &str| {
                    let (name, value) = item.split_once('=').unwrap_or((item, ""));
                    Ok((name.trim().to_owned(), Self::Bool.given(&[value.trim().to_owned()])?))
                };
                Tree::Map(items().map(switch).collect::<Result<_, String>>()?)
            }
            Self::Modules => {
                let module = |item: &str| {
                    let (pattern, level) = item.rsplit_once('=').unwrap_or((item, ""));
                    let level = Self::Int(0, 0).given(&[level.to_owned()])?;
                    let pattern = Tree::Text(pattern.to_owned());
                    Ok(Tree::Map(vec![("filePattern".to_owned(), pattern), ("verbosity".to_owned(), level)]))
                };
                Tree::List(items().map(module).collect::<Result<_, String>>()?)
            }
            _ => Tree::Text(last.to_owned()),
        })
    }

    /// The value in its usual form, unless there is none or it is not what it should be.
    pub(super) fn read(self, tree: &Tree, at: &Mistake, mistakes: &mut Vec<Mistake>) -> Option<Value> {
        if *tree == Tree::Null {
            return None;
        }
        let before = mistakes.len();
        let value = match self {
            Self::Texts | Self::Cidrs | Self::NodePorts | Self::FastPath => {
                let Tree::List(items) = tree else {
                    mistakes.push(at.because(format!("{tree} is not a list")));
                    return None;
                };
                let item = match self {
                    Self::Cidrs => cidr,
                    Self::NodePorts => range,
                    Self::FastPath => part,
                    _ => text,
                };
                let items = items.iter().enumerate().filter_map(|(i, entry)| {
                    item(entry)
                        .map_err(|problem| mistakes.push(at.below(&format!("[{i}]")).because(problem)))
                        .ok()
                });
                Value::Array(items.collect())
            }
            Self::Switches => switches(tree, at, mistakes),
            Self::Modules => modules(tree, at, mistakes),
            single => single.scalar(tree).unwrap_or_else(|problem| {
                mistakes.push(at.because(problem));
                Value::Null
            }),
        };
        (mistakes.len() == before).then_some(value)
    }

    fn scalar(self, tree: &Tree) -> Result<Value, String> {
        let string = || match tree {
            Tree::Text(text) => Ok(text.trim()),
            Tree::Bool(_) | Tree::Number(_) => Err(format!("{tree} is not a string; put it in quotes")),
            _ => Err(format!("{tree} is not a string")),
        };
        match self {
            Self::Bool => match tree {
                Tree::Bool(value) => Ok((*value).into()),
                // YAML 1.1, which kube-proxy reads.
                Tree::Text(text) => match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" => Ok(true.into()),
                    "no" | "off" | "n" => Ok(false.into()),
                    _ => Err(format!("{tree} is neither true nor false")),
                },
                _ => Err(format!("{tree} is neither true nor false")),
            },
            Self::Int(min, max) => {
                let Tree::Number(number) = tree else { return Err(format!("{tree} is not a whole number")) };
                let number = number.as_i64().ok_or_else(|| format!("{tree} is not a whole number"))?;
                match number {
                    number if number < min => Err(format!("{number} is less than {min}")),
                    number if number > max => Err(format!("{number} is more than {max}")),
                    number => Ok(number.into()),
                }
            }
            Self::Number => match tree {
                Tree::Number(number) => match number.as_f64() {
                    Some(value) if value < 0.0 => Err(format!("{number} is less than 0")),
                    _ => Ok(Value::Number(number.clone())),
                },
                _ => Err(format!("{tree} is not a number")),
            },
            Self::OneOf(choices) => match string()? {
                "" => Ok("".into()),
                text if choices.contains(&text) => Ok(text.into()),
                text => Err(format!("{} is not one of {}", quote(text), choices.join(", "))),
            },
            Self::Duration => match string()? {
                "" => Ok("0s".into()),
                text => duration::parse(text).map(|duration| duration::format(duration).into()),
            },
            Self::Nanoseconds => match tree {
                Tree::Number(number) => number
                    .as_u64()
                    .map(|number| duration::format(std::time::Duration::from_nanos(number)).into())
                    .ok_or_else(|| format!("{tree} is not a number of nanoseconds")),
                _ => Self::Duration.scalar(tree),
            },
            Self::Ip => match string()? {
                "" => Ok("".into()),
                text => ip(text).map(|ip| ip.to_string().into()),
            },
            Self::Bind(port) => bind(string()?, port).map(Value::from),
            Self::Dual => {
                let (mut v4, mut v6, mut nets) = (0, 0, Vec::new());
                for part in string()?.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                    let net = net(part)?;
                    *(if net.addr().is_ipv4() { &mut v4 } else { &mut v6 }) += 1;
                    nets.push(net.to_string());
                }
                match (v4, v6) {
                    (..=1, ..=1) => Ok(nets.join(",").into()),
                    _ => Err(format!("{tree} has more than one CIDR of a family")),
                }
            }
            Self::Size => match tree {
                Tree::Number(number) if number.as_i64().is_some_and(|n| n >= 0) => {
                    Ok(number.to_string().into())
                }
                Tree::Text(text) if is_quantity(text) => Ok(text.as_str().into()),
                _ => Err(format!("{tree} is not a number of bytes such as \"64Ki\"")),
            },
            _ => string().map(Value::from),
        }
    }
}

fn text(tree: &Tree) -> Result<Value, String> {
    match tree {
        Tree::Text(text) if !text.trim().is_empty() => Ok(text.trim().into()),
        Tree::Text(_) => Err("is empty".to_owned()),
        tree => Kind::Text.scalar(tree),
    }
}

fn cidr(tree: &Tree) -> Result<Value, String> {
    Kind::Text
        .scalar(tree)?
        .as_str()
        .map_or_else(|| Ok(Value::Null), |text| Ok(net(text)?.to_string().into()))
}

fn range(tree: &Tree) -> Result<Value, String> {
    let Tree::Text(text) = tree else { return Kind::Text.scalar(tree) };
    text.trim().parse::<NodePortRange>().map(|range| range.to_string().into())
}

fn part(tree: &Tree) -> Result<Value, String> {
    match tree {
        // YAML 1.1, which kube-proxy reads.
        Tree::Bool(on) => Ok(FastPathPart { interface: None, on: *on }.to_string().into()),
        Tree::Text(text) => text.trim().parse::<FastPathPart>().map(|part| part.to_string().into()),
        tree => Kind::Text.scalar(tree),
    }
}

fn switches(tree: &Tree, at: &Mistake, mistakes: &mut Vec<Mistake>) -> Value {
    let Tree::Map(entries) = tree else {
        mistakes.push(at.because(format!("{tree} is not a mapping")));
        return Value::Null;
    };
    let mut switches = serde_json::Map::new();
    for (name, value) in entries {
        let at = at.below(name);
        match Kind::Bool.scalar(value) {
            Ok(_) if switches.contains_key(name) => mistakes.push(at.because("is there twice".to_owned())),
            Ok(value) => {
                switches.insert(name.clone(), value);
            }
            Err(problem) => mistakes.push(at.because(problem)),
        }
    }
    Value::Object(switches)
}

fn modules(tree: &Tree, at: &Mistake, mistakes: &mut Vec<Mistake>) -> Value {
    let Tree::List(items) = tree else {
        mistakes.push(at.because(format!("{tree} is not a list")));
        return Value::Null;
    };
    let mut modules = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let at = at.below(&format!("[{i}]"));
        let Tree::Map(entries) = item else {
            mistakes.push(at.because(format!("{item} is not a mapping")));
            continue;
        };
        let mut module = serde_json::Map::new();
        for (name, value) in entries {
            let at = at.below(name);
            let read = match name.as_str() {
                _ if module.contains_key(name) => Err("is there twice".to_owned()),
                "filePattern" => text(value),
                "verbosity" => COUNT.scalar(value),
                _ => Err("unknown field".to_owned()),
            };
            match read {
                Ok(value) => drop(module.insert(name.clone(), value)),
                Err(problem) => mistakes.push(at.because(problem)),
            }
        }
        modules.push(Value::Object(module));
    }
    Value::Array(modules)
}

fn is_quantity(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    const SUFFIXES: [&str; 14] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti"];
    text.starts_with(|c: char| c.is_ascii_digit()) && (SUFFIXES.contains(&digits) || digits == "K")
}

/// An address, by the rules of Kubernetes.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    address::parse(text).ok_or_else(|| format!("{} is not an IP address", quote(text)))
}

/// A network, without what is behind its prefix.
pub(super) fn net(text: &str) -> Result<IpNet, String> {
    address::network(text).ok_or_else(|| format!("{} is not a CIDR", quote(text)))
}

/// An address with a port; without an address, `:PORT`, since which one it is follows from another field.
fn bind(text: &str, default: u16) -> Result<String, String> {
    let wrong = || format!("{} is neither an address, nor one with a port, nor \"off\"", quote(text));
    if text.is_empty() || text == "off" {
        return Ok(text.to_owned());
    }
    if let Some(ip) = address::parse(text) {
        return Ok(std::net::SocketAddr::new(ip, default).to_string());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{} has a port that is not a number from 1 to 65535", quote(text)))?;
    if host.is_empty() {
        return Ok(format!(":{port}"));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // An IPv6 address without brackets would be ambiguous.
    let ip = match bare {
        Some(bare) => address::parse(bare),
        None => address::parse(host).filter(IpAddr::is_ipv4),
    };
    Ok(std::net::SocketAddr::new(ip.ok_or_else(wrong)?, port).to_string())
}
