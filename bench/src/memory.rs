//! How much memory processes and maps take.

use std::{
    fs,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::Context as _;
use aya::maps::MapData;
use datapath::abi::Label;
use lab::Netns;
use portico::{
    driver::{maps::MaglevTables, nft::Nft, pins::PinDir},
    plan::BATCH,
};

use crate::{
    report::Table,
    workload::{Size, TARGET, endpoints},
};

/// Bytes in the MB of all figures.
const MB: f64 = (1 << 20) as f64;
/// Long enough for the kernel to free what it has done with.
const SETTLE: Duration = Duration::from_millis(300);

/// What the kernel says it has set aside for each map, in MB.
pub(crate) fn maps(pins: &PinDir, title: String) -> anyhow::Result<Table> {
    let mut table = Table::new(title, &["map", "MB"]);
    let mut sum = 0;
    for (name, bytes) in map_bytes(pins)? {
        sum += bytes;
        table.row([name.into(), (bytes as f64 / MB).into()]);
    }
    table.row(["all".into(), (sum as f64 / MB).into()]);
    Ok(table)
}

/// The same in one sum.
pub(crate) fn maps_mb(pins: &PinDir) -> anyhow::Result<f64> {
    Ok(map_bytes(pins)?.iter().map(|(_, bytes)| *bytes as f64 / MB).sum())
}

fn map_bytes(pins: &PinDir) -> anyhow::Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(pins.maps()).context("cannot list the pinned maps")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let outer = locked(&data)?;
        all.push((name, outer));
    }
    let tables = MaglevTables::open(pins)?;
    let ids = tables.load()?.into_iter();
    let arrays = ids.map(|id| tables.array(id)?.as_ref().map_or(Ok(0), locked));
    all.push(("Maglev tables".to_owned(), arrays.sum::<anyhow::Result<u64>>()?));
    all.sort();
    Ok(all)
}

/// `memlock` of a map, in bytes.
fn locked(map: &MapData) -> anyhow::Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    field(&text, "memlock").with_context(|| format!("{path} says nothing about memory"))
}

/// The first number after `name:`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    pub(crate) now_mb: f64,
    pub(crate) peak_mb: f64,
}

impl Resident {
    /// None if there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::from(&status)
    }

    fn from(status: &str) -> Option<Self> {
        let mb = |name| field(status, name).map(|kib| kib as f64 / 1024.0);
        Some(Self { now_mb: mb("VmRSS")?, peak_mb: mb("VmHWM")? })
    }
}

/// Where memory is accounted for with cgroup v1.
const HIERARCHY: &str = "/sys/fs/cgroup/memory";

/// That place, for who cleans up.
pub(crate) fn hierarchy() -> &'static Path {
    Path::new(HIERARCHY)
}

/// A cgroup that memory is charged to, the kernel's own included. Of cgroup v1, where no parent has to be told to
/// account.
pub(crate) struct Account {
    path: PathBuf,
}

impl Account {
    /// None if the machine has no such hierarchy.
    pub(crate) fn open() -> Option<Self> {
        let path = Path::new(HIERARCHY).join(format!("ptc-bench-{}", process::id()));
        fs::create_dir(&path).ok()?;
        let account = Self { path };
        account.kernel_mb().map(|_| account)
    }

    /// Runs `f`; processes that it starts are charged here for as long as they live, and their children.
    pub(crate) fn charge<T>(&self, f: impl FnOnce() -> T) -> anyhow::Result<T> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let own = cgroups.lines().find_map(|line| line.split_once(":memory:/"));
        let (_, own) = own.context("this process has no memory cgroup")?;
        let enter = |path: &Path| {
            let path = path.join("cgroup.procs");
            fs::write(&path, "0").with_context(|| format!("cannot write {}", path.display()))
        };
        enter(&self.path)?;
        let value = f();
        enter(&Path::new(HIERARCHY).join(own))?;
        Ok(value)
    }

    /// What the kernel holds for its processes, past ones too.
    pub(crate) fn kernel_mb(&self) -> Option<f64> {
        let text = fs::read_to_string(self.path.join("memory.kmem.usage_in_bytes")).ok()?;
        Some(text.trim().parse::<u64>().ok()? as f64 / MB)
    }
}

/// What the kernel holds for the nft elements of so many endpoints, in MB. The sizes that it says maps have leave out what
/// it rounds allocations up to; so this is found out apart from them.
pub(crate) fn nft_maps(account: &Account, size: Size) -> anyhow::Result<Option<f64>> {
    let translations: Vec<(u32, SocketAddr)> = (0..size.services)
        .flat_map(|service| endpoints(service, size.endpoints))
        .map(|address| SocketAddr::new(address.into(), TARGET))
        .zip(Label::FIRST..)
        .map(|(address, label)| (label, address))
        .collect();
    Netns::new("bench")?.run(|| {
        let nft = Nft::new();
        nft.ensure()?;
        let before = account.kernel_mb();
        account.charge(|| translations.chunks(BATCH).try_for_each(|batch| nft.add(batch)))??;
        // The kernel frees what a transaction took somewhat later.
        thread::sleep(SETTLE);
        Ok(account.kernel_mb().zip(before).map(|(after, before)| after - before))
    })?
}

impl Drop for Account {
    fn drop(&mut self) {
        // Succeeds once its processes are gone; the memory that is still charged goes to the parent.
        let _ = fs::remove_dir(&self.path);
    }
}
