//! A flood of SYNs against one service: what one of them costs, and whether real clients connect meanwhile.

mod clients;
mod rate;

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    datapath::SETUP,
    generator::{
        Generator, Kind,
        abi::Traffic,
        template::{Profile, Protocol, Segment},
    },
    report::Section,
    scene::{
        gateway::Binaries,
        objects::{Family, Services},
    },
    variants::{Variant, knows},
};

/// One service, and its endpoints.
const SERVICES: Services =
    Services { family: Family::V4, udp: false, number: 1, endpoints: 10, masquerade: false };
/// Bytes of a frame.
const SIZE: usize = 60;
/// Where floods come from; not where real clients do.
const SOURCES: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 96, 0, 0), 11);
/// The name of Portico with cookies, which an aim is about.
pub(crate) const COOKIES: &str = "Portico, SYN cookies";

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Turns of floods as fast as can be.
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
    /// SYNs a second in floods that real clients connect through.
    pub(crate) rate: u32,
    /// How many of those there are.
    pub(crate) floods: u32,
    /// How many connections are tried in each.
    pub(crate) connects: u32,
    pub(crate) variants: Vec<Variant>,
    pub(crate) generator: Kind,
}

impl Extent {
    /// About how long it takes.
    pub(crate) fn expected(&self) -> Duration {
        let ways = self.ways().len() as u32;
        // Conntrack is emptied before and after.
        let turns = (self.turn * 9 / 8 + Duration::from_secs(1)) * self.rounds;
        (SETUP * 2 + turns + clients::LONGEST * self.floods) * ways
    }

    fn ways(&self) -> Vec<Way> {
        Way::ALL.into_iter().filter(|way| self.variants.contains(&way.variant())).collect()
    }
}

/// What becomes of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// XDP drops it: the limit.
    Drop,
    /// XDP sends it back as an answer, and does no more: the least that answering costs.
    Answer,
    /// XDP answers it by a cookie.
    Cookies,
    /// It is forwarded as any other packet.
    Forwarded,
    /// Few are forwarded, XDP drops the others.
    Limited,
    Nftables,
}

impl Way {
    const ALL: [Self; 6] =
        [Self::Drop, Self::Answer, Self::Cookies, Self::Forwarded, Self::Limited, Self::Nftables];

    /// For tables.
    const fn name(self) -> &'static str {
        match self {
            Self::Drop | Self::Nftables => self.variant().name(),
            Self::Answer => "bare XDP answer",
            Self::Cookies => COOKIES,
            Self::Forwarded => "Portico, no SYN cookies",
            Self::Limited => "Portico, 1000 new flows per s",
        }
    }

    const fn variant(self) -> Variant {
        match self {
            Self::Drop | Self::Answer => Variant::Drop,
            Self::Nftables => Variant::Nftables,
            Self::Cookies | Self::Forwarded | Self::Limited => Variant::FastPath,
        }
    }

    /// Options of `portico run`.
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Drop | Self::Answer | Self::Nftables => &[],
            Self::Cookies => &["--syn-cookies", "1"],
            Self::Forwarded => &["--syn-cookies", "0"],
            Self::Limited => &["--syn-cookies", "0", "--max-new-flows", "1000"],
        }
    }

    fn lack(self, binaries: &Binaries) -> Option<String> {
        let missing =
            self.options().iter().find(|word| word.starts_with("--") && !knows(&binaries.help, word));
        binaries.lack(self.variant()).or_else(|| Some(format!("portico run has no {}", missing?)))
    }

    fn binaries(self, binaries: &Binaries) -> Binaries {
        Binaries { more: self.options().to_vec(), ..binaries.clone() }
    }
}

/// SYNs from ports and addresses picked at random.
fn syns(profile: &Profile) -> Traffic {
    profile.traffic(u32::MAX, false)
}

fn profile(profile: Profile) -> Profile {
    Profile { protocol: Protocol::Tcp(Segment::Syn), client: SOURCES.0.into(), size: SIZE, ..profile }
}

pub(crate) fn measure(extent: &Extent, binaries: &Binaries, cpu: usize) -> anyhow::Result<Section> {
    let mut section = Section { name: "flood", ..Section::default() };
    let mut ways = Vec::new();
    for way in extent.ways() {
        match way.lack(binaries) {
            None => ways.push(way),
            Some(reason) => section.notes.push(format!("Left out: {}: {reason}.", way.name())),
        }
    }
    let mut generator = Generator::load(extent.generator)?;
    rate::measure(extent, &ways, binaries, cpu, &mut generator, &mut section)?;
    clients::measure(extent, &ways, binaries, cpu, &mut generator, &mut section)?;
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_follow_the_variants_asked_for() {
        let ways = |variants: &[Variant]| {
            let variants = variants.to_vec();
            let extent = Extent {
                rounds: 1,
                turn: Duration::ZERO,
                rate: 1,
                floods: 1,
                connects: 1,
                variants,
                generator: Kind::Auto,
            };
            extent.ways()
        };
        assert_eq!(ways(&Variant::ALL), Way::ALL);
        assert_eq!(ways(&[Variant::Drop, Variant::Route]), [Way::Drop, Way::Answer]);
        assert_eq!(ways(&[Variant::FastPath]).len(), 3);
    }
}
