//! Flags that are no field of a document.

/// A flag that is accepted and does nothing.
#[derive(Debug)]
pub(super) struct Idle {
    /// Without dashes.
    pub(super) name: &'static str,
    /// Whether it takes a value only after `=`.
    pub(super) bool: bool,
    /// Why it does nothing.
    pub(super) reason: &'static str,
}

const STDERR: &str = "logs are text on standard error";
const REMOVED: &str = "kube-proxy has removed it, too";
const IDENTITY: &str = "nothing here needs to know the machine";

const fn switch(name: &'static str, reason: &'static str) -> Idle {
    Idle { name, bool: true, reason }
}

const fn valued(name: &'static str, reason: &'static str) -> Idle {
    Idle { name, bool: false, reason }
}

/// klog's flags, of which those but `v` and `vmodule` went with Kubernetes 1.26, and some of kube-proxy's own past.
pub(super) static IDLE: [Idle; 15] = [
    switch("add-dir-header", STDERR),
    switch("alsologtostderr", STDERR),
    valued("boot-id-file", IDENTITY),
    switch("cleanup-iptables", REMOVED),
    switch("cleanup-ipvs", REMOVED),
    valued("log-backtrace-at", STDERR),
    valued("log-dir", STDERR),
    valued("log-file", STDERR),
    valued("log-file-max-size", STDERR),
    switch("logtostderr", STDERR),
    valued("machine-id-file", IDENTITY),
    switch("one-output", STDERR),
    switch("skip-headers", STDERR),
    switch("skip-log-headers", STDERR),
    valued("stderrthreshold", STDERR),
];
