use std::path::PathBuf;

use clap::Parser as _;

use super::*;
use crate::{
    cli::{Cli, Command},
    config::{DetectLocal, Source, XdpChoice},
};

fn parse(line: &str) -> Run {
    let cli = Cli::try_parse_from(["portico", "run"].into_iter().chain(line.split_whitespace()));
    match cli.unwrap_or_else(|error| panic!("{line}: {error}")).command {
        Command::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn read(line: &str) -> Config {
    parse(line).read().unwrap().unwrap()
}

/// As they stand in manifests, without the name of the program.
const MANIFESTS: [(&str, &str, &[&str]); 5] = [
    ("kubeadm, kind", "--config=/var/lib/kube-proxy/config.conf --hostname-override=node-1", &[]),
    (
        "EKS",
        "--v=2 --hostname-override=ip-10-0-0-1.ec2.internal --config=/var/lib/kube-proxy-config/config",
        &[],
    ),
    (
        "GKE",
        "--master=https://10.128.0.2 --kubeconfig=/var/lib/kube-proxy/kubeconfig --cluster-cidr=10.4.0.0/14 \
         --oom-score-adj=-998 --v=2 --feature-gates=DynamicKubeletConfig=false,RotateKubeletServerCertificate=true \
         --iptables-sync-period=1m --iptables-min-sync-period=10s --ipvs-sync-period=1m --ipvs-min-sync-period=10s \
         --detect-local-mode=NodeCIDR",
        &["--feature-gates", "--cluster-cidr", "--ipvs-min-sync-period", "--ipvs-sync-period"],
    ),
    (
        "AKS",
        "--conntrack-max-per-core=0 --metrics-bind-address=0.0.0.0:10249 --kubeconfig=/var/lib/kubelet/kubeconfig \
         --cluster-cidr=10.244.0.0/16,fd12::/48 --detect-local-mode=ClusterCIDR --pod-interface-name-prefix= --v=3 \
         --proxy-mode iptables --masquerade-all --profiling=false --healthz-bind-address 0.0.0.0",
        &["--proxy-mode"],
    ),
    (
        "old",
        "--logtostderr=true --alsologtostderr --stderrthreshold=0 -v 4 --healthz-port=0 --conntrack-max=0 \
         --resource-container= --udp-timeout=250ms --oom-score-adj -999 --nodeport-addresses=10.0.0.0/8 \
         --nodeport-addresses=primary,localhost --ipvs-strict-arp=true --cleanup=false --vmodule=a=1,b*=2",
        &[
            "--udp-timeout",
            "--logtostderr",
            "--alsologtostderr",
            "--stderrthreshold",
            "--ipvs-strict-arp",
            "--vmodule",
            "--nodeport-addresses",
        ],
    ),
];

#[test]
fn flags_of_manifests_are_taken() {
    for (who, line, noted) in MANIFESTS {
        let mut run = parse(line);
        assert_eq!(run.config.take().is_some(), line.contains("--config="), "{who}");
        let config = run.read().unwrap().unwrap();
        let mut found: Vec<_> = config.options.notes.iter().map(|note| note.object.as_str()).collect();
        let mut noted = noted.to_vec();
        found.sort_unstable();
        noted.sort_unstable();
        assert_eq!(found, noted, "{who}");
    }
    let gke = read(MANIFESTS[2].1).options;
    assert_eq!(gke.api_server.as_deref(), Some("https://10.128.0.2"));
    assert!(matches!(&gke.source, Source::Kubernetes(Some(path)) if path.ends_with("kubeconfig")));
    assert_eq!((gke.oom_score_adj, gke.detect_local), (Some(-998), DetectLocal::NodeCidr));
    assert_eq!((gke.min_sync_period.as_secs(), gke.sync_period.as_secs()), (10, 60));
    let aks = read(MANIFESTS[3].1).options;
    assert_eq!((aks.conntrack.max_per_core, aks.conntrack.min), (None, None));
    assert_eq!(aks.metrics, "0.0.0.0:10249".parse().ok());
    assert!(aks.masquerade_all);
    let old = read(MANIFESTS[4].1);
    assert_eq!((old.verbosity, old.options.healthz), (4, None));
    assert_eq!(
        old.options.configuration["nodePortAddresses"],
        serde_json::json!(["10.0.0.0/8", "primary", "localhost"])
    );
}

#[test]
fn portico_s_own_flags() {
    let config = read(
        "--manifests /m --node-name Edge --interface eth0 --interface eth1 --xdp off --cgroup /c --pin-dir /p \
         --service-cidrs 10.96.0.0/12,fd00::/108 --metrics-bind-address off",
    );
    let options = config.options;
    assert!(matches!(&options.source, Source::Manifests(dir) if dir.ends_with("m")));
    assert_eq!(options.node_name, "edge");
    assert_eq!(options.interfaces, ["eth0", "eth1"]);
    assert_eq!((options.xdp, options.metrics), (XdpChoice::Off, None));
    assert_eq!((options.cgroup, options.pin_dir), (Some(PathBuf::from("/c")), PathBuf::from("/p")));
    assert_eq!(options.service_cidrs.len(), 2);
    assert_eq!(read("").options.pin_dir, PathBuf::from(pins::DEFAULT));
}

#[test]
fn unknown_flags_and_stray_values_are_refused() {
    for line in ["--nonsense", "--masquerade-all true", "--xdp fast", "--conntrack-min", "stray"] {
        let words = ["portico", "run"].into_iter().chain(line.split_whitespace());
        assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
    }
    assert!(parse("--oom-score-adj=5000").read().unwrap().is_err());
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    for (_, line, _) in &MANIFESTS[2..] {
        let before = read(&format!("{line} --interface eth0 --xdp off"));
        write(&path, &before).unwrap();
        let after = read(&format!("--config {}", path.display()));
        let acts = |config: &Config| {
            let options = config::Options { notes: Vec::new(), ..config.options.clone() };
            format!("{options:?} {} {:?}", config.verbosity, config.portico)
        };
        assert_eq!(acts(&after), acts(&before), "{}", fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = parse("--config /nonexistent/config").read().unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration in /nonexistent/config");
}

#[test]
fn every_flag_is_in_the_help() {
    let Err(help) = Cli::try_parse_from(["portico", "run", "--help"]) else { panic!("no help") };
    let help = help.to_string();
    for flag in config::flags() {
        assert!(help.contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}
