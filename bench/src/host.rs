//! The machine.

use std::{
    fmt, fs,
    process::{Command, Output},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::utsname::uname,
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// Where and when figures were taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Host {
    kernel: String,
    machine: String,
    cpu: String,
    cpus: usize,
    pinned_to: usize,
    memory_mb: u64,
    nft: String,
    /// Empty where it is not installed.
    #[serde(default)]
    iptables: String,
    /// Seconds since 1970.
    time: u64,
    load_before: String,
}

impl Host {
    pub(crate) fn look(pinned_to: usize) -> anyhow::Result<Self> {
        let system = uname().context("cannot ask the kernel for its name")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field(&meminfo, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        let nft = Command::new("nft").arg("--version").output().context("cannot run nft")?;
        let iptables = Command::new("iptables-nft").arg("--version").output();
        let line = |output: &Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self {
            kernel: system.release().to_string_lossy().into_owned(),
            machine: system.machine().to_string_lossy().into_owned(),
            cpu: field(&cpuinfo, "model name").unwrap_or_default(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            pinned_to,
            memory_mb: kib.unwrap_or(0) >> 10,
            nft: line(&nft),
            iptables: iptables.as_ref().map(line).unwrap_or_default(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            load_before: load(),
        })
    }
}

impl Host {
    /// Of the day, in UTC.
    pub(crate) fn date(&self) -> String {
        let time = jiff::Timestamp::from_second(self.time.cast_signed()).unwrap_or_default();
        time.strftime("%-d %B %Y, %H:%M UTC").to_string()
    }

    /// In a line.
    pub(crate) fn summary(&self) -> String {
        let Self { kernel, machine, cpu, cpus, memory_mb, .. } = self;
        format!("Linux {kernel} on {machine}, {cpus} × {cpu}, {:.0} GB of memory", *memory_mb as f64 / 1024.0)
    }

    pub(crate) fn load_before(&self) -> &str {
        &self.load_before
    }

    /// Whether more ran than one thread of measuring, before or after.
    pub(crate) fn busy(&self, load_after: &str) -> bool {
        let load = |text: &str| text.parse().unwrap_or(0.0_f64);
        load(&self.load_before).max(load(load_after)) > self.cpus as f64
    }

    /// Versions of the packet filters' commands.
    pub(crate) fn filters(&self) -> String {
        let all = [&self.nft, &self.iptables];
        all.into_iter().filter(|version| !version.is_empty()).cloned().collect::<Vec<_>>().join("; ")
    }

    /// Names and values.
    pub(crate) fn facts(&self) -> [(&'static str, String); 7] {
        let Self { kernel, machine, cpu, cpus, pinned_to, memory_mb, load_before, .. } = self;
        [
            ("Date", self.date()),
            ("Kernel", format!("Linux {kernel} {machine}")),
            ("CPU", cpu.clone()),
            ("CPUs", cpus.to_string()),
            ("Packets made on CPU", pinned_to.to_string()),
            ("Memory", format!("{memory_mb} MB")),
            ("Load average before", load_before.clone()),
        ]
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, machine, cpu, cpus, pinned_to, memory_mb, load_before, .. } = self;
        let filters = self.filters();
        write!(
            f,
            "Linux {kernel} {machine}, {cpus} x {cpu}, {memory_mb} MB, {filters}; pinned to CPU {pinned_to}; load \
             average before the run {load_before}"
        )
    }
}

/// The load average of the last minute: how much else is going on.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Keeps this thread and those it starts on one CPU; the last if none is named.
pub(crate) fn pin(cpu: Option<usize>) -> anyhow::Result<usize> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("cannot ask for the CPUs")?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let cpu = cpu.or(last).context("no CPU to run on")?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(this, &one).with_context(|| format!("cannot run on CPU {cpu}"))?;
    Ok(cpu)
}

/// How many CPUs this process may run on, counted from 0.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets this thread run anywhere again.
pub(crate) fn unpin() -> anyhow::Result<()> {
    let mut all = CpuSet::new();
    (0..CpuSet::count()).try_for_each(|cpu| all.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &all).context("cannot run on all CPUs")
}
