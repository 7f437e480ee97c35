//! The kernel's flows, over ctnetlink. Calls block. The socket belongs to the network namespace of the thread that
//! opened it.
//!
//! A dump takes the kernel as many passes over its table as there are full buffers, not as there are entries; entries
//! that come or go meanwhile may or may not be in it.

mod message;

use std::{fmt, io, net::SocketAddr};

use datapath::abi::UDP;
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::ConntrackMessage,
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_NETFILTER};

/// `IPCTNL_MSG_CT_GET`, with attributes that the crate has no names for.
const GET: u8 = 1;
/// `IPCTNL_MSG_CT_GET_STATS`.
const GET_STATS: u8 = 5;
/// How often a dump that went wrong is begun anew.
const ATTEMPTS: u32 = 4;
/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 1 << 16;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("cannot {attempt}")]
    Socket {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("cannot {attempt}: the kernel refuses")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A message could not be parsed.
    #[error("cannot {attempt}: the kernel's answer is not understood")]
    Answer {
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        source: netlink_packet_core::DecodeError,
    },
    /// Answers were lost, in a dump as often as it was attempted.
    #[error("cannot {attempt}: answers of the kernel were lost")]
    Interrupted {
        /// What was attempted.
        attempt: &'static str,
    },
}

/// Source and destination of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
}

/// A TCP or UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IANA protocol number.
    pub protocol: u8,
    /// What the initiator sends, before translation.
    pub original: Tuple,
    /// What the responder sends, before it is translated back: its source is the backend.
    pub reply: Tuple,
    /// TCP only.
    pub state: Option<TcpState>,
    /// The responder has answered.
    pub seen_reply: bool,
    /// Not evicted when the table is full.
    pub assured: bool,
    /// The destination is translated.
    pub dst_nat: bool,
    /// The source is translated.
    pub src_nat: bool,
    /// Seconds until it is forgotten if no packet comes.
    pub timeout_s: u32,
    /// Mark.
    pub mark: u32,
    /// Zone.
    pub zone: u16,
    /// Packets and bytes, where `net.netfilter.nf_conntrack_acct` was on when the flow began.
    pub traffic: Option<Traffic>,
    /// The kernel's id. It tells this flow from a later one with the same addresses, unless the kernel has put that
    /// one into the same memory: the id is a hash of both.
    pub id: Option<u32>,
}

/// Traffic of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the initiator.
    pub original: Volume,
    /// From the responder.
    pub reply: Volume,
}

/// Packets and their bytes, from the network header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// TCP states as conntrack has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// No packet seen.
    None,
    /// SYN sent.
    SynSent,
    /// SYN and ACK received.
    SynReceived,
    /// Established.
    Established,
    /// FIN sent.
    FinWait,
    /// FIN received.
    CloseWait,
    /// FIN sent after one was received.
    LastAck,
    /// Both sides are done.
    TimeWait,
    /// Reset.
    Close,
    /// SYN from both sides.
    SynSent2,
    /// A number we do not know.
    Other(u8),
}

impl fmt::Display for TcpState {
    /// As `conntrack -L` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
            Self::Other(_) => "UNKNOWN",
        })
    }
}

/// Entries of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Entries in this namespace, all protocols.
    pub entries: u32,
    /// How many there may be.
    pub max: u32,
}

/// The connection.
pub struct Conntrack {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Conntrack {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let failed = |source| Error::Socket { attempt: "open a conntrack netlink socket", source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER), sequence: 0 })
    }

    /// All TCP and UDP flows, both families, that `keep` says yes to.
    ///
    /// # Errors
    /// Any.
    pub fn flows(&mut self, mut keep: impl FnMut(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
        self.list(NetfilterProtoFamily::Unspec, Vec::new(), &mut keep)
    }

    /// Likewise UDP flows alone; the kernel leaves out the others (since Linux 5.8, and one family at a time).
    ///
    /// # Errors
    /// Any.
    pub fn udp_flows(&mut self, keep: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
        let mut keep = |flow: &Flow| flow.protocol == UDP && keep(flow);
        let mut flows = Vec::new();
        for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
            flows.extend(self.list(family, message::only(UDP), &mut keep)?);
        }
        Ok(flows)
    }

    fn list(
        &mut self,
        family: NetfilterProtoFamily,
        filter: Vec<DefaultNla>,
        keep: &mut impl FnMut(&Flow) -> bool,
    ) -> Result<Vec<Flow>, Error> {
        let attempt = "list the flows of conntrack";
        for _ in 0..ATTEMPTS {
            let mut flows = Vec::new();
            let get = ConntrackMessage::Other { message_type: GET, attributes: filter.clone() };
            let whole = self.exchange(attempt, get, family, NLM_F_DUMP, |message| {
                if let ConntrackMessage::New(attributes) = message {
                    flows.extend(message::flow(&attributes).filter(&mut *keep));
                }
            })?;
            if whole {
                return Ok(flows);
            }
        }
        Err(Error::Interrupted { attempt })
    }

    /// Deletes a flow. False if it was gone.
    ///
    /// # Errors
    /// Any.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, Error> {
        let family = match flow.original.source {
            SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
            SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
        };
        let delete = ConntrackMessage::Delete(message::key(flow));
        let attempt = "delete a flow from conntrack";
        match self.exchange(attempt, delete, family, NLM_F_ACK, |_| {}) {
            Ok(true) => Ok(true),
            Ok(false) => Err(Error::Interrupted { attempt }),
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How full the table is.
    ///
    /// # Errors
    /// Any.
    pub fn count(&mut self) -> Result<Count, Error> {
        let mut count = Count::default();
        let get = ConntrackMessage::Other { message_type: GET_STATS, attributes: Vec::new() };
        let attempt = "count the entries of conntrack";
        let whole = self.exchange(attempt, get, NetfilterProtoFamily::Unspec, NLM_F_ACK, |answer| {
            if let ConntrackMessage::Other { attributes, .. } = answer {
                count = message::count(&attributes);
            }
        })?;
        if whole { Ok(count) } else { Err(Error::Interrupted { attempt }) }
    }

    /// Sends a request and hands out the answers until the one that ends them. False if some were
    /// lost.
    fn exchange(
        &mut self,
        attempt: &'static str,
        request: ConntrackMessage,
        family: NetfilterProtoFamily,
        flags: u16,
        mut each: impl FnMut(ConntrackMessage),
    ) -> Result<bool, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(request, family, flags).map_err(|source| Error::Socket { attempt, source })?;
        let mut whole = true;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                // The end may be among what was lost: a new socket makes sure that nothing of it comes later.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    *self = Self::open()?;
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Socket { attempt, source }),
            }
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                    .map_err(|source| Error::Answer { attempt, source })?;
                // Messages are aligned to four bytes.
                rest = rest.get((message.header.length as usize).next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::Conntrack(message),
                        ..
                    }) => each(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Error::Refused { attempt, source: error.to_io() });
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(whole),
                    _ => {}
                }
            }
        }
    }

    fn send(&self, request: ConntrackMessage, family: NetfilterProtoFamily, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }
}

/// All flows of the calling thread's network namespace.
///
/// # Errors
/// Any.
pub fn flows() -> Result<Vec<Flow>, Error> {
    Conntrack::open()?.flows(|_| true)
}
