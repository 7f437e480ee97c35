//! A case file; `docs/testing.md` describes the format.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use lab::addr::Family;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::{names, objects::Objects};

/// A case: what is there from the start, then what changes.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) description: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

/// Objects, and what is then true of flows.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) description: String,
    /// All that there are.
    pub(crate) objects: Objects,
    pub(crate) established: Vec<Established>,
    pub(crate) flows: Vec<Flow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CaseFile {
    description: String,
    #[serde(default)]
    arguments: Vec<String>,
    base: Option<String>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    patch: Vec<Value>,
    flows: Vec<Flow>,
    #[serde(default)]
    steps: Vec<StepFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StepFile {
    description: String,
    #[serde(default)]
    delete: Vec<Value>,
    #[serde(default)]
    apply: Vec<Value>,
    #[serde(default)]
    patch: Vec<Value>,
    #[serde(default)]
    established: Vec<Established>,
    #[serde(default)]
    flows: Vec<Flow>,
}

/// What becomes of flows that begin now.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Flow {
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) from: Vec<From>,
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) to: Vec<String>,
    #[serde(default = "both_families", deserialize_with = "one_or_many")]
    families: Vec<FamilyName>,
    #[serde(default = "both_protocols", deserialize_with = "one_or_many")]
    pub(crate) protocols: Vec<Protocol>,
    #[serde(default, deserialize_with = "one_or_many")]
    backends: Vec<String>,
    source: Option<Source>,
    #[serde(default)]
    same_backend: bool,
    verdict: Option<Verdict>,
    /// One more flow of each kind is opened and stays so, under this name.
    pub(crate) keep: Option<String>,
}

/// What becomes of flows that were kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Established {
    /// The name by which they were kept.
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) flow: Vec<String>,
    /// Of this kind only.
    #[serde(default = "both_protocols", deserialize_with = "one_or_many")]
    pub(crate) protocols: Vec<Protocol>,
    /// Who answers now; none: who did before.
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) backends: Vec<String>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum From {
    /// The outside client, by packets.
    Outside,
    /// A process in the pod, by hooked sockets.
    Pod,
    /// The pod, by packets.
    PodPackets,
    /// A process on the node, by hooked sockets.
    Host,
    /// A pod on another node, by packets.
    OtherPod,
    /// A backend, by packets.
    Backend1,
    /// The other one.
    Backend2,
}

impl From {
    /// By its sockets rather than its packets.
    pub(crate) const fn hooked(self) -> bool {
        matches!(self, Self::Pod | Self::Host)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    Tcp,
    /// For a process, new flows are tried with connected and unconnected sockets; those kept are connected.
    Udp,
    UdpUnconnected,
    /// ICMP echo, which nobody answers but for itself: only for verdicts.
    Ping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum FamilyName {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

/// The client's address, as whoever answers sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The client's own.
    Kept,
    /// The gateway's.
    Masqueraded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Refused, so that the client knows at once.
    Reject,
    /// No answer; a process may be told that it is not permitted.
    Drop,
    /// The packet goes where it would go without Portico.
    Untouched,
}

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) enum Expectation {
    /// These answer and no others.
    Served { backends: Vec<String>, source: Source, same_backend: bool },
    /// Nobody does, for this reason.
    Verdict(Verdict),
}

impl Flow {
    pub(crate) fn families(&self) -> Vec<Family> {
        let family = |name: &FamilyName| match name {
            FamilyName::V4 => Family::V4,
            FamilyName::V6 => Family::V6,
        };
        self.families.iter().map(family).collect()
    }

    pub(crate) fn expectation(&self) -> Result<Expectation> {
        Ok(match (self.verdict, self.source) {
            (Some(verdict), None)
                if self.backends.is_empty() && !self.same_backend && self.keep.is_none() =>
            {
                Expectation::Verdict(verdict)
            }
            (None, Some(source)) if !self.backends.is_empty() => Expectation::Served {
                backends: self.backends.clone(),
                source,
                same_backend: self.same_backend,
            },
            _ => bail!("a flow has either a verdict, or backends and source"),
        })
    }

    fn check(&self) -> Result<()> {
        self.expectation()?;
        let pinged = self.protocols.contains(&Protocol::Ping);
        let hooked = self.from.iter().any(|from| from.hooked());
        ensure!(!pinged || self.verdict.is_some() && !hooked, "a ping is sent in packets, for a verdict");
        for name in &self.backends {
            ensure!(["backend1", "backend2", "pod"].contains(&name.as_str()), "{name:?} is no backend");
        }
        ensure!(!self.from.is_empty() && !self.to.is_empty(), "a flow is from somewhere to somewhere");
        for to in &self.to {
            names::destinations(to, &self.families())?;
        }
        Ok(())
    }
}

impl Case {
    /// Reads a file, and whatever it is based on.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: CaseFile = serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut objects = Objects::default();
        let directory = path.parent().and_then(Path::parent).context("no directory")?.join("objects");
        for base in ["node"].into_iter().chain(file.base.as_deref()) {
            objects.apply(&read_objects(&directory.join(format!("{base}.yaml")))?)?;
        }
        objects.apply(&file.objects)?;
        objects.patch(&file.patch)?;
        let mut steps = vec![Step {
            description: "at the start".to_owned(),
            objects: objects.clone(),
            established: Vec::new(),
            flows: file.flows,
        }];
        for step in file.steps {
            let change = |objects: &mut Objects| {
                objects.delete(&step.delete)?;
                objects.apply(&step.apply)?;
                objects.patch(&step.patch)
            };
            change(&mut objects).with_context(|| format!("step {:?}", step.description))?;
            steps.push(Step {
                description: step.description,
                objects: objects.clone(),
                established: step.established,
                flows: step.flows,
            });
        }
        let arguments = file.arguments.iter().map(|a| names::expand_text(a)).collect::<Result<_>>()?;
        let case = Self { description: file.description, arguments, steps };
        case.check()?;
        Ok(case)
    }

    fn check(&self) -> Result<()> {
        let mut kept: Vec<&str> = Vec::new();
        for step in &self.steps {
            let place = || format!("step {:?}", step.description);
            ensure!(!step.flows.is_empty() || !step.established.is_empty(), "{}: nothing is asked", place());
            for name in step.established.iter().flat_map(|e| &e.flow) {
                ensure!(kept.contains(&name.as_str()), "{}: no flow {name:?} was kept before", place());
            }
            for flow in &step.flows {
                flow.check()
                    .with_context(|| format!("{}, flow from {:?} to {:?}", place(), flow.from, flow.to))?;
                kept.extend(flow.keep.as_deref());
            }
        }
        Ok(())
    }
}

fn read_objects(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_multiple(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

fn both_families() -> Vec<FamilyName> {
    vec![FamilyName::V4, FamilyName::V6]
}

fn both_protocols() -> Vec<Protocol> {
    vec![Protocol::Tcp, Protocol::Udp]
}

/// A list of one may be written without brackets.
fn one_or_many<'de, D: Deserializer<'de>, T: de::DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let values = match Value::deserialize(deserializer)? {
        Value::Array(values) => values,
        one => vec![one],
    };
    values.into_iter().map(|value| serde_json::from_value(value).map_err(de::Error::custom)).collect()
}
