//! The aims, and where their figures are.

use super::{Aim, Found, Need, Unit};
use crate::{
    flood::COOKIES,
    report::{Record, Report},
    stats::Range,
    variants::Variant,
};

/// Katran's ratios to the bare redirect, hot and with 100,000 flows: measured with its balancer (encapsulation in IPIP,
/// XDP_TX, 100 reals, its LRU warm) on veth pairs like these, in another run.
const KATRAN: [f64; 2] = [0.76, 0.45];
/// Services and endpoints that the plan and the daemon are to cope with.
const LARGE: (f64, f64) = (10_000.0, 10.0);

/// Columns that say that packets were made for another question: paced, with new flows among them, masqueraded.
const OTHERS: [&str; 3] = ["rate", "fresh_percent", "masquerade"];

const fn aim(
    what: &'static str,
    need: Need,
    unit: Unit,
    from: &'static str,
    find: fn(&Report) -> Option<Found>,
) -> Aim {
    Aim { what, need, unit, from, find, headline: false }
}

const fn headline(aim: Aim) -> Aim {
    Aim { headline: true, ..aim }
}

pub(super) const AIMS: &[Aim] = &[
    aim(
        "established, 1 flow, against bare XDP_REDIRECT",
        Need::AtLeast(0.9),
        Unit::Percent,
        "datapath",
        |r| speed(r, 1.0, Variant::Redirect),
    ),
    headline(aim(
        "established, 1,000 flows, against bare XDP_REDIRECT",
        Need::AtLeast(0.9),
        Unit::Percent,
        "datapath",
        |r| speed(r, 1e3, Variant::Redirect),
    )),
    headline(aim(
        "established, 100,000 flows, against bare XDP_REDIRECT",
        Need::AtLeast(0.55),
        Unit::Percent,
        "datapath",
        |r| speed(r, 1e5, Variant::Redirect),
    )),
    aim(
        "established, 1 flow, against the nftables ruleset",
        Need::AtLeast(6.0),
        Unit::Times,
        "datapath",
        |r| speed(r, 1.0, Variant::Nftables),
    ),
    headline(aim(
        "established, 1,000 flows, against the nftables ruleset",
        Need::AtLeast(6.0),
        Unit::Times,
        "datapath",
        |r| speed(r, 1e3, Variant::Nftables),
    )),
    headline(aim(
        "established, 100,000 flows, against the nftables ruleset",
        Need::AtLeast(4.0),
        Unit::Times,
        "datapath",
        |r| speed(r, 1e5, Variant::Nftables),
    )),
    aim(
        "established, 1,000,000 flows, against no cache",
        Need::AtLeastWithinNoise(1.0),
        Unit::Times,
        "datapath",
        |r| speed(r, 1e6, Variant::FastPathUncached),
    ),
    aim(
        "ahead of Katran, 1,000 flows, against bare XDP_REDIRECT",
        Need::MoreThan(KATRAN[0]),
        Unit::Percent,
        "datapath",
        |r| speed(r, 1e3, Variant::Redirect),
    ),
    aim(
        "ahead of Katran, 100,000 flows, against bare XDP_REDIRECT",
        Need::MoreThan(KATRAN[1]),
        Unit::Percent,
        "datapath",
        |r| speed(r, 1e5, Variant::Redirect),
    ),
    aim(
        "new flows, any number of services, against the nftables ruleset with one",
        Need::AtLeast(1.0),
        Unit::Times,
        "growth",
        openings,
    ),
    aim(
        "new flows, 10,000 services, against the nftables ruleset",
        Need::AtLeast(1.3),
        Unit::Times,
        "growth",
        |r| {
            let protocols = ["tcp", "udp"].into_iter().filter_map(|protocol| {
                let portico = ("new", protocol, Variant::FastPath, 1e4);
                let range = growth(r, ("new", protocol, Variant::Nftables, 1e4), portico)?;
                Some(Found { range, at: protocol.to_uppercase() })
            });
            least(protocols)
        },
    ),
    aim(
        "time for a packet, 10,000 services, against one service",
        Need::AtMostWithinNoise(1.0),
        Unit::Times,
        "growth",
        |r| {
            let [one, many] = [1.0, 1e4].map(|services| ("established", "tcp", Variant::FastPath, services));
            found(growth(r, many, one)?)
        },
    ),
    aim("SYN flood with cookies, against XDP_DROP", Need::AtLeast(0.7), Unit::Percent, "flood", |r| {
        let of = |name: &'static str| {
            let turns = records(r, "flood")
                .filter(move |turn| turn.text("what") == Some("rate") && turn.text("variant") == Some(name));
            turns.filter_map(|turn| Some((turn.number("round")?, turn.number("ns_per_packet")?)))
        };
        let ratios = of(COOKIES).filter_map(|(round, own)| {
            let (_, other) = of(Variant::Drop.name()).find(|(other, _)| *other == round)?;
            Some(other / own)
        });
        found(Range::of(ratios.collect())?)
    }),
    aim(
        "Maglev, largest share of a backend (100 slots each)",
        Need::AtMost(1.02),
        Unit::Plain(" of the average"),
        "maglev",
        |r| most(even(r, "largest share / average")),
    ),
    aim(
        "Maglev, smallest share of a backend (100 slots each)",
        Need::AtLeast(0.98),
        Unit::Plain(" of the average"),
        "maglev",
        |r| least(even(r, "smallest / average")),
    ),
    aim("Maglev table for 1,000 backends", Need::Under(2.0), Unit::Plain(" ms"), "maglev", |r| {
        let mut records = records(r, "maglev").filter(|record| record.number("backends") == Some(1e3));
        found(records.next()?.range("build ms")?)
    }),
    aim(
        "plan and write 10,000 services of 10 from nothing",
        Need::Under(5.0),
        Unit::Plain(" s"),
        "plan",
        |r| found(scaled(large(r, "plan", "from nothing", "ms")?, 1e-3)),
    ),
    aim("plan and write one endpoint among them", Need::Under(20.0), Unit::Plain(" ms"), "plan", |r| {
        found(large(r, "plan", "one endpoint", "ms")?)
    }),
    aim(
        "portico run with them, from its start to in sync",
        Need::Under(5.0),
        Unit::Plain(" s"),
        "daemon",
        |r| found(scaled(large(r, "daemon", "start", "ms")?, 1e-3)),
    ),
    aim(
        "memory of the daemon and the nft maps with them",
        Need::Under(200.0),
        Unit::Plain(" MB"),
        "daemon",
        |r| found(large(r, "daemon", "daemon and nft maps", "MB")?),
    ),
];

#[expect(clippy::unnecessary_wraps, reason = "what finds nothing returns before")]
const fn found(range: Range) -> Option<Found> {
    Some(Found { range, at: String::new() })
}

/// Rows of a section's tables and samples.
fn records<'a>(report: &'a Report, section: &'a str) -> impl Iterator<Item = Record<'a>> {
    report.tables(section).flat_map(|table| table.records())
}

/// How fast the fast path is with frames of 60 bytes, measured by another variant of the same round: the slower family.
fn speed(report: &Report, flows: f64, to: Variant) -> Option<Found> {
    let families = ["V4", "V6"].into_iter().filter_map(|family| {
        let turns: Vec<Record<'_>> = records(report, "datapath")
            .filter(|turn| {
                turn.text("family") == Some(family)
                    && turn.text("protocol") == Some("TCP")
                    && turn.number("bytes") == Some(60.0)
                    && turn.number("flows") == Some(flows)
                    && OTHERS.iter().all(|other| turn.number(other).unwrap_or(0.0) == 0.0)
            })
            .collect();
        let of = |variant: Variant| {
            let turns = turns.iter().filter(move |turn| turn.text("variant") == Some(variant.name()));
            turns.filter_map(|turn| Some((turn.number("round")?, turn.number("ns_per_packet")?)))
        };
        let ratios = of(Variant::FastPath).filter_map(|(round, own)| {
            let (_, other) = of(to).find(|(other, _)| *other == round)?;
            Some(other / own)
        });
        Some(Found { range: Range::of(ratios.collect())?, at: format!("IP{}", family.to_lowercase()) })
    });
    least(families)
}

/// Turns of growth: what packets were, their protocol, a variant, and how many services it had.
type Turns = (&'static str, &'static str, Variant, f64);

/// The time of a packet by that of others, of the same rounds.
fn growth(report: &Report, turns: Turns, by: Turns) -> Option<Range> {
    let of = |(what, protocol, variant, services): Turns| {
        let samples = records(report, "growth").filter(move |sample| {
            sample.text("what") == Some(what)
                && sample.text("protocol").is_some_and(|other| other.eq_ignore_ascii_case(protocol))
                && sample.text("variant") == Some(variant.name())
                && sample.number("services") == Some(services)
        });
        samples.filter_map(|sample| Some((sample.number("round")?, sample.number("ns_per_packet")?)))
    };
    let ratios = of(turns).filter_map(|(round, own)| {
        let (_, other) = of(by).find(|(other, _)| *other == round)?;
        Some(own / other)
    });
    Range::of(ratios.collect())
}

/// New flows as services become more, the worst of all: none if 10,000 were not tried.
fn openings(report: &Report) -> Option<Found> {
    let mut all = Vec::new();
    for protocol in ["tcp", "udp"] {
        let nftables = ("new", protocol, Variant::Nftables, 1.0);
        for services in [1.0, 1e2, 1e3, 1e4] {
            let portico = ("new", protocol, Variant::FastPath, services);
            let Some(range) = growth(report, nftables, portico) else { continue };
            let at = format!("{}, {services} services", protocol.to_uppercase());
            all.push((services, Found { range, at }));
        }
    }
    let complete = all.iter().any(|(services, _)| *services >= 1e4);
    least(all.into_iter().map(|(_, found)| found)).filter(|_| complete)
}

/// Shares of backends in tables with at least 100 slots for each.
fn even<'a>(report: &'a Report, column: &'a str) -> impl Iterator<Item = Found> + 'a {
    records(report, "maglev").filter_map(move |record| {
        let (backends, slots) = (record.number("backends")?, record.number("slots")?);
        let range = record.range(column).filter(|_| slots >= 100.0 * backends)?;
        Some(Found { range, at: format!("{backends} backends") })
    })
}

/// A sample of plan or daemon, in some unit, with as many services and endpoints as the aims are about.
fn large(report: &Report, section: &str, what: &str, unit: &str) -> Option<Range> {
    let samples = records(report, section).filter(|sample| {
        sample.text("what") == Some(what)
            && sample.number("services") == Some(LARGE.0)
            && sample.number("endpoints") == Some(LARGE.1)
    });
    Range::of(samples.filter_map(|sample| sample.number(unit)).collect())
}

fn scaled(range: Range, by: f64) -> Range {
    Range { median: range.median * by, min: range.min * by, max: range.max * by, count: range.count }
}

fn least(all: impl Iterator<Item = Found>) -> Option<Found> {
    all.min_by(|a, b| a.range.median.total_cmp(&b.range.median))
}

fn most(all: impl Iterator<Item = Found>) -> Option<Found> {
    all.max_by(|a, b| a.range.median.total_cmp(&b.range.median))
}
