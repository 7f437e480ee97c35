//! Configuration: the text of a file and the flags of a command line to [`Options`], or to all that is wrong with them.
//! Pure: whoever calls reads the file and knows the host.
//!
//! A file has up to two documents: kube-proxy's own `KubeProxyConfiguration`, and a `PorticoConfiguration` for what that
//! does not know. Each is a table of fields; a flag names the field it sets, and a value is checked by the same code
//! wherever it is from. A field of kube-proxy's is honoured, or a [`Note`] says that it was set for nothing.

mod document;
mod duration;
mod fast_path;
mod field;
mod flag;
mod kind;
mod kube_proxy;
mod mistake;
mod node_port;
mod options;
mod portico;
mod settings;

use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::Value;

use self::{document::Tree, settings::Settings};
use crate::text;
pub use fast_path::{FastPath, FastPathPart};
pub use mistake::{Mistake, Mistakes, Note};
pub use node_port::{NodePortAddresses, NodePortRange};
pub use options::{Conntrack, DetectLocal, Options, Source, XdpChoice};

pub use settings::Flag;

/// A file that was read.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// A flag of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Without dashes, as in [`Flag::name`].
    pub flag: &'static str,
    /// Values in their order.
    pub values: Vec<String>,
}

/// What holds on this host where nothing is said.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Where state is pinned.
    pub pin_dir: PathBuf,
}

/// A configuration without mistakes.
#[derive(Debug)]
pub struct Config {
    /// For the daemon.
    pub options: Options,
    /// klog's level of verbosity.
    pub verbosity: u32,
    /// A `PorticoConfiguration` with everything in it, if anything of it was set.
    pub portico: Option<Value>,
}

/// All flags, of which some do nothing.
pub fn flags() -> impl Iterator<Item = Flag> {
    let own = portico::SCHEMA.flags().map(|(name, field)| Flag::of(name, field, false));
    let kube_proxy = kube_proxy::SCHEMA.flags().map(|(name, field)| Flag::of(name, field, true));
    let ports = kube_proxy::PORTS.iter().map(|(name, _)| Flag {
        name,
        value: "PORT",
        bool: false,
        number: true,
        help: None,
        kube_proxy: true,
    });
    let idle = flag::IDLE.iter().map(|idle| Flag {
        name: idle.name,
        value: "VALUE",
        bool: idle.bool,
        number: false,
        help: None,
        kube_proxy: true,
    });
    own.chain(kube_proxy).chain(ports).chain(idle)
}

/// Reads the configuration; flags have precedence over the file.
///
/// # Errors
/// Everything that is wrong.
pub fn read(file: Option<File<'_>>, flags: &[Given], host: &Host) -> Result<Config, Mistakes> {
    let mut mistakes = Vec::new();
    let mut kube_proxy = Settings::new(&kube_proxy::SCHEMA);
    let mut own = Settings::new(&portico::SCHEMA);
    if let Some(file) = file {
        read_file(file, &mut kube_proxy, &mut own, &mut mistakes);
    }
    let mut notes = Vec::new();
    let flags = kube_proxy::with_ports(flags, file.is_some(), &mut notes, &mut mistakes);
    kube_proxy.read_flags(&flags, &mut mistakes);
    own.read_flags(&flags, &mut mistakes);
    let mut config = kube_proxy::resolve(&kube_proxy, &own, host, &mut mistakes);
    let idle = flag::IDLE.iter().filter(|idle| flags.iter().any(|given| given.flag == idle.name));
    notes.extend(idle.map(|idle| Note {
        object: format!("--{}", idle.name),
        reason: format!("means nothing here: {}", idle.reason),
    }));
    config.options.notes.append(&mut notes);
    if mistakes.is_empty() { Ok(config) } else { Err(Mistakes(mistakes)) }
}

fn read_file(file: File<'_>, kube_proxy: &mut Settings, own: &mut Settings, mistakes: &mut Vec<Mistake>) {
    let at = Mistake { place: file.name.to_owned(), ..Mistake::default() };
    let documents = document::read(file.text);
    if documents.is_empty() {
        mistakes.push(at.because("has no document".to_owned()));
    }
    let mut seen: Vec<&str> = Vec::new();
    for document in documents {
        let tree = match document {
            Ok(tree @ Tree::Map(_)) => tree,
            Ok(other) => {
                mistakes.push(at.because(format!("{other} is not a document")));
                continue;
            }
            Err(problem) => {
                mistakes.push(at.because(problem));
                continue;
            }
        };
        let (kind, settings) = match (tree.text("apiVersion"), tree.text("kind")) {
            (Some(kube_proxy::VERSION), Some(kube_proxy::KIND)) => (kube_proxy::KIND, &mut *kube_proxy),
            (Some(portico::VERSION), Some(portico::KIND)) => (portico::KIND, &mut *own),
            (version, kind) => {
                let found = [version, kind].map(|text| text.map(text::name));
                let [version, kind] = found.each_ref().map(Option::as_deref);
                let found =
                    format!("{} {}", version.unwrap_or("no apiVersion"), kind.unwrap_or("without kind"));
                mistakes.push(at.because(format!(
                    "{found} is neither {} {} nor {} {}",
                    kube_proxy::VERSION,
                    kube_proxy::KIND,
                    portico::VERSION,
                    portico::KIND
                )));
                continue;
            }
        };
        if seen.contains(&kind) {
            mistakes.push(at.because(format!("has more than one {kind}")));
            continue;
        }
        seen.push(kind);
        settings.read_document(file.name, &tree, mistakes);
    }
}

/// A network, by the rules of Kubernetes: IPv4 bytes may have leading zeros, and what is behind the prefix is cut off.
///
/// # Errors
/// One line that says it is none.
pub fn cidr(text: &str) -> Result<IpNet, String> {
    kind::net(text)
}

#[cfg(test)]
mod tests;
