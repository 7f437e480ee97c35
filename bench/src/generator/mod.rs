//! A generator of packets, and the ends that count them.
//!
//! Packets are made by an XDP program that the kernel runs on live frames (`BPF_PROG_TEST_RUN` with
//! `BPF_F_TEST_XDP_LIVE_FRAMES`) of one end of a veth, and so come out of the other as if from a wire. The kernel hands
//! the same pages round, so each packet's headers are written anew. It all happens on the calling thread's CPU, as does
//! what the packets cause: a pinned thread measures what one CPU can do. Where the kernel does not do that, a packet
//! socket (`AF_PACKET`) sends the same frames, at several times the cost.

#[path = "../../ebpf/src/abi.rs"]
#[expect(dead_code, reason = "the rest is for the programs")]
pub(crate) mod abi;
#[path = "../../ebpf/src/frame.rs"]
pub(crate) mod frame;
pub(crate) mod latency;
mod packet;
mod share;
pub(crate) mod template;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunAttrs, TestRunOptions, include_bytes_aligned,
    maps::{Array, PerCpuArray},
    programs::{Xdp, XdpMode},
};
use hdrhistogram::Histogram;

use self::{
    abi::{COUNTS, Progress, Redirect, Sink, Traffic},
    share::Times,
};
use crate::progress;

// SAFETY: these are `repr(C)` without padding (integers, larger ones first) or pointers.
unsafe impl Pod for Traffic {}
// SAFETY: as above.
unsafe impl Pod for Progress {}
// SAFETY: as above.
unsafe impl Pod for Sink {}
// SAFETY: as above.
unsafe impl Pod for Redirect {}

/// Packets in a batch: what a veth takes without a loss.
const BATCH: u32 = 64;
/// The same where time matters: fewer wait for the rest of their batch.
const PACED_BATCH: u32 = 8;
/// Packets, or looks at the clock, in the first system call, from which the number in the next follows.
const PROBE: u32 = 1 << 14;
/// How much longer than one call the next may be: how long a packet takes is no more than a guess.
const STEP: u32 = 64;
/// The most in one.
const MOST: u32 = 1 << 26;
/// What the first call takes at the least.
const LEAST: Duration = Duration::from_micros(500);
/// How long what is under way may take to arrive.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks at counters.
const LOOK: Duration = Duration::from_millis(2);

fn object() -> anyhow::Result<Ebpf> {
    let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));
    EbpfLoader::new().load(bytes).context("cannot load the benchmark's programs")
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program: &mut Xdp =
        ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("the kernel does not accept {name}"))?;
    }
    Ok(program)
}

fn set<T: Pod>(ebpf: &mut Ebpf, map: &str, value: T) -> anyhow::Result<()> {
    let mut array: Array<_, T> = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?.try_into()?;
    array.set(0, value, 0).with_context(|| format!("cannot write {map}"))
}

/// What a run has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    /// How many of them opened a flow.
    pub(crate) fresh: u64,
    pub(crate) elapsed: Duration,
    /// Share of that in which the CPU worked for packets rather than for other processes.
    pub(crate) share: f64,
}

/// What makes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// XDP where the kernel can, and else a packet socket.
    Auto,
    /// An XDP program on live frames.
    Xdp,
    /// A packet socket.
    AfPacket,
}

/// From one packet to the next at so many a second, as [`Traffic::interval`].
pub(crate) fn interval(rate: u32) -> u64 {
    (1_000_000_000 << 16) / u64::from(rate.max(1))
}

/// Makes packets.
pub(crate) struct Generator {
    kind: Kind,
    /// None: a packet socket makes them.
    ebpf: Option<Ebpf>,
}

impl Generator {
    pub(crate) fn load(kind: Kind) -> anyhow::Result<Self> {
        let load = || -> anyhow::Result<Ebpf> {
            let mut ebpf = object()?;
            program(&mut ebpf, "generate")?;
            Ok(ebpf)
        };
        let ebpf = match kind {
            Kind::Auto => load().ok(),
            Kind::Xdp => Some(load()?),
            Kind::AfPacket => None,
        };
        Ok(Self { kind, ebpf })
    }

    /// What makes the packets, for reports.
    pub(crate) const fn name(&self) -> &'static str {
        if self.ebpf.is_some() { "XDP on live frames" } else { "a packet socket (AF_PACKET)" }
    }

    /// Sends from an interface of the calling thread's network namespace, for XDP one with a native XDP program, until
    /// `traffic.limit` packets are sent or `longest` has passed. `size` is bytes a frame.
    pub(crate) fn run(
        &mut self,
        interface: u32,
        traffic: &Traffic,
        size: usize,
        longest: Duration,
    ) -> anyhow::Result<Sent> {
        self.resume(interface, traffic, size, longest, Sent::default())
    }

    /// The same after what was sent before: all of it together.
    pub(crate) fn resume(
        &mut self,
        interface: u32,
        traffic: &Traffic,
        size: usize,
        longest: Duration,
        before: Sent,
    ) -> anyhow::Result<Sent> {
        let times = Times::now();
        let sent = self.send(interface, traffic, size, longest, before)?;
        let share = Times::share(times, Times::now());
        Ok(Sent { elapsed: before.elapsed + sent.elapsed, share, ..sent })
    }

    fn send(
        &mut self,
        interface: u32,
        traffic: &Traffic,
        size: usize,
        longest: Duration,
        before: Sent,
    ) -> anyhow::Result<Sent> {
        let Some(ebpf) = &mut self.ebpf else {
            return packet::run(interface, traffic, size, longest, before);
        };
        match live(ebpf, interface, traffic, size, longest, before) {
            // Nothing has been sent then: the kernel refuses at once or never.
            Err(error) if self.kind == Kind::Auto => {
                progress(format_args!("packets are made by a packet socket: {error:#}"));
                self.ebpf = None;
                packet::run(interface, traffic, size, longest, before)
            }
            result => result,
        }
    }
}

/// Makes packets by live frames.
fn live(
    ebpf: &mut Ebpf,
    interface: u32,
    traffic: &Traffic,
    size: usize,
    longest: Duration,
    before: Sent,
) -> anyhow::Result<Sent> {
    set(ebpf, "TRAFFIC", *traffic)?;
    let frame = vec![0; size];
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: Vec<u8> =
        [0, size as u32, 0, interface, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let batch = if traffic.interval == 0 { BATCH } else { PACED_BATCH };
    let mut made = Progress { made: before.packets, fresh: before.fresh, ..Progress::default() };
    let (mut packets, mut elapsed) = (0, Duration::ZERO);
    let mut repeat = PROBE;
    while made.made < traffic.limit && elapsed < longest {
        let left = u32::try_from(traffic.limit - made.made).unwrap_or(u32::MAX);
        set(ebpf, "PROGRESS", Progress { made: made.made, fresh: made.fresh, ..Progress::default() })?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: if traffic.interval == 0 { repeat.min(left) } else { repeat },
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        let began = Instant::now();
        let run = program(ebpf, "generate")?.test_run(options);
        run.context("the kernel does not run the generator on live frames")?;
        made = progress_of(ebpf)?;
        let ran = Duration::from_nanos(made.last - made.start);
        packets += made.end - made.begin;
        elapsed += ran;
        // What is left of the time, in one call, going by this one.
        let each = began.elapsed().min(ran.max(LEAST)).as_nanos() / u128::from(repeat);
        let rest = longest.saturating_sub(elapsed).as_nanos() / each.max(1);
        let most = MOST.min(repeat.saturating_mul(STEP));
        repeat = u32::try_from(rest).unwrap_or(u32::MAX).clamp(PROBE, most.max(PROBE));
    }
    let elapsed = if packets == 0 {
        elapsed
    } else {
        elapsed.mul_f64((made.made - before.packets) as f64 / packets as f64)
    };
    Ok(Sent { packets: made.made, fresh: made.fresh, elapsed, share: 1.0 })
}

fn progress_of(ebpf: &Ebpf) -> anyhow::Result<Progress> {
    let map = ebpf.map("PROGRESS").context("no map PROGRESS")?;
    Ok(Array::<_, Progress>::try_from(map)?.get(&0, 0)?)
}

/// What has come to an end of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) arrived: u64,
    pub(crate) other: u64,
    pub(crate) answered: u64,
}

/// A program on an interface, detached on drop.
pub(crate) struct End {
    ebpf: Ebpf,
    config: Sink,
}

impl End {
    /// Counts what comes in, on an interface of the calling thread's network namespace.
    pub(crate) fn sink(interface: &str, config: Sink) -> anyhow::Result<Self> {
        let mut end = Self::attach(interface, "sink", XdpMode::Driver)?;
        end.config = config;
        end.configure(config)?;
        Ok(end)
    }

    /// The same beside other traffic: in the driver, or else in the stack.
    pub(crate) fn beside(interface: &str, config: Sink) -> anyhow::Result<Self> {
        let mut end = Self::attach(interface, "sink", XdpMode::Driver)
            .or_else(|_| Self::attach(interface, "sink", XdpMode::Skb))?;
        end.config = config;
        end.configure(config)?;
        Ok(end)
    }

    /// Redirects what comes in.
    pub(crate) fn redirect(interface: &str, to: Redirect) -> anyhow::Result<Self> {
        let mut end = Self::attach(interface, "redirect", XdpMode::Driver)?;
        set(&mut end.ebpf, "REDIRECT", to)?;
        Ok(end)
    }

    fn attach(interface: &str, name: &str, mode: XdpMode) -> anyhow::Result<Self> {
        let mut ebpf = object()?;
        let attached = program(&mut ebpf, name)?.attach(interface, mode);
        attached.with_context(|| format!("cannot attach {name} to {interface}"))?;
        Ok(Self { ebpf, config: Sink::default() })
    }

    fn configure(&mut self, config: Sink) -> anyhow::Result<()> {
        set(&mut self.ebpf, "SINK", config)
    }

    /// Answers, or ceases to.
    pub(crate) fn answer(&mut self, answer: bool) -> anyhow::Result<()> {
        self.configure(Sink { answer: answer.into(), ..self.config })
    }

    /// Takes latencies down, or ceases to.
    pub(crate) fn stamped(&mut self, stamped: bool) -> anyhow::Result<()> {
        self.configure(Sink { stamped: stamped.into(), ..self.config })
    }

    pub(crate) fn counts(&self) -> anyhow::Result<Counts> {
        let map = self.ebpf.map("COUNTERS").context("no map COUNTERS")?;
        let map: PerCpuArray<_, u64> = map.try_into()?;
        let mut all = [0; COUNTS];
        for (index, count) in (0..).zip(&mut all) {
            *count = map.get(&index, 0)?.iter().sum();
        }
        let [arrived, other, answered] = all;
        Ok(Counts { arrived, other, answered })
    }

    /// Waits until `wanted` have arrived since `before`, or no more come.
    pub(crate) fn settle(&self, before: Counts, wanted: u64) -> anyhow::Result<Counts> {
        let began = Instant::now();
        loop {
            let counts = self.counts()?;
            let since = Counts {
                arrived: counts.arrived - before.arrived,
                other: counts.other - before.other,
                answered: counts.answered - before.answered,
            };
            if since.arrived >= wanted || began.elapsed() > SETTLE {
                return Ok(since);
            }
            thread::sleep(LOOK);
        }
    }

    /// Latencies since the last call, in ns.
    pub(crate) fn latencies(&mut self) -> anyhow::Result<Histogram<u64>> {
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        let map = self.ebpf.map_mut("LATENCY").context("no map LATENCY")?;
        let mut map: PerCpuArray<_, u64> = map.try_into()?;
        let mut counts = Vec::with_capacity(abi::BUCKETS as usize);
        for bucket in 0..abi::BUCKETS {
            let count = map.get(&bucket, 0)?.iter().sum();
            if count > 0 {
                map.set(bucket, vec![0; cpus].try_into()?, 0)?;
            }
            counts.push(count);
        }
        ensure!(counts.len() == abi::BUCKETS as usize, "latencies are missing");
        latency::of(&counts)
    }
}
