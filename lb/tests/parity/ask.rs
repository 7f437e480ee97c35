//! One question: a new flow from somewhere to somewhere, and what came of it.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lab::{
    Client, Netns, Topology,
    agent::Report,
    client::{Answer, Connection, FlowError, UdpFlow},
};

use crate::{
    case::{From, Protocol},
    names,
    scene::{BINARY, Scene},
};

/// Bytes in a datagram.
const LENGTH: usize = 100;

/// Sockets that a flow may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    Tcp,
    Udp,
    UdpUnconnected,
    Ping,
}

impl Socket {
    /// Those that make a difference: the socket hooks see an unconnected one each time it sends.
    pub(crate) fn of(from: From, protocol: Protocol) -> Vec<Self> {
        match protocol {
            Protocol::Tcp => vec![Self::Tcp],
            Protocol::Udp if from.hooked() => vec![Self::Udp, Self::UdpUnconnected],
            Protocol::Udp => vec![Self::Udp],
            Protocol::UdpUnconnected => vec![Self::UdpUnconnected],
            Protocol::Ping => vec![Self::Ping],
        }
    }

    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::UdpUnconnected => Protocol::UdpUnconnected,
            Self::Ping => Protocol::Ping,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpUnconnected => "udp-unconnected",
            Self::Ping => "ping",
        }
    }
}

/// Whom to ask what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) from: From,
    pub(crate) socket: Socket,
    pub(crate) to: SocketAddr,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {:?} to {}", self.socket.as_str(), self.from, self.to)
    }
}

/// Who answered, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) backend: String,
    pub(crate) source: IpAddr,
}

/// Why nobody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    Silence,
    NotPermitted,
    Other(String),
}

pub(crate) type Outcome = Result<Seen, Failure>;

impl Ask {
    /// Asks so many times, each time anew.
    pub(crate) fn times(self, scene: &Scene, times: u32, patience: Duration) -> Result<Vec<Outcome>> {
        if self.from.hooked() {
            return self.by_agent(scene, times, patience);
        }
        let client = Client::new(self.ns(scene)).with_timeout(patience);
        let ask = || match self.socket {
            Socket::Tcp => client.tcp_once(self.to),
            // With addresses and ports of an earlier flow it would be that one for conntrack.
            Socket::Udp => client
                .udp_from(scene.port(), self.to)
                .and_then(|flow| flow.exchange(LENGTH))
                .map(|datagram| datagram.answer),
            Socket::UdpUnconnected => client
                .udp_unconnected(self.to)
                .and_then(|flow| flow.exchange(LENGTH))
                .map(|datagram| datagram.answer),
            // The only one whom a ping reaches is the one whom it would reach without Portico.
            Socket::Ping => client.ping(self.to.ip()).and_then(|()| {
                let seen_source = SocketAddr::new(client.source_towards(self.to)?, 0);
                Ok(Answer { backend: names::untouched(self.to.ip()).to_owned(), seen_source })
            }),
        };
        Ok((0..times).map(|_| outcome(ask())).collect())
    }

    /// Opens a flow that stays.
    pub(crate) fn keep(self, scene: &Scene, patience: Duration) -> Result<Kept> {
        let client = Client::new(self.ns(scene)).with_timeout(patience);
        let line = match self.socket {
            _ if self.from.hooked() => Line::Agent(Agent::start(self, scene, patience)?),
            Socket::Tcp => Line::Tcp(client.tcp(self.to)?),
            Socket::Udp => Line::Udp(client.udp_from(scene.port(), self.to)?),
            Socket::UdpUnconnected => Line::Udp(client.udp_unconnected(self.to)?),
            Socket::Ping => bail!("a ping cannot be kept"),
        };
        let mut kept = Kept { ask: self, line, backend: String::new() };
        let seen = kept.again()?.map_err(|failure| anyhow!("{self}, to be kept: {failure:?}"))?;
        kept.backend = seen.backend;
        Ok(kept)
    }

    fn ns(self, scene: &Scene) -> &Netns {
        let Topology { client, pod, gateway, .. } = &scene.topology;
        match self.from {
            From::Outside => client,
            From::Pod | From::PodPackets => pod,
            From::Host => gateway,
            From::OtherPod => &scene.surroundings.other_pod,
            From::Backend1 => &scene.topology.backends()[0].ns,
            From::Backend2 => &scene.topology.backends()[1].ns,
        }
    }

    fn by_agent(self, scene: &Scene, times: u32, patience: Duration) -> Result<Vec<Outcome>> {
        let mut command = self.agent(scene, times, patience);
        let output = lab::output(&mut command)?;
        let outcomes = output.stdout.lines().map(parse).collect::<Result<Vec<_>>>()?;
        ensure!(outcomes.len() == times as usize, "{self}: {output:?}");
        Ok(outcomes)
    }

    fn agent(self, scene: &Scene, times: u32, patience: Duration) -> std::process::Command {
        let mut command = self.ns(scene).command(BINARY);
        command.args(["lab-agent", self.socket.as_str(), &self.to.to_string()]);
        command.args(["--times", &times.to_string(), "--timeout", &patience.as_millis().to_string()]);
        scene.cgroup.place(&mut command);
        command
    }
}

/// A flow that is open.
pub(crate) struct Kept {
    pub(crate) ask: Ask,
    /// Who answered first.
    pub(crate) backend: String,
    line: Line,
}

enum Line {
    Tcp(Connection),
    Udp(UdpFlow),
    Agent(Agent),
}

impl Kept {
    /// Asks on the open flow.
    pub(crate) fn again(&mut self) -> Result<Outcome> {
        Ok(match &mut self.line {
            Line::Tcp(connection) => outcome(connection.get()),
            Line::Udp(flow) => outcome(flow.exchange(LENGTH).map(|datagram| datagram.answer)),
            Line::Agent(agent) => agent.again()?,
        })
    }
}

/// A process that asks when told to, always on the same socket.
struct Agent {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: bool,
}

impl Agent {
    fn start(ask: Ask, scene: &Scene, patience: Duration) -> Result<Self> {
        let mut command = ask.agent(scene, u32::MAX, patience);
        command.args(["--keep", "--step"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("standard input")?;
        let output = BufReader::new(child.stdout.take().context("standard output")?);
        Ok(Self { child, input, output, asked: false })
    }

    fn again(&mut self) -> Result<Outcome> {
        // The first time it asks of its own accord.
        if self.asked {
            self.input.write_all(b"\n")?;
        }
        self.asked = true;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        parse(&line)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn outcome(answer: Result<Answer, FlowError>) -> Outcome {
    match answer {
        Ok(Answer { backend, seen_source }) => Ok(Seen { backend, source: seen_source.ip() }),
        Err(FlowError::Refused) => Err(Failure::Refused),
        Err(FlowError::TimedOut) => Err(Failure::Silence),
        Err(error) => Err(Failure::Other(format!("{:#}", anyhow!(error)))),
    }
}

fn parse(line: &str) -> Result<Outcome> {
    let report: Report = serde_json::from_str(line).with_context(|| format!("the agent said {line:?}"))?;
    Ok(match (report.error, report.backend, report.seen_source) {
        (None, Some(backend), Some(source)) => Ok(Seen { backend, source: source.ip() }),
        (Some(error), ..) if error == "connection refused" => Err(Failure::Refused),
        (Some(error), ..) if error == "timed out" => Err(Failure::Silence),
        (Some(error), ..) if error.contains("Operation not permitted") => Err(Failure::NotPermitted),
        (error, ..) => Err(Failure::Other(error.unwrap_or_default())),
    })
}
