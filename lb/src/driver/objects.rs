//! Loading the eBPF programs onto the pinned maps.

use std::{
    fs,
    io::{self, Read as _},
    marker::PhantomData,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    programs::{CgroupSkb, CgroupSockAddr, Program, SchedClassifier, Xdp},
};
use datapath::{
    abi::{ConntrackLayout, map},
    forward::cache::{HOPS, SEEDS, SPARE, WAYS},
    guard::{self, overload::ANSWERS},
};
use nix::sys::signal::{SigSet, SigmaskHow};
use zerocopy::IntoBytes as _;

use super::{
    host,
    kernel::{
        conntrack::{self, Support},
        kfunc,
    },
    pins::PinDir,
    verifier::Refusal,
};

/// Maps that programs share, each pinned under its name.
const SHARED: [&str; 17] = [
    map::FRONTENDS,
    map::BACKENDS,
    map::MAGLEV,
    map::MAGLEV_SMALL,
    map::ADDRESSES,
    map::NETWORKS,
    map::SOURCE_RANGES,
    map::INTERFACES,
    map::AFFINITY,
    map::SOCKETS,
    map::COUNTERS,
    map::TRAFFIC,
    map::INPUTS,
    map::OUTPUTS,
    map::DEVICES,
    map::RATES,
    map::SOURCE_RATES,
];

/// Names of the cgroup programs, all of one type.
pub const SOCKET_PROGRAMS: [&str; 8] = [
    "portico_connect4",
    "portico_connect6",
    "portico_sendmsg4",
    "portico_sendmsg6",
    "portico_recvmsg4",
    "portico_recvmsg6",
    "portico_getpeername4",
    "portico_getpeername6",
];
/// Name of the program for packets that leave a socket.
pub const EGRESS_PROGRAM: &str = "portico_egress";
/// Names of the XDP programs: for packets in one buffer and in several.
pub const XDP_PROGRAMS: [&str; 2] = ["portico_xdp", "portico_xdp_frags"];
/// Names of those that guard besides.
pub const GUARD_PROGRAMS: [&str; 2] = ["portico_guard", "portico_guard_frags"];
/// Names of those that guard, and forward established flows.
pub const FAST_PROGRAMS: [&str; 2] = ["portico_fast", "portico_fast_frags"];
/// Names of the tc programs: for interfaces with and without Ethernet headers.
pub const TC_PROGRAMS: [&str; 2] = ["portico_tc", "portico_tc_l3"];

/// Why programs could not be loaded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot load the {object} object")]
    Object { object: &'static str, source: EbpfError },
    #[error("the {object} object has no program {program}")]
    Missing { object: &'static str, program: &'static str },
    #[error("cannot identify the network namespace")]
    Namespace(#[source] io::Error),
    #[error("cannot resolve the {object} object's calls of kernel functions")]
    Kernel { object: &'static str, source: kfunc::Error },
    #[error("conntrack cannot be asked from XDP")]
    Fast(#[source] conntrack::Error),
    #[error("cannot count the CPUs")]
    Cpus(#[source] io::Error),
    #[error("cannot pin map {map}")]
    Pin { map: &'static str, source: aya::pin::PinError },
    #[error("cannot remove the pin of map {map}")]
    Unpin { map: &'static str, source: io::Error },
    #[error("cannot draw a random seed")]
    Random(#[source] io::Error),
    #[error("cannot hold back the signals of this thread")]
    Signals(#[source] nix::Error),
    #[error("the kernel does not accept program {program}")]
    Program { program: &'static str, source: Refusal },
}

/// All programs, in the kernel but not attached.
pub struct Objects {
    xdp: Ebpf,
    tc: Ebpf,
    sockops: Ebpf,
    /// Why conntrack cannot be asked from XDP, if it cannot.
    no_fast: Option<Error>,
}

/// What the programs are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The cache of established flows.
    pub cache: FlowCache,
    /// Whether what may not open a connection is dropped in XDP.
    pub guard: bool,
    /// Whether clients may be asked for SYN cookies.
    pub cookies: bool,
    /// To how many SYNs for one address and port each CPU has time to answer so, in a second.
    pub answers: u32,
}

impl Default for Features {
    fn default() -> Self {
        Self { cache: FlowCache::default(), guard: true, cookies: true, answers: ANSWERS }
    }
}

/// The cache of established flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCache {
    /// Flows that fit, on each CPU; a power of two. Zero: no cache.
    flows: u32,
}

impl FlowCache {
    /// Flows of all CPUs together by default, 32 MiB and as much for IPv6 addresses.
    const ALL: u32 = 524_288;

    /// Room for at least so many flows on each CPU.
    #[must_use]
    pub fn of(flows: u32) -> Self {
        Self { flows: if flows == 0 { 0 } else { flows.next_power_of_two().max(WAYS) } }
    }
}

impl Default for FlowCache {
    /// A share for each CPU, neither too little to be of use nor more than its own caches help with.
    fn default() -> Self {
        let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u32).max(1);
        Self::of((Self::ALL / cpus).clamp(32_768, 262_144))
    }
}

impl Objects {
    /// Loads everything. Maps that are pinned are adopted, those that are not are made and pinned. The
    /// network namespace of the calling thread counts as the host's.
    ///
    /// # Errors
    ///
    /// The kernel refuses a map or a program; the source has the end of the verifier's log.
    pub fn load(pins: &PinDir) -> Result<Self, Error> {
        Self::load_with(pins, Features::default())
    }

    /// As [`Objects::load`], with other features.
    ///
    /// # Errors
    ///
    /// As [`Objects::load`].
    pub fn load_with(pins: &PinDir, features: Features) -> Result<Self, Error> {
        let namespace = host::namespace_cookie().map_err(Error::Namespace)?;
        let _undisturbed = Undisturbed::begin().map_err(Error::Signals)?;
        let (xdp, no_fast) = load_xdp(pins, features)?;
        let mut objects = Self {
            xdp,
            tc: load("tc", include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tc")), pins, |_| ())?,
            sockops: load(
                "sockops",
                include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockops")),
                pins,
                |loader| {
                    loader.override_global("HOST_NAMESPACE", &namespace, true);
                },
            )?,
            no_fast,
        };
        let refused = |program| move |error| Error::Program { program, source: Refusal::of(program, error) };
        for program in XDP_PROGRAMS {
            objects.xdp(program)?.load().map_err(refused(program))?;
        }
        for program in GUARD_PROGRAMS.into_iter().chain(FAST_PROGRAMS) {
            if objects.no_fast.is_none() {
                objects.no_fast = objects.xdp(program)?.load().map_err(refused(program)).err();
            }
        }
        for program in TC_PROGRAMS {
            objects.tc(program)?.load().map_err(refused(program))?;
        }
        for program in SOCKET_PROGRAMS {
            objects.socket(program)?.load().map_err(refused(program))?;
        }
        objects.egress()?.load().map_err(refused(EGRESS_PROGRAM))?;
        Ok(objects)
    }

    /// Whether conntrack can be asked from XDP, so that established flows can be forwarded there and new ones be told, or
    /// else why not.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn fast(&self) -> Result<(), &Error> {
        self.no_fast.as_ref().map_or(Ok(()), Err)
    }

    /// The program for packets that leave a socket.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn egress(&mut self) -> Result<&mut CgroupSkb, Error> {
        find(&mut self.sockops, "sockops", EGRESS_PROGRAM)
    }

    /// An XDP program.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn xdp(&mut self, program: &'static str) -> Result<&mut Xdp, Error> {
        find(&mut self.xdp, "xdp", program)
    }

    /// A tc program.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn tc(&mut self, program: &'static str) -> Result<&mut SchedClassifier, Error> {
        find(&mut self.tc, "tc", program)
    }

    /// A cgroup program.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn socket(&mut self, program: &'static str) -> Result<&mut CgroupSockAddr, Error> {
        find(&mut self.sockops, "sockops", program)
    }
}

/// Holds back the signals of this thread while it lives: the verifier gives up when there is one to take (`do_check`,
/// `EAGAIN`), and aya 0.14 tries twice only.
struct Undisturbed {
    before: SigSet,
    /// The mask is the thread's, so it stays there.
    thread: PhantomData<*const ()>,
}

impl Undisturbed {
    fn begin() -> nix::Result<Self> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before, thread: PhantomData })
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // It was this thread's mask before, so it is a valid one.
        let _ = self.before.thread_set_mask();
    }
}

/// The XDP object such as aya loads it, its calls into the kernel resolved, from such as it was compiled; and what the
/// fast path goes by, or why there can be none.
///
/// # Errors
///
/// It is no such object.
pub fn resolve(object: &[u8]) -> Result<(Vec<u8>, Result<Support, conntrack::Error>), Error> {
    let support = conntrack::support();
    let ids = support.as_ref().ok().map(|support| support.functions);
    let functions: Vec<_> =
        conntrack::FUNCTIONS.iter().enumerate().map(|(i, name)| (*name, ids.map(|ids| ids[i]))).collect();
    let resolved =
        kfunc::resolve(object, &functions).map_err(|source| Error::Kernel { object: "xdp", source })?;
    Ok((resolved, support))
}

/// XDP, and why it cannot ask conntrack, if so.
fn load_xdp(pins: &PinDir, features: Features) -> Result<(Ebpf, Option<Error>), Error> {
    let (bytes, support) = resolve(include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp")))?;
    let layout = support.as_ref().map_or_else(|_| ConntrackLayout::default(), |support| support.layout);
    let flows = features.cache.flows;
    let guard =
        if features.guard { guard::ON } else { 0 } | if features.cookies { guard::COOKIES } else { 0 };
    let trust = layout.hz;
    let answers = (features.answers / layout.hz.max(1)).max(1);
    let seed = random().map_err(Error::Random)?;
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| Error::Cpus(error))? as u32;
    let ebpf = load("xdp", &bytes, pins, |loader| {
        loader.override_global("CONNTRACK", &layout, true);
        loader.override_global("FLOWS_EACH", &flows, true);
        loader.override_global("FLOWS_TRUST", &trust, true);
        loader.override_global("FLOWS_SEED", seed.as_slice(), true);
        loader.override_global("GUARD", &guard, true);
        loader.override_global("ANSWERS", &answers, true);
        loader.map_max_entries(map::FLOWS, cpus * (flows + SPARE));
        loader.map_max_entries(map::FLOW_ADDRESSES, cpus * (flows + SPARE));
        loader.map_max_entries(map::NEXT_HOPS, cpus * (HOPS + 1));
    })?;
    // They are no truth to be kept, and may have another size than the last ones.
    for name in [map::FLOWS, map::FLOW_ADDRESSES] {
        let pin = pins.map(name);
        match fs::remove_file(&pin) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Unpin { map: name, source });
            }
            _ => {}
        }
        if let Some(map) = ebpf.map(name) {
            map.pin(&pin).map_err(|source| Error::Pin { map: name, source })?;
        }
    }
    Ok((ebpf, support.err().map(Error::Fast)))
}

fn random() -> io::Result<[u64; SEEDS]> {
    let mut words = [0; SEEDS];
    fs::File::open("/dev/urandom")?.read_exact(words.as_mut_bytes())?;
    Ok(words)
}

fn load<'a>(
    object: &'static str,
    bytes: &[u8],
    pins: &'a PinDir,
    set: impl FnOnce(&mut EbpfLoader<'a>),
) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    set(&mut loader);
    // The log of a successful verification is of no use, and asking for it costs time.
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    for name in SHARED {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(bytes).map_err(|source| Error::Object { object, source })
}

fn find<'a, T>(ebpf: &'a mut Ebpf, object: &'static str, program: &'static str) -> Result<T, Error>
where
    T: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(program)
        .and_then(|program| T::try_from(program).ok())
        .ok_or(Error::Missing { object, program })
}
