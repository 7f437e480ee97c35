use std::{
    io::ErrorKind,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    TestRun, TestRunOptions, TestRunResult,
    programs::{ProgramError, SchedClassifier, Xdp},
    sys::SyscallError,
};
use datapath::{
    abi::{Counter, Hint, Hook, Label},
    testing::tables,
};
use portico::driver::{
    maps::Maps,
    objects::{Features, FlowCache, Objects, XDP_PROGRAMS},
    pins::{DEFAULT, PinDir},
};
use zerocopy::FromBytes as _;

/// A pin directory of one test.
pub(crate) struct Pins(pub(crate) PinDir);

impl Pins {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "this test loads eBPF programs and must run as root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{DEFAULT}-test-{}-{number}", process::id()));
        Self(PinDir::prepare(&path).unwrap())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("left behind: {error}");
        }
    }
}

/// The programs, on maps that hold [`tables`].
pub(crate) struct Rig {
    pub(crate) objects: Objects,
    pub(crate) maps: Maps,
    pub(crate) pins: Pins,
}

/// What a program did with one packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: i32,
    pub(crate) label: Label,
    pub(crate) mark: u32,
    pub(crate) counted: Vec<(Hook, Counter)>,
}

/// Places for flows. Few, because reading the counters goes through them all, and is done for each packet here.
const FLOWS: u32 = 64;

/// SYNs that there is time to answer in a second. Few, because packets are run one at a time.
const ANSWERS: u32 = 5_000;

/// The mark that packets carry before tc sees them.
pub(crate) const MARK_BEFORE: u32 = 0x10;
/// Likewise, the priority.
pub(crate) const PRIORITY_BEFORE: u32 = 7;

/// Where `struct __sk_buff` has its mark and priority.
const MARK: usize = 8;
const PRIORITY: usize = 32;

impl Rig {
    pub(crate) fn new() -> Self {
        let pins = Pins::new();
        let features = Features { cache: FlowCache::of(FLOWS), answers: ANSWERS, ..Features::default() };
        let objects = Objects::load_with(&pins.0, features).unwrap();
        objects.fast().unwrap();
        let maps = Maps::open(&pins.0).unwrap();
        fill(&maps);
        Self { objects, maps, pins }
    }

    /// Runs the XDP program; none if the kernel does not run it on so short a frame.
    pub(crate) fn xdp(&mut self, frame: &[u8]) -> Option<Outcome> {
        let before = self.counters();
        let mut out = vec![0; frame.len() + 256];
        let program: &Xdp = self.objects.xdp(XDP_PROGRAMS[0]).unwrap();
        let result = run(program, frame, Some(&mut out), None)?;
        let written = &out[..result.data_size_out as usize];
        let (hint, rest) = Hint::read_from_prefix(written).unwrap();
        assert_eq!(hint.magic, Hint::MAGIC);
        assert_eq!(rest, frame, "the packet itself is not touched");
        Some(Outcome {
            verdict: result.return_value as i32,
            label: Label(hint.label),
            mark: hint.mark,
            counted: self.counted_since(&before),
        })
    }

    /// Runs a tc program on a packet with [`MARK_BEFORE`] and [`PRIORITY_BEFORE`]; none if the kernel does not run it
    /// on so short a frame.
    pub(crate) fn tc(&mut self, program: &'static str, frame: &[u8]) -> Option<Outcome> {
        let before = self.counters();
        let mut context = [0; 256];
        context[MARK..][..4].copy_from_slice(&MARK_BEFORE.to_ne_bytes());
        context[PRIORITY..][..4].copy_from_slice(&PRIORITY_BEFORE.to_ne_bytes());
        let program: &SchedClassifier = self.objects.tc(program).unwrap();
        let result = run(program, frame, None, Some(&mut context))?;
        let word = |offset: usize| u32::read_from_bytes(&context[offset..offset + 4]).unwrap();
        Some(Outcome {
            verdict: result.return_value as i32,
            label: Label(word(PRIORITY)),
            mark: word(MARK),
            counted: self.counted_since(&before),
        })
    }

    pub(crate) fn counters(&self) -> Vec<(Hook, Counter, u64)> {
        self.maps.counters.load().unwrap()
    }

    /// Each counter as often as it was counted.
    pub(crate) fn counted_since(&self, before: &[(Hook, Counter, u64)]) -> Vec<(Hook, Counter)> {
        let after = self.counters();
        let times = after.iter().zip(before).map(|(after, before)| (after.2 - before.2) as usize);
        after.iter().zip(times).flat_map(|(after, times)| vec![(after.0, after.1); times]).collect()
    }
}

fn fill(maps: &Maps) {
    let tables = tables();
    maps.backends.put(&tables.backends.into_iter().collect::<Vec<_>>()).unwrap();
    maps.maglev.put(tables.tables.into_iter()).unwrap();
    maps.addresses.put(&tables.addresses.into_iter().collect::<Vec<_>>()).unwrap();
    maps.networks.put(&tables.networks.into_iter().collect::<Vec<_>>()).unwrap();
    maps.source_ranges
        .put(&tables.source_ranges.into_iter().map(|range| (range, 1)).collect::<Vec<_>>())
        .unwrap();
    maps.frontends.put(&tables.frontends.into_iter().collect::<Vec<_>>()).unwrap();
}

/// The kernel runs nothing on a packet without a whole Ethernet header, and no tc program on one that claims to be IP
/// and has no whole IP header. Such packets are decided on the host only, by the same code.
fn run<'a, P>(
    program: &P,
    frame: &'a [u8],
    data_out: Option<&'a mut [u8]>,
    context: Option<&'a mut [u8]>,
) -> Option<TestRunResult>
where
    P: for<'b> TestRun<Opts<'b> = TestRunOptions<'b>, Result = TestRunResult>,
{
    let ctx_in = context.as_ref().map(|context| context.to_vec());
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out,
        ctx_in: ctx_in.as_deref(),
        ctx_out: context,
        ..TestRunOptions::new()
    };
    match program.test_run(options) {
        Ok(result) => Some(result),
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == ErrorKind::InvalidInput =>
        {
            None
        }
        Err(error) => panic!("{error}: {frame:02x?}"),
    }
}
