//! A real `portico run` on manifests: how long it takes to start, to follow a change and to start again, and how much
//! memory it takes.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use lab::{Cgroup, Daemon, Netns, Options, Workspace, manifest::Manifests};
use portico::driver::pins::PinDir;
use serde_json::Value;

use crate::{
    memory::{self, Account, Resident},
    progress,
    report::{Cell, Plot, Section, Table},
    stats::{Range, milliseconds},
    workload::{self, Size},
};

/// Changes of a small file, and of the large one.
const CHANGES: [u16; 2] = [10, 3];
const FILE: &str = "services.yaml";
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at the log. Shorter than what is to be measured, long enough not to slow it down.
const LOOK: Duration = Duration::from_millis(1);
/// The daemon's words.
const SYNCED: &str = "in sync";
const WRITTEN: &str = "kernel brought up to date";

pub(crate) fn measure(binary: &Path, sizes: &[Size]) -> anyhow::Result<Section> {
    let mut runs = Vec::new();
    for size in [Size { services: 0, endpoints: 0 }].iter().chain(sizes) {
        runs.push(Run::measure(binary, *size)?);
    }
    let mut times = Table::new(
        "milliseconds",
        &[
            "services",
            "start to in sync",
            "kill, start to in sync",
            "small file to kernel",
            "large file to kernel",
        ],
    )
    .plot(Plot::bars("start to in sync").and("kill, start to in sync").unit("ms").less_is_better());
    let mut memory = Table::new(
        "MB",
        &[
            "services",
            "daemon",
            "its peak",
            "peak after restart",
            "kernel, all",
            "BPF maps",
            "nft maps",
            "daemon and kernel",
        ],
    )
    .plot(Plot::bars("daemon").and("kernel, all").unit("MB").less_is_better());
    let mut samples = Vec::new();
    for run in &runs {
        let Run { size, start, restart, small, large, .. } = run;
        times.row([
            size.to_string().into(),
            (*start).into(),
            (*restart).into(),
            (*small).into(),
            (*large).into(),
        ]);
        let all = run.kernel.map(|kernel| run.first.now_mb + kernel);
        memory.row([
            Cell::from(size.to_string()),
            run.first.now_mb.into(),
            run.first.peak_mb.into(),
            run.second.peak_mb.into(),
            run.kernel.into(),
            run.maps.into(),
            run.nft_maps.into(),
            all.into(),
        ]);
        samples.extend(run.samples());
    }
    Ok(Section {
        name: "daemon",
        tables: vec![times, memory],
        samples,
        notes: vec![
            "1000 x 10: a thousand services of ten endpoints each. All objects in one YAML file; the small file holds one more EndpointSlice of one endpoint. From a file to \
             the kernel, 50 ms are spent waiting for its writer to finish, and up to 50 ms for further changes."
                .to_owned(),
            "Daemon: VmRSS when in sync; peaks are VmHWM. Kernel, all: charged to the cgroup of the daemon. BPF maps: what \
             the kernel says of them (memlock), without what it rounds their allocations up to. nft maps: charged for \
             as many elements in a table of their own."
                .to_owned(),
        ],
        ..Section::default()
    })
}

struct Run {
    size: Size,
    start: f64,
    restart: f64,
    small: Option<Range>,
    large: Option<Range>,
    first: Resident,
    second: Resident,
    maps: f64,
    kernel: Option<f64>,
    nft_maps: Option<f64>,
}

impl Run {
    /// For the CSV file.
    fn samples(&self) -> Vec<Vec<(&'static str, Cell)>> {
        let sample = |what: &'static str, unit: &'static str, figure: f64| {
            let Size { services, endpoints } = self.size;
            vec![
                ("what", what.into()),
                ("services", services.into()),
                ("endpoints", endpoints.into()),
                (unit, figure.into()),
            ]
        };
        let nft = self.nft_maps.map(|nft| sample("daemon and nft maps", "MB", self.first.now_mb + nft));
        [sample("start", "ms", self.start), sample("restart", "ms", self.restart)]
            .into_iter()
            .chain(nft)
            .collect()
    }

    fn measure(binary: &Path, size: Size) -> anyhow::Result<Self> {
        progress(format_args!("daemon: {size}"));
        let (ns, workspace, cgroup, account) =
            (Netns::new("bench")?, Workspace::new()?, Cgroup::new("bench")?, Account::open());
        ns.ip("link add name eth0 type veth peer name far\nlink set eth0 up\nlink set far up\n")?;
        let manifests = Manifests::new(workspace.manifests());
        manifests.put_node()?;
        manifests.put_text(FILE, &workload::manifests(size, None))?;
        let mut options = Options::new(binary, &workspace, cgroup.path());
        options.interfaces = vec!["eth0".to_owned()];
        options.more = ["--metrics-bind-address", "off"].map(Into::into).to_vec();

        let began = Instant::now();
        let daemon = charged(account.as_ref(), || Daemon::start(&ns, options))??;
        let mut watched = Watched { daemon };
        watched.wait(SYNCED, 1)?;
        let start = milliseconds(began.elapsed());
        let status = watched.daemon.status()?;
        ensure!(status.get("synced") == Some(&Value::Bool(true)), "in sync, but the status is {status}");
        let first = watched.resident()?;
        let kernel = account.as_ref().and_then(Account::kernel_mb);
        let pins = PinDir::find(&workspace.pins()).context("the daemon made no pin directory")?;
        let maps = memory::maps_mb(&pins)?;
        let nft_maps = account.as_ref().map(|account| memory::nft_maps(account, size)).transpose()?.flatten();

        let (mut small, mut large) = (Vec::new(), Vec::new());
        if size.services > 0 {
            let [small_changes, large_changes] = CHANGES;
            for n in 0..small_changes {
                let text = workload::guest_manifest(u32::from(n) % size.services, workload::guest(n));
                small.push(watched.change(&manifests, "guest.yaml", &text)?);
            }
            for n in 0..large_changes {
                let text = workload::manifests(size, Some(workload::guest(small_changes + n)));
                large.push(watched.change(&manifests, FILE, &text)?);
            }
        }

        watched.daemon.kill();
        let began = Instant::now();
        charged(account.as_ref(), || watched.daemon.start_again())??;
        watched.wait(SYNCED, 2)?;
        let restart = milliseconds(began.elapsed());
        let second = watched.resident()?;
        let (small, large) = (Range::of(small), Range::of(large));
        Ok(Self { size, start, restart, small, large, first, second, maps, kernel, nft_maps })
    }
}

fn charged<T>(account: Option<&Account>, f: impl FnOnce() -> T) -> anyhow::Result<T> {
    match account {
        Some(account) => account.charge(f),
        None => Ok(f()),
    }
}

/// A daemon, followed by what it logs.
struct Watched {
    daemon: Daemon,
}

impl Watched {
    fn count(&self, words: &str) -> usize {
        self.daemon.stderr().iter().filter(|line| line.contains(words)).count()
    }

    fn wait(&self, words: &str, times: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.count(words) < times {
            ensure!(
                began.elapsed() < DEADLINE && Resident::of(self.daemon.pid()).is_some(),
                "the daemon does not say \"{words}\":\n{}",
                self.daemon.stderr().join("\n")
            );
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Milliseconds from a file to the kernel.
    fn change(&self, manifests: &Manifests, file: &str, text: &str) -> anyhow::Result<f64> {
        let before = self.count(WRITTEN);
        let began = Instant::now();
        manifests.put_text(file, text)?;
        self.wait(WRITTEN, before + 1)?;
        Ok(milliseconds(began.elapsed()))
    }

    fn resident(&self) -> anyhow::Result<Resident> {
        Resident::of(self.daemon.pid()).context("the daemon is gone")
    }
}
