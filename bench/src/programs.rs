//! Nanoseconds a packet of the programs, run by the kernel's own harness.
//!
//! The harness (`BPF_PROG_TEST_RUN`) takes the time of a number of runs on one packet. Here that number is one: it does
//! not undo what a run does to the packet, and the XDP program makes room for metadata each time until there is none
//! left. What the harness itself costs is measured with programs that return at once, and subtracted. Between two
//! packets lies a system call, so caches and branch predictors are about as cold as between two packets of a quiet
//! interface, and colder than under load.

mod classes;
mod empty;
mod scale;

use anyhow::{Context as _, bail, ensure};
use aya::{
    TestRun, TestRunOptions, TestRunResult,
    programs::{ProgramError, ProgramInfo, SchedClassifier, Xdp},
};
use datapath::{
    abi::{Counter, Hook},
    testing::{MemoryTables, fixtures, tables},
};
use portico::driver::{
    maps::Maps,
    objects::{Objects, SOCKET_PROGRAMS, TC_PROGRAMS, XDP_PROGRAMS},
};

use self::{classes::CLASSES, empty::Empty};
use crate::{
    progress,
    report::{Cell, Section, Table},
    rig::Rig,
    stats::Nanoseconds,
};

/// Rounds over all programs and packets.
const ROUNDS: u32 = 7;
/// Runs of one program on one packet in a round.
const CALLS: u32 = 1_000;
/// Runs of tc on one packet without a system call between them.
const LOOP: u32 = 5_000;

pub(crate) fn measure() -> anyhow::Result<Section> {
    progress("programs: loading");
    let mut rig = Rig::new()?;
    let empty = Empty::load(&rig.workspace)?;
    fill(&rig.maps, tables())?;
    let verifier = verifier(&mut rig.objects)?;
    let decisions = decisions(&mut rig, &empty)?;
    let scale = scale::measure(&mut rig, &empty)?;
    Ok(Section {
        name: "programs",
        tables: vec![decisions, scale, verifier],
        notes: vec![
            format!(
                "Median over {ROUNDS} rounds (lowest..highest) of the mean of {CALLS} runs without the slowest \
                 hundredth, an empty program subtracted; p99 over all runs, likewise."
            ),
            format!("tc, loop: {LOOP} runs without a system call between them; all caches warm."),
            "tc decides itself here; where XDP has left its decision, it only takes that over.".to_owned(),
        ],
        ..Section::default()
    })
}

/// One run on one packet; the harness's nanoseconds.
fn run<P>(program: &P, frame: &[u8], repeat: u32) -> anyhow::Result<u64>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    let result: Result<TestRunResult, ProgramError> = program.test_run(options);
    Ok(result.context("the kernel does not run the program")?.duration.as_nanos() as u64)
}

fn fill(maps: &Maps, tables: MemoryTables) -> anyhow::Result<()> {
    maps.backends.put(&tables.backends.into_iter().collect::<Vec<_>>())?;
    maps.maglev.put(tables.tables.into_iter())?;
    maps.addresses.put(&tables.addresses.into_iter().collect::<Vec<_>>())?;
    maps.networks.put(&tables.networks.into_iter().collect::<Vec<_>>())?;
    maps.source_ranges.put(&tables.source_ranges.into_iter().map(|range| (range, 1)).collect::<Vec<_>>())?;
    maps.frontends.put(&tables.frontends.into_iter().collect::<Vec<_>>())?;
    Ok(())
}

struct Case {
    name: String,
    frame: Vec<u8>,
    counter: Counter,
    xdp: Nanoseconds,
    tc: Nanoseconds,
    tc_loop: Nanoseconds,
}

fn decisions(rig: &mut Rig, empty: &Empty) -> anyhow::Result<Table> {
    let mut cases = Vec::new();
    for (class, suffix) in CLASSES {
        let found = fixtures().into_iter().filter(|fixture| fixture.name.ends_with(suffix));
        for fixture in found {
            let transport = fixture.name.strip_suffix(suffix).unwrap_or_default();
            cases.push(Case {
                name: format!("{class}{}", transport.trim_end_matches(": ")),
                frame: fixture.frame,
                counter: fixture.expected.counter,
                xdp: Nanoseconds::new()?,
                tc: Nanoseconds::new()?,
                tc_loop: Nanoseconds::new()?,
            });
        }
    }
    ensure!(cases.len() > CLASSES.len(), "fixtures are missing");
    let (mut no_xdp, mut no_tc, mut no_loop) =
        (Nanoseconds::new()?, Nanoseconds::new()?, Nanoseconds::new()?);
    let first = cases.first().map(|case| case.frame.clone()).unwrap_or_default();
    for round in 1..=ROUNDS {
        progress(format_args!("programs: round {round} of {ROUNDS}"));
        let before = rig.maps.counters.load()?;
        no_xdp.round(CALLS, |_| run(&empty.xdp, &first, 1))?;
        no_tc.round(CALLS, |_| run(&empty.tc, &first, 1))?;
        no_loop.round(1, |_| run(&empty.tc, &first, LOOP))?;
        for case in &mut cases {
            let xdp: &Xdp = rig.objects.xdp(XDP_PROGRAMS[0])?;
            case.xdp.round(CALLS, |_| run(xdp, &case.frame, 1))?;
            let tc: &SchedClassifier = rig.objects.tc(TC_PROGRAMS[0])?;
            case.tc.round(CALLS, |_| run(tc, &case.frame, 1))?;
            case.tc_loop.round(1, |_| run(tc, &case.frame, LOOP))?;
        }
        counted(&rig.maps, &before, &cases)?;
    }

    let mut table = Table::new(
        "nanoseconds a packet",
        &["packet", "XDP", "XDP p99", "tc", "tc p99", "tc, loop", "counted as"],
    );
    let base = |empty: &Nanoseconds| empty.above(0.0).map_or(0.0, |range| range.median);
    let (xdp, tc, tc_loop) = (base(&no_xdp), base(&no_tc), base(&no_loop));
    table.row([
        "empty program".into(),
        no_xdp.above(0.0).into(),
        no_xdp.p99().into(),
        no_tc.above(0.0).into(),
        no_tc.p99().into(),
        no_loop.above(0.0).into(),
        Cell::None,
    ]);
    for case in cases {
        table.row([
            case.name.into(),
            case.xdp.above(xdp).into(),
            (case.xdp.p99() - xdp).into(),
            case.tc.above(tc).into(),
            (case.tc.p99() - tc).into(),
            case.tc_loop.above(tc_loop).into(),
            case.counter.name().into(),
        ]);
    }
    Ok(table)
}

/// Makes sure that each packet took the way that its name says, and XDP had room for its metadata.
fn counted(maps: &Maps, before: &[(Hook, Counter, u64)], cases: &[Case]) -> anyhow::Result<()> {
    for ((hook, counter, after), (_, _, before)) in maps.counters.load()?.into_iter().zip(before) {
        let runs = match hook {
            Hook::Xdp => CALLS,
            Hook::Tc => CALLS + LOOP,
            Hook::Socket => 0,
        };
        let expected = cases.iter().filter(|case| case.counter == counter).count() as u64 * u64::from(runs);
        if after - before != expected {
            bail!("{} counted {} {} times, not {expected}", hook.name(), counter.name(), after - before);
        }
    }
    Ok(())
}

fn verifier(objects: &mut Objects) -> anyhow::Result<Table> {
    let mut table = Table::new(
        "size",
        &["program", "instructions the verifier walked", "bytes of eBPF", "bytes of machine code"],
    );
    let mut add = |name: &'static str, info: ProgramInfo| {
        table.row([
            name.into(),
            info.verified_instruction_count().into(),
            info.size_translated().into(),
            info.size_jitted().into(),
        ]);
    };
    for name in XDP_PROGRAMS {
        add(name, objects.xdp(name)?.info()?);
    }
    for name in TC_PROGRAMS {
        add(name, objects.tc(name)?.info()?);
    }
    for name in SOCKET_PROGRAMS {
        add(name, objects.socket(name)?.info()?);
    }
    Ok(table)
}
