use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde_json::json;

use super::{kube_proxy::SCHEMA, *};

const NAME: &str = "config.conf";
const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
const OWN: &str = "apiVersion: portico.dev/v1alpha1\nkind: PorticoConfiguration\n";

fn host() -> Host {
    Host { name: "Edge-1\n".to_owned(), pin_dir: "/pins".into() }
}

fn given(flags: &[(&'static str, &str)]) -> Vec<Given> {
    let mut given: Vec<Given> = Vec::new();
    for (flag, value) in flags {
        match given.iter_mut().find(|earlier| earlier.flag == *flag) {
            Some(earlier) => earlier.values.push((*value).to_owned()),
            None => given.push(Given { flag, values: vec![(*value).to_owned()] }),
        }
    }
    given
}

fn read_all(text: Option<&str>, flags: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
    let file = text.map(|text| File { name: NAME, text });
    read(file, &given(flags), &host())
        .map_err(|Mistakes(mistakes)| mistakes.iter().map(ToString::to_string).collect())
}

fn file(text: &str) -> Config {
    read_all(Some(text), &[]).unwrap()
}

fn flags(flags: &[(&'static str, &str)]) -> Config {
    read_all(None, flags).unwrap()
}

fn mistakes(text: &str) -> Vec<String> {
    read_all(Some(text), &[]).unwrap_err()
}

/// Notes with their objects; the name of the file left out.
fn notes(config: &Config) -> Vec<String> {
    let line = |note: &Note| {
        format!("{}: {}", note.object.strip_prefix("config.conf: ").unwrap_or(&note.object), note.reason)
    };
    config.options.notes.iter().map(line).collect()
}

/// Everything that the daemon acts on.
fn acts(config: &Config) -> String {
    let options = Options { configuration: Value::Null, notes: Vec::new(), ..config.options.clone() };
    format!("{options:?} {}", config.verbosity)
}

/// A value of a field in YAML and as a flag, and the flags without which it does not count.
type Sample = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// One for each path.
fn samples() -> BTreeMap<&'static str, Sample> {
    let (bridge, prefix): (&[_], &[_]) =
        (&[("detect-local-mode", "BridgeInterface")], &[("detect-local-mode", "InterfaceNamePrefix")]);
    let ipvs: &[_] = &[("proxy-mode", "ipvs")];
    BTreeMap::from([
        ("bindAddress", ("010.0.0.1", "10.0.0.1", [].as_slice())),
        ("bindAddressHardFail", ("true", "true", &[])),
        ("clientConnection.acceptContentTypes", ("application/json", "", &[])),
        ("clientConnection.burst", ("20", "20", &[])),
        ("clientConnection.contentType", ("application/json", "application/json", &[])),
        ("clientConnection.kubeconfig", ("/k", "/k", &[])),
        ("clientConnection.qps", ("7.5", "7.5", &[])),
        ("clusterCIDR", ("\"10.244.0.0/16,fd00::/48\"", "10.244.0.0/16,fd00::/48", &[])),
        ("configSyncPeriod", ("1m", "1m", &[])),
        ("conntrack.maxPerCore", ("0", "0", &[])),
        ("conntrack.min", ("1", "1", &[])),
        ("conntrack.tcpCloseWaitTimeout", ("0s", "0s", &[])),
        ("conntrack.tcpEstablishedTimeout", ("1h30m", "1h30m", &[])),
        ("conntrack.udpStreamTimeout", ("3m", "3m", &[])),
        ("conntrack.udpTimeout", ("30s", "30s", &[])),
        ("detectLocal.bridgeInterface", ("cni0", "cni0", bridge)),
        ("detectLocal.interfaceNamePrefix", ("veth", "veth", prefix)),
        ("detectLocalMode", ("NodeCIDR", "NodeCIDR", &[])),
        ("enableProfiling", ("true", "true", &[])),
        ("featureGates", ("{A: true, B: false}", "A=true,B=false", &[])),
        ("healthzBindAddress", ("192.0.2.1", "192.0.2.1", &[])),
        ("hostnameOverride", ("\" Node-7 \"", "Node-7", &[])),
        ("iptables.localhostNodePorts", ("false", "false", &[])),
        ("iptables.masqueradeAll", ("true", "true", &[])),
        ("iptables.masqueradeBit", ("15", "15", &[])),
        ("iptables.minSyncPeriod", ("2s", "2s", &[])),
        ("iptables.snatNodeInternalIP", ("true", "", &[])),
        ("iptables.syncPeriod", ("1m", "1m", &[])),
        ("ipvs.excludeCIDRs", ("[10.0.0.0/8]", "10.0.0.0/8", &[])),
        ("ipvs.ipSet.hashSize", ("1", "", &[])),
        ("ipvs.ipSet.maxElements", ("1", "", &[])),
        ("ipvs.minSyncPeriod", ("2s", "2s", ipvs)),
        ("ipvs.scheduler", ("rr", "rr", &[])),
        ("ipvs.strictARP", ("true", "true", &[])),
        ("ipvs.syncPeriod", ("1m", "1m", ipvs)),
        ("ipvs.tcpFinTimeout", ("1s", "1s", &[])),
        ("ipvs.tcpTimeout", ("1s", "1s", &[])),
        ("ipvs.udpTimeout", ("1s", "1s", &[])),
        ("logging.flushFrequency", ("1000000000", "1s", &[])),
        ("logging.format", ("json", "json", &[])),
        ("logging.options.json.infoBufferSize", ("64Ki", "64Ki", &[])),
        ("logging.options.json.splitStream", ("true", "true", &[])),
        ("logging.options.text.infoBufferSize", ("1", "1", &[])),
        ("logging.options.text.splitStream", ("true", "true", &[])),
        ("logging.sanitization", ("true", "true", &[])),
        ("logging.verbosity", ("4", "4", &[])),
        ("logging.vmodule", ("[{filePattern: a*, verbosity: 3}]", "a*=3", &[])),
        ("metricsBindAddress", ("\"[::]:9999\"", "[::]:9999", &[])),
        ("mode", ("ipvs", "ipvs", &[])),
        ("nftables.masqueradeAll", ("yes", "true", &[])),
        ("nftables.masqueradeBit", ("0", "", &[])),
        ("nftables.minSyncPeriod", ("2s", "2s", &[])),
        ("nftables.syncPeriod", ("1m", "1m", &[])),
        ("nodePortAddresses", ("[primary, 10.0.0.1/8]", "primary,10.0.0.0/8", &[])),
        ("oomScoreAdj", ("0", "0", &[])),
        ("portRange", ("1-2", "1-2", &[])),
        ("serviceProxyName", ("other", "", &[])),
        ("showHiddenMetricsForVersion", ("\"1.35\"", "1.35", &[])),
        ("windowsRunAsService", ("true", "true", &[])),
        ("winkernel.enableDSR", ("true", "true", &[])),
        ("winkernel.forwardHealthCheckVip", ("true", "true", &[])),
        ("winkernel.networkName", ("n", "n", &[])),
        ("winkernel.rootHnsEndpointName", ("n", "n", &[])),
        ("winkernel.sourceVip", ("10.0.0.1", "10.0.0.1", &[])),
        ("conntrack.max", ("1", "1", &[])),
        ("conntrack.tcpBeLiberal", ("true", "true", &[])),
        ("healthzPort", ("1", "", &[])),
        ("resourceContainer", ("/c", "/c", &[])),
        ("udpIdleTimeout", ("250ms", "250ms", &[])),
    ])
}

/// A document with one field.
fn nested(path: &str, value: &str) -> String {
    let mut text = HEAD.to_owned();
    let parts: Vec<_> = path.split('.').collect();
    for (depth, part) in parts.iter().enumerate() {
        text += &format!("{}{part}:", "  ".repeat(depth));
        text += &if depth + 1 == parts.len() { format!(" {value}\n") } else { "\n".to_owned() };
    }
    text
}

#[test]
fn every_field_is_honoured_or_noted_from_file_and_flag() {
    let samples = samples();
    assert_eq!(samples.len(), SCHEMA.fields.len(), "a sample for each field");
    for field in SCHEMA.fields {
        let path = field.path;
        let (yaml, text, with) = samples[path];
        let read = |flags: &[(&'static str, &str)]| read_all(Some(&nested(path, yaml)), flags).unwrap();
        let found = read(with);
        // Some modes need their field.
        let bare = read_all(None, with).unwrap_or_else(|_| flags(&[]));
        let noted = notes(&found).iter().any(|note| note.starts_with(&format!("{path}: ")));
        match field.used {
            field::Used::Meaningless(reason) => {
                assert_eq!(acts(&found), acts(&bare), "{path} is meaningless and changes something");
                let note = format!("{path}: means nothing here: {reason}");
                assert!(notes(&found).contains(&note), "{path}: {:?}", notes(&found));
            }
            field::Used::Honoured(_) if matches!(path, "mode" | "conntrack.tcpBeLiberal") => {
                // The one has a note, the other is what is done anyway.
                assert_eq!((acts(&found) == acts(&bare), noted), (true, path == "mode"), "{path}");
            }
            field::Used::Honoured(help) => {
                assert_ne!(acts(&found), acts(&bare), "{path} changes nothing");
                assert!(!noted, "{path}: {:?}", notes(&found));
                assert_eq!(help.is_empty(), field.flag.is_none(), "{path}");
            }
        }
        let Some(flag) = field.flag else { continue };
        let by_flag = flags(&[with, &[(flag, text)]].concat());
        assert_eq!(acts(&by_flag), acts(&found), "--{flag}");
        assert_eq!(
            by_flag.options.configuration[first(path)],
            found.options.configuration[first(path)],
            "--{flag}"
        );
        if matches!(field.used, field::Used::Meaningless(_)) {
            assert!(notes(&by_flag).iter().any(|note| note.starts_with(&format!("--{flag}: "))), "--{flag}");
        }
    }
}

fn first(path: &str) -> &str {
    // The flag sets both sections.
    match path.split('.').next().unwrap_or_default() {
        "iptables" | "nftables" => "mode",
        first => first,
    }
}

#[test]
fn fields_are_sorted_and_their_defaults_are_good() {
    let paths: Vec<_> = SCHEMA.fields.iter().map(|field| field.path).collect();
    let (now, gone): (Vec<_>, Vec<_>) =
        SCHEMA.fields.iter().partition(|field| field.default != field::Preset::Gone);
    for part in [now, gone] {
        assert!(part.is_sorted_by_key(|field| field.path), "{part:?}");
    }
    assert!(SCHEMA.renamed.iter().all(|(_, path)| paths.contains(path)));
}

#[test]
fn nothing_said_is_what_kube_proxy_defaults() {
    let config = flags(&[]);
    assert_eq!(notes(&config), [""; 0]);
    assert_eq!((config.verbosity, config.portico.is_none()), (0, true));
    let options = config.options;
    assert!(matches!(options.source, Source::Kubernetes(None)));
    assert_eq!(options.node_name, "edge-1");
    assert_eq!(options.pin_dir, PathBuf::from("/pins"));
    assert_eq!(options.node_port_addresses, NodePortAddresses::default());
    assert_eq!(options.node_ips, [] as [IpAddr; 0]);
    assert_eq!(options.detect_local, DetectLocal::ClusterCidr(Vec::new()));
    assert_eq!(options.conntrack, Conntrack::default());
    assert_eq!(options.min_sync_period, Duration::from_millis(50));
    assert_eq!(options.sync_period, Duration::from_secs(30));
    assert_eq!(options.metrics, "127.0.0.1:10249".parse().ok());
    assert_eq!(options.healthz, "0.0.0.0:10256".parse().ok());
    assert_eq!(options.oom_score_adj, Some(-999));
    assert_eq!(
        options.configuration,
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "bindAddress": "0.0.0.0",
            "bindAddressHardFail": false,
            "clientConnection": {
                "acceptContentTypes": "",
                "burst": 10,
                "contentType": "application/vnd.kubernetes.protobuf",
                "kubeconfig": "",
                "qps": 5,
            },
            "clusterCIDR": "",
            "configSyncPeriod": "15m0s",
            "conntrack": {
                "maxPerCore": 32768,
                "min": 131072,
                "tcpBeLiberal": false,
                "tcpCloseWaitTimeout": "1h0m0s",
                "tcpEstablishedTimeout": "24h0m0s",
                "udpStreamTimeout": "0s",
                "udpTimeout": "0s",
            },
            "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
            "detectLocalMode": "ClusterCIDR",
            "enableProfiling": false,
            "featureGates": {},
            "healthzBindAddress": "0.0.0.0:10256",
            "hostnameOverride": "",
            "iptables": {
                "localhostNodePorts": true,
                "masqueradeAll": false,
                "masqueradeBit": 14,
                "minSyncPeriod": "0s",
                "snatNodeInternalIP": null,
                "syncPeriod": "0s",
            },
            "ipvs": {
                "excludeCIDRs": null,
                "minSyncPeriod": "0s",
                "scheduler": "",
                "strictARP": false,
                "syncPeriod": "0s",
                "tcpFinTimeout": "0s",
                "tcpTimeout": "0s",
                "udpTimeout": "0s",
            },
            "logging": {
                "flushFrequency": "5s",
                "format": "text",
                "options": {
                    "json": {"infoBufferSize": "0", "splitStream": false},
                    "text": {"infoBufferSize": "0", "splitStream": false},
                },
                "verbosity": 0,
                "vmodule": null,
            },
            "metricsBindAddress": "127.0.0.1:10249",
            "mode": "",
            "nftables": {
                "masqueradeAll": false,
                "masqueradeBit": 14,
                "minSyncPeriod": "50ms",
                "syncPeriod": "30s",
            },
            "nodePortAddresses": ["primary"],
            "oomScoreAdj": -999,
            "portRange": "",
            "serviceProxyName": "",
            "showHiddenMetricsForVersion": "",
            "windowsRunAsService": false,
            "winkernel": {
                "enableDSR": false,
                "forwardHealthCheckVip": false,
                "networkName": "",
                "rootHnsEndpointName": "",
                "sourceVip": "",
            },
        })
    );
}

/// As `kubeadm init` writes it into ConfigMap kube-proxy.
const KUBEADM: &str = r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

#[test]
fn kubeadm_s_file_says_two_things() {
    let config = file(KUBEADM);
    assert_eq!(notes(&config), [""; 0]);
    let expected =
        flags(&[("kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf"), ("cluster-cidr", "10.244.0.0/16")]);
    assert_eq!(acts(&config), acts(&expected));
    assert_eq!(config.options.configuration, expected.options.configuration);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"kind: KubeProxyConfiguration
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 10.0.0.256
bindAddressHardFail: 1
clusterCIDR: 10.0.0.0/8,10.1.0.0/16
clusterCidr: 10.0.0.0/8
conntrack:
  maxPerCore: "x"
  min: -1
  tcpEstablishedTimeout: 1 day
  udpTimeout: -5s
  udpTimeout: 5s
  more: {}
detectLocal: bridge
detectLocalMode: BridgeInterface
featureGates: {A: maybe}
healthzBindAddress: 0.0.0.0:0
hostnameOverride: 12
iptables: {masqueradeBit: 32, syncPeriod: 10}
ipvs: {excludeCIDRs: [10.0.0.0/8, nonsense]}
logging: {flushFrequency: -1, format: xml, vmodule: [{filePattern: "", verbosity: a, level: 1}]}
metricsBindAddress: localhost:10249
mode: userspace
nftables: []
nodePortAddresses: [primary, 10.0.0.1, Localhost]
oomScoreAdj: 1001
clientConnection: {qps: fast}
---
apiVersion: portico.dev/v1alpha1
kind: PorticoConfiguration
interfaces: eth0
serviceCIDRs: [10.96.0.0]
xdp: fast
---
apiVersion: kubeproxy.config.k8s.io/v1alpha2
kind: KubeProxyConfiguration
---
apiVersion: portico.dev/v1alpha1
kind: PorticoConfiguration
nodeName: ok
---
just text
---
a: [
"#;
    let found = mistakes(text);
    let expected = [
        "bindAddress: \"10.0.0.256\" is not an IP address",
        "bindAddressHardFail: 1 is neither true nor false",
        "clusterCIDR: \"10.0.0.0/8,10.1.0.0/16\" has more than one CIDR of a family",
        "clusterCidr: unknown field; is it clusterCIDR?",
        "conntrack.maxPerCore: \"x\" is not a whole number",
        "conntrack.min: -1 is less than 0",
        "conntrack.tcpEstablishedTimeout: \"1 day\" is not a duration such as \"1h30m\"",
        "conntrack.udpTimeout: \"-5s\" is less than 0",
        "conntrack.udpTimeout: is there twice",
        "conntrack.more: unknown field",
        "detectLocal: \"bridge\" is not a mapping",
        "featureGates.A: \"maybe\" is neither true nor false",
        "healthzBindAddress: \"0.0.0.0:0\" has a port that is not a number from 1 to 65535",
        "hostnameOverride: 12 is not a string; put it in quotes",
        "iptables.masqueradeBit: 32 is more than 31",
        "iptables.syncPeriod: 10 is not a string; put it in quotes",
        "ipvs.excludeCIDRs[1]: \"nonsense\" is not a CIDR",
        "logging.flushFrequency: -1 is not a number of nanoseconds",
        "logging.format: \"xml\" is not one of text, json",
        "logging.vmodule[0].filePattern: is empty",
        "logging.vmodule[0].verbosity: \"a\" is not a whole number",
        "logging.vmodule[0].level: unknown field",
        "metricsBindAddress: \"localhost:10249\" is neither an address, nor one with a port, nor \"off\"",
        "mode: \"userspace\" is not one of iptables, ipvs, nftables",
        "nftables: a list is not a mapping",
        "nodePortAddresses[1]: \"10.0.0.1\" is neither a CIDR nor one of primary, localhost, all",
        "nodePortAddresses[2]: \"Localhost\" is neither a CIDR nor one of primary, localhost, all",
        "oomScoreAdj: 1001 is more than 1000",
        "clientConnection.qps: \"fast\" is not a number",
        "interfaces: \"eth0\" is not a list",
        "serviceCIDRs[0]: \"10.96.0.0\" is not a CIDR",
        "xdp: \"fast\" is not one of auto, native, generic, off",
        "kubeproxy.config.k8s.io/v1alpha2 KubeProxyConfiguration is neither kubeproxy.config.k8s.io/v1alpha1 \
         KubeProxyConfiguration nor portico.dev/v1alpha1 PorticoConfiguration",
        "has more than one PorticoConfiguration",
        "\"just text\" is not a document",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, &format!("{NAME}: {expected}"));
    }
    let rest = &found[expected.len()..];
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest[0].contains("line 4"), "{rest:?}");
    assert_eq!(rest[1], format!("{NAME}: detectLocalMode: needs detectLocal.bridgeInterface"));
}

#[test]
fn values_that_contradict_one_another_are_mistakes() {
    for (body, expected) in [
        (
            "nftables: {minSyncPeriod: 1m}",
            "nftables.minSyncPeriod: minSyncPeriod 1m0s is more than syncPeriod 30s",
        ),
        (
            "mode: ipvs\nipvs: {syncPeriod: 10ms}",
            "ipvs.syncPeriod: minSyncPeriod 50ms is more than syncPeriod 10ms",
        ),
        ("oomScoreAdj: 1\nlinux: {oomScoreAdj: 2}", "linux.oomScoreAdj: is the same as oomScoreAdj"),
        (
            "hostnameOverride: a\n---\napiVersion: portico.dev/v1alpha1\nkind: PorticoConfiguration\nnodeName: b",
            "nodeName: \"b\" is not \"a\" of config.conf: hostnameOverride",
        ),
        ("detectLocalMode: InterfaceNamePrefix", "detectLocalMode: needs detectLocal.interfaceNamePrefix"),
    ] {
        assert_eq!(mistakes(&format!("{HEAD}{body}\n")), [format!("{NAME}: {expected}")], "{body}");
    }
    assert_eq!(
        read_all(
            None,
            &[("conntrack-min", "x"), ("manifests", "/m"), ("kubeconfig", "/k"), ("masquerade-all", "2")]
        )
        .unwrap_err(),
        [
            "--conntrack-min: \"x\" is not a whole number",
            "--masquerade-all: \"2\" is neither true nor false",
            "--manifests: cannot be used with --kubeconfig",
        ]
    );
    for text in ["", "---\n# nothing\n"] {
        assert_eq!(mistakes(text), ["config.conf: has no document"]);
    }
    let no_kind = mistakes("apiVersion: v1\n");
    assert!(no_kind[0].starts_with("config.conf: v1 without kind is neither"), "{no_kind:?}");
}

#[test]
fn flags_have_precedence() {
    let text = format!(
        "{HEAD}hostnameOverride: file\nmetricsBindAddress: 192.0.2.1:1\noomScoreAdj: 5\nmode: nftables\n\
         nftables: {{masqueradeAll: true, minSyncPeriod: 1s}}\nclientConnection: {{kubeconfig: /file}}\n\
         nodePortAddresses: [all]\n---\n{OWN}manifests: /m\ninterfaces: [eth0, eth1]\n"
    );
    let by_file = file(&text).options;
    assert!(matches!(&by_file.source, Source::Manifests(dir) if dir.ends_with("m")));
    assert!(by_file.masquerade_all);
    assert_eq!(by_file.min_sync_period, Duration::from_secs(1));
    assert_eq!(by_file.interfaces, ["eth0", "eth1"]);
    let config = read_all(
        Some(&text),
        &[
            ("hostname-override", " Flag "),
            ("metrics-bind-address", ""),
            ("oom-score-adj", "1"),
            ("oom-score-adj", "2"),
            ("masquerade-all", "false"),
            ("nftables-min-sync-period", "0"),
            ("kubeconfig", "/flag"),
            ("interface", "eth2"),
            ("interface", "eth3"),
            ("cluster-cidr", ""),
        ],
    )
    .unwrap();
    assert_eq!(notes(&config), ["manifests: does not count beside --kubeconfig"]);
    let options = config.options;
    assert_eq!(options.node_name, "flag");
    assert_eq!(options.metrics, None);
    assert_eq!(options.configuration["metricsBindAddress"], "off");
    assert_eq!(options.oom_score_adj, Some(2));
    assert!(!options.masquerade_all);
    assert_eq!(options.min_sync_period, Duration::ZERO);
    assert!(matches!(&options.source, Source::Kubernetes(Some(path)) if path.ends_with("flag")));
    assert_eq!(options.interfaces, ["eth2", "eth3"]);
}

#[test]
fn addresses_to_serve_on() {
    for (text, healthz, metrics) in [
        ("\"\"", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("0.0.0.0", "0.0.0.0:10256", "0.0.0.0:10249"),
        ("\"[::]:7\"", "[::]:7", "[::]:7"),
        ("\"::\"", "[::]:10256", "[::]:10249"),
        ("\":7\"", "0.0.0.0:7", "0.0.0.0:7"),
        ("192.0.2.1:7", "192.0.2.1:7", "192.0.2.1:7"),
        ("off", "", ""),
    ] {
        let options =
            file(&format!("{HEAD}healthzBindAddress: {text}\nmetricsBindAddress: {text}\n")).options;
        assert_eq!(options.healthz, healthz.parse().ok(), "{text}");
        assert_eq!(options.metrics, metrics.parse().ok(), "{text}");
    }
    let options = file(&format!("{HEAD}bindAddress: 'fd00::1'\n")).options;
    assert_eq!(options.healthz, "[::]:10256".parse().ok());
    assert_eq!(options.metrics, "[::1]:10249".parse().ok());
    assert_eq!(options.node_ips, ["fd00::1".parse::<IpAddr>().unwrap()]);
    assert!(file(&format!("{HEAD}bindAddress: '::'\n")).options.node_ips.is_empty());

    for (given, healthz) in [
        ([("healthz-port", "0"), ("healthz-bind-address", "10.0.0.1:5")], ""),
        ([("healthz-port", "7"), ("healthz-bind-address", "10.0.0.1")], "10.0.0.1:7"),
        ([("healthz-port", "7"), ("healthz-bind-address", "10.0.0.1:5")], "10.0.0.1:5"),
    ] {
        assert_eq!(flags(&given).options.healthz, healthz.parse().ok(), "{given:?}");
    }
    assert_eq!(flags(&[("metrics-port", "7")]).options.metrics, "0.0.0.0:7".parse().ok());
    let config = read_all(Some(HEAD), &[("healthz-port", "0")]).unwrap();
    assert_eq!(config.options.healthz, "0.0.0.0:10256".parse().ok());
    assert_eq!(notes(&config), ["--healthz-port: does not count beside --config"]);
    assert_eq!(
        read_all(None, &[("metrics-port", "x")]).unwrap_err(),
        ["--metrics-port: \"x\" is not a port"]
    );
}

#[test]
fn what_does_not_count_together_with_the_rest_is_noted() {
    for (body, expected) in [
        (
            "mode: iptables",
            vec![
                "mode: behaves as nftables; NodePorts are served on the node's own addresses unless \
                 nodePortAddresses says otherwise",
            ],
        ),
        ("mode: ipvs\nnodePortAddresses: [all]", vec!["mode: behaves as nftables"]),
        ("mode: nftables", vec![]),
        (
            "mode: nftables\niptables: {masqueradeAll: true, minSyncPeriod: 2s}",
            vec![
                "iptables.masqueradeAll: does not count with mode nftables",
                "iptables.minSyncPeriod: nftables's counts with mode nftables",
            ],
        ),
        (
            "nftables: {syncPeriod: 1m}\nipvs: {syncPeriod: 1m}",
            vec!["ipvs.syncPeriod: nftables's counts with mode \"\""],
        ),
        (
            "clusterCIDR: 10.0.0.0/8\ndetectLocalMode: NodeCIDR\ndetectLocal: {bridgeInterface: b}",
            vec![
                "clusterCIDR: does not count with detectLocalMode NodeCIDR",
                "detectLocal.bridgeInterface: does not count with detectLocalMode NodeCIDR",
            ],
        ),
        (
            "nodePortAddresses: [primary, 127.0.0.0/8]",
            vec![
                "nodePortAddresses: loopback addresses are served to processes of this node in any case, and to \
                 nobody else",
            ],
        ),
        (
            "clientConnection: {kubeconfig: /k}\n---\napiVersion: portico.dev/v1alpha1\n\
             kind: PorticoConfiguration\nmanifests: /m",
            vec!["clientConnection.kubeconfig: does not count beside config.conf: manifests"],
        ),
    ] {
        assert_eq!(notes(&file(&format!("{HEAD}{body}\n"))), expected, "{body}");
    }
    assert_eq!(notes(&flags(&[("proxy-mode", "nftables"), ("masquerade-all", "true")])), [""; 0]);
    assert_eq!(
        notes(&flags(&[("logtostderr", "true")])),
        ["--logtostderr: means nothing here: logs are text on standard error"]
    );
}

#[test]
fn masquerade_all_is_that_of_the_mode() {
    for (mode, iptables, nftables, linux) in [
        ("''", true, true, true),
        ("iptables", true, false, true),
        ("ipvs", true, false, true),
        ("nftables", false, true, true),
    ] {
        let with = |section: &str| {
            file(&format!("{HEAD}mode: {mode}\n{section}: {{masqueradeAll: true}}\n")).options.masquerade_all
        };
        assert_eq!(
            (with("iptables"), with("nftables"), with("linux")),
            (iptables, nftables, linux),
            "{mode}"
        );
    }
}

#[test]
fn portico_s_own_document_needs_no_other() {
    let config = file(&format!(
        "{OWN}apiServer: 'https://a'\nmanifests: /m\nnodeName: Edge\ninterfaces: [eth0]\nxdp: off\ncgroup: /c\npinDir: /p\n\
         serviceCIDRs: [10.96.0.0/12, 'fd00::/108']\n"
    ));
    let options = &config.options;
    assert_eq!(notes(&config), ["apiServer: does not count beside manifests"]);
    assert_eq!(flags(&[("master", "https://a")]).options.api_server.as_deref(), Some("https://a"));
    assert_eq!(options.node_name, "edge");
    assert_eq!(options.interfaces, ["eth0"]);
    assert_eq!(options.xdp, XdpChoice::Off);
    assert_eq!(options.cgroup, Some("/c".into()));
    assert_eq!(options.pin_dir, PathBuf::from("/p"));
    assert_eq!(options.service_cidrs, [cidr("10.96.0.0/12").unwrap(), cidr("fd00::/108").unwrap()]);
    assert_eq!(config.portico.unwrap()["xdp"], "off");

    let json = r#"{"apiVersion": "portico.dev/v1alpha1", "kind": "PorticoConfiguration", "pinDir": "/p"}"#;
    assert_eq!(file(json).options.pin_dir, PathBuf::from("/p"));
}

/// The documentation has every field, and every flag that is not only there for old manifests.
#[test]
fn the_documentation_is_complete() {
    let page = include_str!("../../../docs/configuration.md");
    let fields = SCHEMA.fields.iter().chain(portico::SCHEMA.fields).map(|field| field.path.to_owned());
    let flags = super::flags()
        .map(|flag| if flag.name == "v" { "--v".to_owned() } else { format!("--{}", flag.name) });
    let missing: Vec<_> = fields.chain(flags).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
}
