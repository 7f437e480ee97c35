//! The laboratory's client as a process of its own: a cgroup holds processes, not threads, so traffic that the
//! cgroup hooks should see comes from a child.

use std::{
    io::{self, BufRead as _, Write as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::client::{Answer, Connection, FlowError, UdpFlow};

/// Asks a laboratory server and prints each answer as a line of JSON.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// The kind of socket.
    #[arg(value_enum)]
    pub socket: SocketKind,
    /// Address and port to ask; `[::ffff:192.0.2.1]:80` uses an IPv6 socket for IPv4.
    pub to: SocketAddr,
    /// How many times.
    #[arg(long, default_value_t = 1)]
    pub times: u32,
    /// Use one socket for all.
    #[arg(long)]
    pub keep: bool,
    /// Wait for a line on standard input before each time but the first.
    #[arg(long)]
    pub step: bool,
    /// Size of UDP datagrams in bytes.
    #[arg(long, default_value_t = 32)]
    pub length: usize,
    /// How long to wait for an answer, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    pub timeout: u64,
}

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketKind {
    /// TCP.
    Tcp,
    /// UDP, connected.
    Udp,
    /// UDP, sending with an address each time.
    UdpUnconnected,
}

/// A line that the agent prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// What went wrong; the other fields are empty then.
    pub error: Option<String>,
    /// Who answered.
    pub backend: Option<String>,
    /// The agent's address as the backend saw it.
    pub seen_source: Option<SocketAddr>,
    /// The result of `getpeername`, if the socket is connected.
    pub peer: Option<SocketAddr>,
    /// The address that `recvmsg` told, for UDP.
    pub from: Option<SocketAddr>,
}

/// Runs the agent: success if every answer was good.
#[must_use]
pub fn main(args: &AgentArgs) -> ExitCode {
    let mut socket = None;
    let mut code = ExitCode::SUCCESS;
    for time in 0..args.times {
        if args.step && time > 0 && !matches!(io::stdin().lock().lines().next(), Some(Ok(_))) {
            break;
        }
        let report = ask(args, &mut socket).unwrap_or_else(|error| {
            socket = None;
            code = ExitCode::FAILURE;
            Report { error: Some(describe(&error)), ..Report::default() }
        });
        if print(&report).is_err() {
            return ExitCode::FAILURE;
        }
        if !args.keep {
            socket = None;
        }
    }
    code
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The error and its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

enum Socket {
    Tcp(Box<Connection>),
    Udp(UdpFlow),
}

fn ask(args: &AgentArgs, kept: &mut Option<Socket>) -> Result<Report, FlowError> {
    let socket = match kept {
        Some(socket) => socket,
        None => kept.insert(open(args)?),
    };
    let (Answer { backend, seen_source }, peer, from) = match socket {
        Socket::Tcp(connection) => (connection.get()?, connection.peer().ok(), None),
        Socket::Udp(flow) => {
            let datagram = flow.exchange(args.length)?;
            (datagram.answer, flow.peer().ok(), Some(datagram.from))
        }
    };
    Ok(Report { error: None, backend: Some(backend), seen_source: Some(seen_source), peer, from })
}

fn open(args: &AgentArgs) -> Result<Socket, FlowError> {
    let timeout = Duration::from_millis(args.timeout);
    Ok(match args.socket {
        SocketKind::Tcp => Socket::Tcp(Box::new(Connection::open(args.to, timeout)?)),
        SocketKind::Udp => Socket::Udp(UdpFlow::connected(args.to, timeout)?),
        SocketKind::UdpUnconnected => Socket::Udp(UdpFlow::unconnected(args.to, timeout)?),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{Netns, Server},
        *,
    };

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        agent: AgentArgs,
    }

    fn report(ns: &Netns, arguments: &[&str]) -> Report {
        let args = Cli::try_parse_from([&["agent"], arguments].concat()).unwrap().agent;
        let report = ns.run(|| ask(&args, &mut None)).unwrap();
        report.unwrap_or_else(|e| Report { error: Some(describe(&e)), ..Report::default() })
    }

    #[test]
    fn every_kind_of_socket_reports_what_it_sees() {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
        let ns = Netns::new("agent").unwrap();
        let _server = Server::start(&ns, "me", 8080).unwrap();
        for to in ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            let to_address: SocketAddr = to.parse().unwrap();
            let source = to_address.ip().to_canonical();
            for (socket, peer, from) in [
                ("tcp", Some(to_address), None),
                ("udp", Some(to_address), Some(to_address)),
                ("udp-unconnected", None, Some(to_address)),
            ] {
                let report = report(&ns, &[socket, to]);
                assert_eq!(report.backend.as_deref(), Some("me"), "{report:?}");
                assert_eq!(report.seen_source.unwrap().ip(), source);
                assert_eq!((report.peer, report.from), (peer, from));
            }
        }
        for socket in ["tcp", "udp"] {
            let refused = report(&ns, &[socket, "[::1]:9", "--timeout", "300"]);
            assert_eq!(refused.error.as_deref(), Some("connection refused"));
        }
    }
}
