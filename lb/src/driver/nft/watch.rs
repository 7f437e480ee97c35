//! Notices what others do to the ruleset.

use std::{io, os::fd::AsRawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterMessage, NetfilterMessageInner,
    nftables::{GenAttribute, NfTablesMessage},
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};

use super::{Error, netlink::Own};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_NEWGEN`: the type of the message that ends a transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// A transaction that somebody else committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Name of the process (`comm`), if known.
    pub process: Option<String>,
    /// Its id in the first pid namespace, if known.
    pub pid: Option<u32>,
}

/// The subscription.
pub struct Watch {
    socket: TokioSocket,
    own: Own,
    buffer: Vec<u8>,
}

impl Watch {
    pub(super) fn new(own: Own) -> Result<Self, Error> {
        let failed = |attempt| move |source| Error::Watch { attempt, source };
        let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(failed("opening a netlink socket"))?;
        only_generations(&socket).map_err(failed("attaching a filter"))?;
        socket.socket_mut().bind_auto().map_err(failed("binding"))?;
        socket.socket_mut().add_membership(GROUP).map_err(failed("joining the nftables group"))?;
        Ok(Self { socket, own, buffer: Vec::with_capacity(8192) })
    }

    /// Waits for the next transaction that is not one of ours. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Watch`] if the socket fails.
    pub async fn changed(&mut self) -> Result<Commit, Error> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {}
                // Something was lost, so something happened.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Commit { process: None, pid: None });
                }
                Err(source) => return Err(Error::Watch { attempt: "receiving", source }),
            }
            if let Some(commit) = self.commit() {
                return Ok(commit);
            }
        }
    }

    fn commit(&self) -> Option<Commit> {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(&self.buffer).ok()?;
        if message.header.message_type != NEW_GENERATION || self.own.take(message.header.port_number) {
            return None;
        }
        let mut commit = Commit { process: None, pid: None };
        if let NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(generation)),
            ..
        }) = message.payload
        {
            for attribute in generation.attributes {
                match attribute {
                    GenAttribute::ProcPid(pid) => commit.pid = Some(pid),
                    GenAttribute::ProcName(name) => commit.process = Some(name),
                    _ => {}
                }
            }
        }
        Some(commit)
    }
}

/// Lets the socket receive the end of each transaction only. Without it a transaction with 100,000 elements would
/// overrun the socket with as many messages.
fn only_generations(socket: &TokioSocket) -> io::Result<()> {
    const ALL: u32 = u32::MAX;
    // BPF loads in network byte order, netlink headers are in the host's; the type is at offset 4.
    let kind = u32::from(NEW_GENERATION.to_be());
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 4),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, kind),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, ALL),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which outlives the call, and reads `len` instructions of it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
