//! Offloads of an interface, through the ioctls behind ethtool(8).

use std::{ffi::CString, io, net::UdpSocket, os::fd::AsRawFd as _};

use nix::libc;

use super::{LabError, Netns};

/// `ETHTOOL_S...` commands of `linux/ethtool.h` that take one value.
const SET_TX_CHECKSUM: u32 = 0x17;
const SET_TSO: u32 = 0x1f;
const SET_GSO: u32 = 0x24;
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Makes a veth behave like a NIC towards its peer: complete checksums, frames no larger than the MTU, and frames
/// from XDP accepted.
///
/// # Errors
///
/// When the interface does not exist or refuses.
pub fn behave_like_a_nic(ns: &Netns, interface: &str) -> Result<(), LabError> {
    let failed = |e| LabError::Io { op: format!("set offloads of {interface} in {}", ns.name()), source: e };
    ns.run(|| {
        for (command, data) in [(SET_TX_CHECKSUM, 0), (SET_TSO, 0), (SET_GSO, 0), (SET_GRO, 1)] {
            set(interface, Value { command, data })?;
        }
        Ok(())
    })?
    .map_err(failed)
}

/// Makes an interface leave checksums to a network card, as every veth does by itself.
///
/// # Errors
///
/// When the interface does not exist or refuses.
pub fn leave_checksums_to_the_card(ns: &Netns, interface: &str) -> Result<(), LabError> {
    let failed = |e| LabError::Io { op: format!("set offloads of {interface} in {}", ns.name()), source: e };
    ns.run(|| set(interface, Value { command: SET_TX_CHECKSUM, data: 1 }))?.map_err(failed)
}

fn set(interface: &str, mut value: Value) -> io::Result<()> {
    // The ioctl wants any socket of the namespace.
    let socket = UdpSocket::bind("[::]:0")?;
    let name = CString::new(interface)?;
    // SAFETY: all bytes zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let longest = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(longest).zip(name.to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names an interface with a terminating zero and points to a value that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
