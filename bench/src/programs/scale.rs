//! How the time a packet takes grows with the number of services.

use std::net::SocketAddr;

use aya::programs::{SchedClassifier, Xdp};
use datapath::{
    abi::{Addr, Choice, Frontend, FrontendKey, TCP},
    testing::{Family, Layers},
};
use portico::{
    driver::objects::{TC_PROGRAMS, XDP_PROGRAMS},
    plan::{MaglevSpec, maglev},
};

use super::{Empty, run};
use crate::{
    progress,
    report::{Plot, Table},
    rig::Rig,
    stats::Nanoseconds,
    workload::{PORT, TARGET, cluster_ip, endpoints},
};

const SERVICES: [u32; 5] = [1, 10, 100, 1_000, 10_000];
/// Of each service.
const ENDPOINTS: u32 = 10;
const ROUNDS: u32 = 5;
/// Runs in a round; more than there are services.
const CALLS: u32 = 10_000;
/// Where ids begin, so as not to meet those of the fixtures.
const FIRST: u32 = 10_000;
/// Where an IPv4 frame has its source port.
const SOURCE_PORT: usize = 34;

pub(super) fn measure(rig: &mut Rig, empty: &Empty) -> anyhow::Result<Table> {
    let mut frames = Vec::new();
    let mut table = Table::new(
        "nanoseconds a packet to any of a number of services, each with ten endpoints",
        &["services", "XDP", "XDP p99", "tc", "tc p99"],
    )
    .plot(
        Plot::lines("services", "XDP")
            .and("XDP p99")
            .and("tc")
            .and("tc p99")
            .unit("ns/packet")
            .less_is_better(),
    );
    for services in SERVICES {
        progress(format_args!("programs: {services} services"));
        add(rig, &mut frames, services)?;
        let [mut no_xdp, mut no_tc, mut xdp, mut tc] =
            [Nanoseconds::new()?, Nanoseconds::new()?, Nanoseconds::new()?, Nanoseconds::new()?];
        for _ in 0..ROUNDS {
            no_xdp.round(CALLS, |call| run(&empty.xdp, packet(&mut frames, call), 1))?;
            let program: &Xdp = rig.objects.xdp(XDP_PROGRAMS[0])?;
            xdp.round(CALLS, |call| run(program, packet(&mut frames, call), 1))?;
            no_tc.round(CALLS, |call| run(&empty.tc, packet(&mut frames, call), 1))?;
            let program: &SchedClassifier = rig.objects.tc(TC_PROGRAMS[0])?;
            tc.round(CALLS, |call| run(program, packet(&mut frames, call), 1))?;
        }
        let base = |empty: &Nanoseconds| empty.above(0.0).map_or(0.0, |range| range.median);
        let (no_xdp, no_tc) = (base(&no_xdp), base(&no_tc));
        table.row([
            services.into(),
            xdp.above(no_xdp).into(),
            (xdp.p99() - no_xdp).into(),
            tc.above(no_tc).into(),
            (tc.p99() - no_tc).into(),
        ]);
    }
    Ok(table)
}

/// Adds services to the maps until there are so many.
fn add(rig: &Rig, frames: &mut Vec<Vec<u8>>, services: u32) -> anyhow::Result<()> {
    let new = frames.len() as u32..services;
    let ids = |service: u32| (FIRST + service * ENDPOINTS..).zip(endpoints(service, ENDPOINTS));
    let backends: Vec<_> = new
        .clone()
        .flat_map(ids)
        .map(|(id, address)| (id, SocketAddr::new(address.into(), TARGET)))
        .collect();
    let values: Vec<_> = backends.iter().map(|(id, address)| (*id, (*address).into())).collect();
    rig.maps.backends.put(&values)?;
    let specs = new.clone().zip(backends.chunks(ENDPOINTS as usize));
    rig.maps.maglev.put(specs.map(|(service, backends)| {
        let spec = MaglevSpec::new(backends.to_vec());
        (FIRST + service, maglev::chunks(&maglev::build(&spec), &spec).collect())
    }))?;
    let frontends: Vec<_> = new
        .clone()
        .map(|service| {
            let choice = Choice { table: FIRST + service, flags: 0 };
            let key = FrontendKey::new(Addr::v4(cluster_ip(service).octets()), PORT.to_be_bytes(), TCP);
            (
                key,
                Frontend {
                    service: FIRST + service,
                    outside: choice,
                    pod: choice,
                    host: choice,
                    ..Frontend::default()
                },
            )
        })
        .collect();
    rig.maps.frontends.put(&frontends)?;
    frames.extend(new.map(|service| {
        let client = SocketAddr::new(Family::V4.client, 0);
        Layers::new(TCP, client, SocketAddr::new(cluster_ip(service).into(), PORT)).frame()
    }));
    Ok(())
}

/// A packet of a new connection to some service.
fn packet(frames: &mut [Vec<u8>], call: u32) -> &[u8] {
    // Multiplying by an odd constant visits all calls in an order that no cache foresees.
    let random = call.wrapping_mul(0x9e37_79b1);
    let service = ((u64::from(random) * frames.len() as u64) >> 32) as usize;
    let Some(frame) = frames.get_mut(service) else { return &[] };
    if let Some(port) = frame.get_mut(SOURCE_PORT..SOURCE_PORT + 2) {
        port.copy_from_slice(&(random as u16).to_be_bytes());
    }
    frame
}
