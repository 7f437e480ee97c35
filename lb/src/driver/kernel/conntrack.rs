//! What the fast path needs of this kernel: conntrack's functions for XDP, and where its structures have their members.

use std::io;

use datapath::abi::ConntrackLayout;
use nix::time::{ClockId, clock_getres};

use super::btf::{self, Btf};

/// Conntrack's functions that XDP calls.
pub const FUNCTIONS: [&str; 3] = ["bpf_xdp_ct_lookup", "bpf_ct_release", "bpf_ct_change_timeout"];

/// Why there can be no fast path.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Btf(#[from] btf::Error),
    #[error("this kernel has no {0} for XDP")]
    NoFunction(&'static str),
    #[error("conntrack is a module of this kernel, whose functions cannot be called yet")]
    Module,
    #[error("cannot tell how long a jiffy is")]
    Tick(#[source] io::Error),
    #[error("member {0} has another size than expected")]
    Size(&'static str),
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Support {
    /// Ids in the kernel's BTF, in the order of [`FUNCTIONS`].
    pub functions: [u32; 3],
    /// Members.
    pub layout: ConntrackLayout,
}

/// Looks at the running kernel.
///
/// # Errors
///
/// What is missing.
pub fn support() -> Result<Support, Error> {
    let btf = Btf::kernel()?;
    let mut functions = [0; 3];
    for (id, name) in functions.iter_mut().zip(FUNCTIONS) {
        *id = match btf.function(name) {
            Some(id) => id,
            None if Btf::module("nf_conntrack")?.is_some_and(|module| module.function(name).is_some()) => {
                return Err(Error::Module);
            }
            None => return Err(Error::NoFunction(name)),
        };
    }
    Ok(Support { functions, layout: layout(&btf)? })
}

/// `TCP_CONNTRACK_ESTABLISHED` and `UDP_CT_REPLIED`: which timeouts are those of established flows.
const TCP_ESTABLISHED: u32 = 3;
const UDP_REPLIED: u32 = 1;

fn layout(btf: &Btf) -> Result<ConntrackLayout, Error> {
    let entry = btf.structure("nf_conn")?;
    let tuple = btf.structure("nf_conntrack_tuple")?;
    let net = btf.structure("net")?;
    let member = |structure, path: &'static str, size| {
        let found = btf.member(structure, path)?;
        if btf.size(found.type_id) != Some(size) {
            return Err(Error::Size(path));
        }
        Ok(found.offset)
    };
    let tuplehash = btf.member(entry, "tuplehash")?;
    let step = btf.size(tuplehash.type_id).ok_or(Error::Size("tuplehash"))?;
    let first = btf.member(entry, "tuplehash.tuple")?.offset;
    let options = btf.structure("bpf_ct_opts")?;
    Ok(ConntrackLayout {
        status: member(entry, "status", 8)?,
        timeout: member(entry, "timeout", 4)?,
        tcp_state: member(entry, "proto.tcp.state", 1)?,
        net: member(entry, "ct_net.net", 8)?,
        tcp_timeout: member(net, "ct.nf_ct_proto.tcp.timeouts", 4)? + 4 * TCP_ESTABLISHED,
        udp_timeout: member(net, "ct.nf_ct_proto.udp.timeouts", 4)? + 4 * UDP_REPLIED,
        tuples: [first, first + step],
        src: member(tuple, "src.u3", 16)?,
        src_port: member(tuple, "src.u", 2)?,
        dst: member(tuple, "dst.u3", 16)?,
        dst_port: member(tuple, "dst.u", 2)?,
        options: btf.size(options).ok_or(Error::Size("bpf_ct_opts"))?,
        hz: hz()?,
    })
}

/// Jiffies a second: the coarse clock goes one a jiffy.
fn hz() -> Result<u32, Error> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(|error| Error::Tick(error.into()))?;
    let nanoseconds = u32::try_from(tick.tv_nsec()).ok().filter(|tick| *tick > 0);
    nanoseconds
        .map(|tick| (1_000_000_000 + tick / 2) / tick)
        .ok_or_else(|| Error::Tick(io::Error::from(io::ErrorKind::InvalidData)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_tuple_are_where_every_kernel_had_them() {
        let layout = layout(&Btf::kernel().unwrap()).unwrap();
        assert_eq!([layout.src, layout.src_port, layout.dst, layout.dst_port], [0, 16, 20, 36]);
        assert_eq!(layout.tuples[1] - layout.tuples[0], 56);
        assert!([12, 16].contains(&layout.options), "{layout:?}");
        assert!([100, 250, 300, 1000].contains(&layout.hz), "{layout:?}");
    }
}
