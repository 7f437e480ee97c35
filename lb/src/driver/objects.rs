//! Loading the eBPF programs onto the pinned maps.

use std::io;

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    programs::{CgroupSkb, CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp},
};
use datapath::abi::map;

use super::{host, pins::PinDir};

/// Maps that programs share, each pinned under its name.
const SHARED: [&str; 10] = [
    map::FRONTENDS,
    map::BACKENDS,
    map::MAGLEV,
    map::ADDRESSES,
    map::NETWORKS,
    map::SOURCE_RANGES,
    map::INTERFACES,
    map::AFFINITY,
    map::SOCKETS,
    map::COUNTERS,
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
    #[error("the kernel does not accept program {program}")]
    Program { program: &'static str, source: ProgramError },
}

/// All programs, in the kernel but not attached.
pub struct Objects {
    xdp: Ebpf,
    tc: Ebpf,
    sockops: Ebpf,
}

impl Objects {
    /// Loads everything. Maps that are pinned are adopted, those that are not are made and pinned. The
    /// network namespace of the calling thread counts as the host's.
    ///
    /// # Errors
    ///
    /// The kernel refuses a map or a program; the source has the verifier's log.
    pub fn load(pins: &PinDir) -> Result<Self, Error> {
        let namespace = host::namespace_cookie().map_err(Error::Namespace)?;
        let mut objects = Self {
            xdp: load("xdp", include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp")), pins, None)?,
            tc: load("tc", include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tc")), pins, None)?,
            sockops: load(
                "sockops",
                include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockops")),
                pins,
                Some(namespace),
            )?,
        };
        let refused = |program| move |source| Error::Program { program, source };
        for program in XDP_PROGRAMS {
            objects.xdp(program)?.load().map_err(refused(program))?;
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

fn load(object: &'static str, bytes: &[u8], pins: &PinDir, namespace: Option<u64>) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    if let Some(namespace) = &namespace {
        loader.override_global("HOST_NAMESPACE", namespace, true);
    }
    // The log of a successful verification is of no use, and asking for it costs time.
    loader.verifier_log_level(VerifierLogLevel::DISABLE);
    for name in SHARED {
        loader.map_pin_path(name, pins.maps().join(name));
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
