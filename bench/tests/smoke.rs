//! The program as its users run it, with as little to do as can be, and that it leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use lab::{Netns, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const BENCH: &str = env!("CARGO_BIN_EXE_portico-bench");
/// In place of the daemon, which these do not need.
const NO_PORTICO: [&str; 2] = ["--portico", "/bin/true"];
const DEADLINE: Duration = Duration::from_secs(20);

fn root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and must run as root");
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) -> Output {
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(left(pid), Vec::<String>::new());
    output
}

/// What a process has left.
fn left(pid: u32) -> Vec<String> {
    let prefix = format!("ptc-{pid}-");
    let places = ["/run/netns", "/tmp", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let entries = places.into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let names = entries.map(|entry| entry.path().display().to_string());
    names.filter(|name| name.contains(&prefix)).collect()
}

fn text(output: &Output) -> String {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{err}");
    out
}

#[test]
fn packets_that_are_made_are_counted() {
    root();
    let ns = Netns::new("generate").unwrap();
    ns.ip("link add gen0 type veth peer name gen1 address 02:00:00:00:00:01\nlink set gen0 up\nlink set gen1 up\n")
        .unwrap();
    for generator in ["xdp", "af-packet"] {
        let mut command = ns.command(BENCH);
        command.args(["generate", "--out-interface", "gen0", "--to-mac", "02:00:00:00:00:01"]);
        command.args(["--count-on", "gen1", "--rate", "1000", "--seconds", "1", "--generator", generator]);
        let text = text(&finish(start(&mut command)));
        let line = text.lines().skip_while(|line| !line.contains("packets/s")).nth(1).unwrap();
        let fields: Vec<_> = line.split_whitespace().collect();
        let (sent, arrived): (u64, u64) = (fields[0].parse().unwrap(), fields[3].parse().unwrap());
        assert!(sent > 500 && arrived == sent, "{text}");
    }
}

#[test]
fn the_way_to_the_world_is_not_flooded_by_mistake() {
    root();
    let ns = Netns::new("generate").unwrap();
    ns.ip("link add gen0 type veth peer name gen1\nlink set gen0 up\nlink set gen1 up\n\
           address add 192.0.2.1/24 dev gen0\nroute add default via 192.0.2.2\n")
        .unwrap();
    let mut command = ns.command(BENCH);
    command.args(["generate", "--out-interface", "gen0", "--to-mac", "02:00:00:00:00:01", "--seconds", "1"]);
    let output = finish(start(&mut command));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--even-default-route"));
}

#[test]
fn the_datapath_is_measured() {
    root();
    let mut command = Command::new(BENCH);
    command.args([
        "datapath",
        "--variants",
        "drop,redirect,route,nftables,iptables",
        "--flows",
        "10",
        "--rounds",
        "1",
    ]);
    command.args(["--turn-ms", "20", "--family", "v6", "--fresh", "10"]).args(NO_PORTICO);
    let text = text(&finish(start(&mut command)));
    assert!(text.contains("V6 TCP, frames of 60 bytes, 10 established flows"), "{text}");
    let established = text.lines().skip_while(|line| !line.contains("10 established flows"));
    let measured: Vec<_> = established.collect();
    for variant in [
        "XDP_DROP",
        "bare XDP_REDIRECT",
        "kernel, routing alone",
        "nftables as kube-proxy's",
        "iptables as kube-proxy's",
    ] {
        assert!(measured.iter().any(|line| line.starts_with(&format!(" {variant} "))), "{text}");
    }
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    root();
    let mut command = Command::new(BENCH);
    command
        .args(["datapath", "--variants", "drop,nftables", "--flows", "10", "--rounds", "1000"])
        .args(NO_PORTICO);
    let child = start(&mut command);
    let pid = child.id();
    eventually("namespaces", DEADLINE, || (left(pid).len() >= 6).then_some(())).unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(130));
}
