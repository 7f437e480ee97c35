//! Proves that translation is active, by a packet instead of by reading rules.
//!
//! One datagram, labelled [`Label::PROBE`], goes through the loopback device of the calling thread's namespace. Sent
//! on a packet socket it takes the socket's priority along as `skb->priority`, which is where tc puts labels, and the
//! loopback device hands it on to PREROUTING as it is. There `table inet portico` translates it, counts it and drops
//! it: nothing is delivered, and as it is dropped before conntrack confirms it, no entry stays.
//!
//! Should the table not drop it, its loopback source makes the kernel discard it wherever it would leave the host.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use datapath::abi::{Label, UDP};

use super::nft::{self, Family, Nft, counter};

/// How long a packet on loopback is waited for; softirqs are late when the machine is busy.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between looks at the counters, each of which takes a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(10);

/// Addresses of the datagram: from loopback to documentation addresses (RFC 5737, RFC 3849).
const SOURCE_V4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TARGET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::LOCALHOST;
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Discard.
const PORT: u16 = 9;

/// Length of the headers in bytes.
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP_HEADER: usize = 8;

/// Whether labels are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// The probe was translated.
    Active,
    /// It was not.
    Inactive,
    /// It could not be tried, and why.
    Unknown(String),
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The counters could not be read.
    #[error("cannot read the probe's counters")]
    Counters(#[from] nft::Error),
    /// The probe could not be sent.
    #[error("cannot probe translation: {attempt} failed")]
    Send {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Probes translation in the network namespace of the calling thread, which it blocks for some milliseconds, or for
/// half a second if nothing reaches the table.
///
/// # Errors
/// If the probe cannot be sent (`CAP_NET_RAW` and `CAP_NET_ADMIN` are needed) or the counters not be read.
pub fn probe(nft: &Nft, family: Family) -> Result<Translation, Error> {
    if family == Family::V6 && !ipv6_enabled() {
        return Ok(Translation::Unknown("IPv6 is disabled on the loopback interface".to_owned()));
    }
    let before = Seen::read(nft, family)?;
    let sent = match family {
        Family::V4 => send(libc::ETH_P_IP, &ipv4()),
        Family::V6 => send(libc::ETH_P_IPV6, &ipv6()),
    };
    match sent {
        Err(Error::Send { source, .. }) if source.raw_os_error() == Some(libc::ENETDOWN) => {
            return Ok(Translation::Unknown("the loopback interface is down".to_owned()));
        }
        other => other?,
    }
    let start = Instant::now();
    loop {
        let now = Seen::read(nft, family)?;
        if now.translated > before.translated {
            return Ok(Translation::Active);
        }
        if now.lost > before.lost || start.elapsed() > PATIENCE {
            return Ok(Translation::Inactive);
        }
        thread::sleep(INTERVAL);
    }
}

/// Packets counted.
#[derive(Default)]
struct Seen {
    translated: u64,
    lost: u64,
}

impl Seen {
    fn read(nft: &Nft, family: Family) -> Result<Self, nft::Error> {
        let counters = nft.counters()?;
        let packets =
            |name: &str| counters.iter().find(|c| c.name == name).map_or(0, |counter| counter.packets);
        Ok(Self {
            translated: packets(nft::ruleset::probe_counter(family)),
            lost: packets(counter::PROBE_LOST),
        })
    }
}

fn ipv6_enabled() -> bool {
    // Absent without IPv6 in the kernel.
    fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|value| value.trim() == "0")
}

/// Sends a packet, from its network header on, through the loopback interface.
fn send(ether_type: libc::c_int, packet: &[u8]) -> Result<(), Error> {
    let check = |attempt, result: libc::ssize_t| match result {
        ..0 => Err(Error::Send { attempt, source: io::Error::last_os_error() }),
        other => Ok(other),
    };
    let protocol = (ether_type as u16).to_be();
    // Protocol 0: the socket receives nothing.
    // SAFETY: no pointers are involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check("opening a packet socket", fd as libc::ssize_t)?;
    // SAFETY: the descriptor is new, valid and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    let priority = Label::PROBE.0;
    // SAFETY: the pointer is to four bytes that outlive the call, the length says so.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PRIORITY,
            (&raw const priority).cast(),
            size_of_val(&priority) as libc::socklen_t,
        )
    };
    check("setting the priority of a packet socket", result as libc::ssize_t)?;

    // SAFETY: the string ends with a zero byte.
    let index = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
    if index == 0 {
        return Err(Error::Send {
            attempt: "finding the loopback interface",
            source: io::Error::last_os_error(),
        });
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // SAFETY: both pointers are to objects that outlive the call, with their sizes; an `sockaddr_ll` is what a
    // packet socket expects.
    let result = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    check("sending a packet on loopback", result).map(drop)
}

/// An empty UDP datagram in IPv4, RFC 791, that may be forwarded no further.
fn ipv4() -> [u8; IPV4 + UDP_HEADER] {
    let mut packet = [0; IPV4 + UDP_HEADER];
    let length = packet.len() as u16;
    let (header, datagram) = packet.split_at_mut(IPV4);
    put(header, 0, &[0x45]);
    put(header, 2, &length.to_be_bytes());
    put(header, 8, &[1, UDP]);
    put(header, 12, &SOURCE_V4.octets());
    put(header, 16, &TARGET_V4.octets());
    let sum = checksum(header);
    put(header, 10, &sum.to_be_bytes());
    // Over IPv4 the checksum may be left out (RFC 768).
    udp(datagram);
    packet
}

/// Likewise IPv6, RFC 8200.
fn ipv6() -> [u8; IPV6 + UDP_HEADER] {
    let mut packet = [0; IPV6 + UDP_HEADER];
    let (header, datagram) = packet.split_at_mut(IPV6);
    put(header, 0, &[0x60]);
    put(header, 4, &(UDP_HEADER as u16).to_be_bytes());
    put(header, 6, &[UDP, 1]);
    put(header, 8, &SOURCE_V6.octets());
    put(header, 24, &TARGET_V6.octets());
    udp(datagram);
    // Pseudo-header: addresses, length, protocol.
    let mut pseudo = [0; 32 + 8 + UDP_HEADER];
    put(&mut pseudo, 0, &SOURCE_V6.octets());
    put(&mut pseudo, 16, &TARGET_V6.octets());
    put(&mut pseudo, 32, &(UDP_HEADER as u32).to_be_bytes());
    put(&mut pseudo, 39, &[UDP]);
    put(&mut pseudo, 40, datagram);
    let sum = checksum(&pseudo);
    put(datagram, 6, &sum.to_be_bytes());
    packet
}

fn udp(datagram: &mut [u8]) {
    put(datagram, 0, &PORT.to_be_bytes());
    put(datagram, 2, &PORT.to_be_bytes());
    put(datagram, 4, &(UDP_HEADER as u16).to_be_bytes());
}

fn put(packet: &mut [u8], offset: usize, bytes: &[u8]) {
    for (to, from) in packet.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

/// The Internet checksum, RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.as_chunks().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
