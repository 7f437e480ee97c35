//! The answer to a SYN in which everything about the connection is contained, so that nothing has to be remembered.
//!
//! The sequence number is the kernel's SYN cookie (RFC 4987 section 3.6). It and the options are those that the kernel's
//! synproxy sends (`net/netfilter/nf_synproxy_core.c`), because that is who reads them when they come back: the low bits of
//! the timestamp hold the client's window scale and whether it takes selective acknowledgements. The window is zero, so
//! that clients wait with data until the synproxy has opened the connection to the backend.

use crate::{
    abi::{TCP, ports},
    frame::FrameMut,
    packet::Packet,
    wire::{Words as _, WordsMut as _, fold},
};

/// Largest segments that are announced to clients, IPv4 and IPv6: what Ethernet's 1,500 bytes leave. As in the rules of
/// `table inet portico`.
pub const MSS: [u16; 2] = [1460, 1440];
/// Window scale of backends: Linux' own by default. As in these rules.
pub const WINDOW_SCALE: u8 = 7;

/// Room for the longest TCP header and for any position in it that six bits can name.
pub const HEADER: usize = 64;
/// The TCP header of an answer to a client with timestamps, options included; and to one without.
const LONG: usize = 40;
const SHORT: usize = 24;

/// A TCP header, and how far its options are read.
///
/// It lives in a map, and is read anew at each step: of what comes out of a map the verifier knows nothing, and so takes
/// one step for the other, where it would follow every sequence of options that there can be.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The header.
    pub header: [u8; HEADER],
    /// Its bytes.
    pub length: u32,
    at: u32,
    timestamp: u32,
    echo: u32,
    kept: u32,
}

/// What is read of the options of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The client's timestamp, as it lies in the header.
    pub timestamp: u32,
    /// The timestamp of ours that it repeats, likewise.
    pub echo: u32,
    /// [`TIMESTAMPED`], [`SELECTIVE_ALLOWED`], [`SCALED`] and in the low four bits the shift of the client's window.
    pub kept: u32,
}

impl Options {
    /// Bytes of the TCP header of an answer.
    #[inline(always)]
    const fn answer(self) -> usize {
        if self.kept & TIMESTAMPED != 0 { LONG } else { SHORT }
    }
}

/// [`Options::kept`]: there is a timestamp.
pub const TIMESTAMPED: u32 = 1 << 8;
/// [`Options::kept`]: the client takes selective acknowledgements. The bit that synproxy has for it in a timestamp.
pub const SELECTIVE_ALLOWED: u32 = 1 << 4;
/// [`Options::kept`]: the client scales windows.
pub const SCALED: u32 = 1 << 9;
const SHIFT: u32 = 0xf;

/// Bits of our timestamp that are not the time: synproxy's own six, eight of the client's sequence number, and a mark by
/// which the timestamps of others, synproxy's too, are told from these. Nobody minds, as clients only look whether
/// timestamps grow from here on.
const KEPT: u32 = 0x3f_ffff;
const TAG: u32 = 0x2d << 14;
const TAG_BITS: u32 = 0xff << 14;

/// Where a timestamp has part of a sequence number.
const fn sequence_bits(sequence: u32) -> u32 {
    (sequence & 0xff) << 6
}

/// By how much the sequence number of an acknowledgement has to be advanced before it is the one that a cookie was made
/// for. A cookie does not tell: other numbers than the client's are taken for another size of segments. One, where the
/// client asks whether the window is still closed (RFC 9293 section 3.8.6.1), because its acknowledgement was lost.
#[inline(always)]
#[must_use]
pub const fn lag(sequence: u32, options: Options) -> u32 {
    let ours = u32::from_be(options.echo);
    let tagged = options.kept & TIMESTAMPED != 0 && ours & TAG_BITS == TAG;
    if tagged && ours & sequence_bits(!0) == sequence_bits(sequence) { 1 } else { 0 }
}

/// More options than a SYN has in practice, padding included: there may be up to 40.
const MOST_OPTIONS: usize = 16;
/// As numbered by IANA.
const END: u8 = 0;
const PADDING: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
const SCALE: u8 = 3;
const SELECTIVE: u8 = 4;
const TIMESTAMP: u8 = 8;
/// RFC 7323 section 2.3.
const LARGEST_SCALE: u8 = 14;

impl Default for Reading {
    fn default() -> Self {
        Self { header: [0; HEADER], length: 0, at: 0, timestamp: 0, echo: 0, kept: 0 }
    }
}

impl Reading {
    /// The sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = self.header;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Reads the options behind the header.
    #[inline(always)]
    #[must_use]
    pub fn options(&mut self) -> Options {
        set(&mut self.at, 20);
        set(&mut self.kept, 0);
        set(&mut self.timestamp, 0);
        set(&mut self.echo, 0);
        for _ in 0..MOST_OPTIONS {
            if !self.step() {
                break;
            }
        }
        Options { timestamp: get(&self.timestamp), echo: get(&self.echo), kept: get(&self.kept) }
    }

    /// Reads one option; whether there may be another.
    #[inline(always)]
    fn step(&mut self) -> bool {
        let at = get(&self.at) as usize & (HEADER - 1);
        let length = get(&self.length) as usize;
        let byte = |ahead: usize| self.header[(at + ahead) & (HEADER - 1)];
        let kind = byte(0);
        if at + 1 >= length || kind == END {
            return false;
        }
        if kind == PADDING {
            set(&mut self.at, at as u32 + 1);
            return true;
        }
        let size = usize::from(byte(1));
        if size < 2 || at + size > length {
            return false;
        }
        let kept = get(&self.kept);
        match kind {
            SCALE if size == 3 => {
                let shift = u32::from(byte(2).min(LARGEST_SCALE));
                set(&mut self.kept, kept & !SHIFT | SCALED | shift);
            }
            SELECTIVE if size == 2 => set(&mut self.kept, kept | SELECTIVE_ALLOWED),
            TIMESTAMP if size == 10 => {
                let timestamp = u32::from_ne_bytes([byte(2), byte(3), byte(4), byte(5)]);
                let echo = u32::from_ne_bytes([byte(6), byte(7), byte(8), byte(9)]);
                set(&mut self.timestamp, timestamp);
                set(&mut self.echo, echo);
                set(&mut self.kept, kept | TIMESTAMPED);
            }
            _ => {}
        }
        set(&mut self.at, (at + size) as u32);
        true
    }
}

#[inline(always)]
fn get(number: &u32) -> u32 {
    // SAFETY: a reference.
    unsafe { core::ptr::read_volatile(number) }
}

#[inline(always)]
fn set(number: &mut u32, value: u32) {
    // SAFETY: a reference.
    unsafe { core::ptr::write_volatile(number, value) }
}

/// Length of an answer to a packet, with the link-layer header and its tags.
#[inline(always)]
#[must_use]
pub fn length(packet: &Packet, options: Options) -> usize {
    usize::from(packet.network) + if packet.dst.is_v4() { 20 } else { 40 } + options.answer()
}

/// What goes into an answer besides what the SYN says.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The cookie.
    pub cookie: u32,
    /// Options of the SYN.
    pub options: Options,
    /// Sequence number of the SYN.
    pub sequence: u32,
    /// `tcp_clock_ms()`.
    pub milliseconds: u32,
}

/// Turns the frame of a SYN, which has the right length already and its IP header at `network`, into the answer.
#[inline(always)]
pub fn write<F: FrameMut>(frame: &F, network: usize, packet: &Packet, answer: &Answer) -> Option<()> {
    let ethernet = frame.window_mut::<14>(0)?;
    let length = answer.options.answer();
    let addresses = packet.src.words().into_iter().chain(packet.dst.words());
    // The prefix of v4-mapped addresses is twice in the sum, where it counts as nothing.
    let mut sum = addresses.map(|word| (word & 0xffff_ffff) + (word >> 32)).sum::<u64>();
    // Front to back: the compiler leaves out checks that later ones imply, which the verifier does not see.
    let (transport, mss) = if packet.dst.is_v4() {
        // SAFETY: each window was just checked, and windows do not overlap.
        ipv4(unsafe { &mut *frame.window_mut::<20>(network)? }, packet, length);
        (network + 20, MSS[0])
    } else {
        // SAFETY: as above.
        ipv6(unsafe { &mut *frame.window_mut::<40>(network)? }, packet, length);
        (network + 40, MSS[1])
    };
    let first = frame.window_mut::<SHORT>(transport)?;
    if length == LONG {
        // SAFETY: as above.
        sum += options_of(unsafe { &mut *frame.window_mut::<{ LONG - SHORT }>(transport + SHORT)? }, answer);
    }
    // SAFETY: as above.
    tcp(unsafe { &mut *first }, packet, answer, [mss, length as u16], sum);
    // SAFETY: as above.
    let ethernet = unsafe { &mut *ethernet };
    let (destination, rest) = (ethernet.word::<0>(), ethernet.half::<4>());
    ethernet.set_half::<0>(ethernet.half::<6>());
    ethernet.set_word::<2>(ethernet.word::<8>());
    ethernet.set_word::<6>(destination);
    ethernet.set_half::<10>(rest);
    Some(())
}

/// Hops that an answer may take.
const HOPS: u8 = 64;

#[inline(always)]
fn ipv4(header: &mut [u8; 20], packet: &Packet, length: usize) {
    let word = u32::from_ne_bytes;
    let source = word(packet.dst.v4_bytes());
    let destination = word(packet.src.v4_bytes());
    // No fragmentation; the checksum is set last.
    let words = [
        word([0x45, 0, 0, 20 + length as u8]),
        word([0, 0, 0x40, 0]),
        word([HOPS, TCP, 0, 0]),
        source,
        destination,
    ];
    let sum = words.iter().map(|word| u64::from(*word)).sum();
    header.set_word::<0>(words[0]);
    header.set_word::<4>(words[1]);
    header.set_word::<8>(words[2]);
    header.set_half::<10>(!fold(sum));
    header.set_word::<12>(source);
    header.set_word::<16>(destination);
}

#[inline(always)]
fn ipv6(header: &mut [u8; 40], packet: &Packet, length: usize) {
    let (source, destination) = (packet.dst.words(), packet.src.words());
    header.set_word::<0>(u32::from_ne_bytes([0x60, 0, 0, 0]));
    header.set_word::<4>(u32::from_ne_bytes([0, length as u8, TCP, HOPS]));
    header.set_double::<8>(source[0]);
    header.set_double::<16>(source[1]);
    header.set_double::<24>(destination[0]);
    header.set_double::<32>(destination[1]);
}

/// `sum` is over what else the checksum is over.
#[inline(always)]
fn tcp(header: &mut [u8; SHORT], packet: &Packet, answer: &Answer, [mss, length]: [u16; 2], sum: u64) {
    let word = u32::from_ne_bytes;
    let words = [
        ports(packet.dst_port, packet.src_port),
        answer.cookie.to_be(),
        answer.sequence.wrapping_add(1).to_be(),
        // SYN and ACK, no window.
        word([(length / 4) as u8 * 16, 0x12, 0, 0]),
        word([SEGMENT_SIZE, 4, (mss >> 8) as u8, mss as u8]),
    ];
    let pseudo = u64::from(word([0, TCP, 0, length as u8]));
    let sum = words.iter().map(|word| u64::from(*word)).sum::<u64>() + sum + pseudo;
    header.set_word::<0>(words[0]);
    header.set_word::<4>(words[1]);
    header.set_word::<8>(words[2]);
    header.set_word::<12>(words[3]);
    header.set_word::<16>(0);
    header.set_half::<16>(!fold(sum));
    header.set_word::<20>(words[4]);
}

/// The options of a client with timestamps, and their sum. Without timestamps there is nowhere to keep the other two.
#[inline(always)]
fn options_of(options: &mut [u8; LONG - SHORT], answer: &Answer) -> u64 {
    let word = u32::from_ne_bytes;
    let Options { timestamp, kept, .. } = answer.options;
    let selective = kept & SELECTIVE_ALLOWED;
    let kinds = if selective != 0 { [SELECTIVE, 2] } else { [PADDING; 2] };
    let (shift, scale) = if kept & SCALED != 0 {
        (kept & SHIFT, [PADDING, SCALE, 3, WINDOW_SCALE])
    } else {
        (SHIFT, [PADDING; 4])
    };
    let words = [
        word([kinds[0], kinds[1], TIMESTAMP, 10]),
        (answer.milliseconds & !KEPT | TAG | sequence_bits(answer.sequence) | shift | selective).to_be(),
        timestamp,
        word(scale),
    ];
    options.set_word::<0>(words[0]);
    options.set_word::<4>(words[1]);
    options.set_word::<8>(words[2]);
    options.set_word::<12>(words[3]);
    words.iter().map(|word| u64::from(*word)).sum()
}

/// Adds one to the sequence number of a TCP packet; see [`lag`].
#[inline(always)]
pub fn advance<F: FrameMut>(frame: &F, transport: usize) -> Option<()> {
    let header = frame.window_mut::<20>(transport)?;
    // SAFETY: the window was just checked, and nobody else has it.
    let header = unsafe { &mut *header };
    let before = header.word::<4>();
    let after = u32::from_be(before).wrapping_add(1).to_be();
    let sum = u64::from(!header.half::<16>()) + u64::from(!before) + u64::from(after);
    header.set_word::<4>(after);
    header.set_half::<16>(!fold(sum));
    Some(())
}

#[cfg(test)]
mod tests;
