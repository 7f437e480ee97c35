//! What network devices can do with XDP, over generic netlink (family `netdev`, Linux 6.3).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// Why a device could not be asked about.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask about the XDP features of interface {index}: {attempt} failed")]
pub struct Error {
    index: u32,
    attempt: &'static str,
    source: io::Error,
}

/// `NETDEV_XDP_ACT_NDO_XMIT`: packets of other devices can be redirected to this one.
const NDO_XMIT: u64 = 1 << 2;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET` and its attributes.
const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// Sizes of `struct nlmsghdr`, `struct genlmsghdr` and `struct nlattr`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const ATTRIBUTE: usize = 4;

/// Whether packets can be redirected to a device; none where the kernel does not say (before Linux 6.3).
///
/// # Errors
///
/// The kernel does not answer, as for a device that is gone.
pub fn takes_redirects(index: u32) -> Result<Option<bool>, Error> {
    let failed = |attempt| move |source| Error { index, attempt, source };
    let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed("opening a socket"))?;
    socket.bind_auto().map_err(failed("binding it"))?;
    let family = ask(&socket, CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0");
    let family = match family {
        Ok(answer) => attribute(&answer, FAMILY_ID)
            .and_then(|value| value.first_chunk().map(|id| u16::from_ne_bytes(*id)))
            .ok_or_else(|| failed("finding the family")(io::ErrorKind::InvalidData.into()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("finding the family")(error)),
    };
    let answer = ask(&socket, family, DEV_GET, IFINDEX, &index.to_ne_bytes()).map_err(failed("asking"))?;
    let features = attribute(&answer, XDP_FEATURES).and_then(|value| value.first_chunk());
    Ok(features.map(|features| u64::from_ne_bytes(*features) & NDO_XMIT != 0))
}

/// The attributes of the answer to a request with one attribute.
fn ask(socket: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let message = request(family, command, kind, value);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let word = |at: usize| answer.get(at..)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    let kind = answer.get(4..6).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match (kind, word(HEADER)) {
        (ERROR, Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        (_, None) => Err(io::ErrorKind::InvalidData.into()),
        _ => Ok(answer.get(HEADER + GENERIC..).unwrap_or_default().to_vec()),
    }
}

fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let length = (HEADER + GENERIC + ATTRIBUTE + padded) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port: there is one question at a time, and the kernel fills in the rest.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(length as usize, 0);
    message
}

/// The value of an attribute.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [a, b, c, d] = *attributes.first_chunk()?;
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = attributes.get(ATTRIBUTE..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_past_padding() {
        let bytes = [5, 0, 7, 0, 1, 0, 0, 0, 6, 0, 1, 0, 0x12, 0x34, 0, 0];
        assert_eq!(attribute(&bytes, 1), Some(&[0x12, 0x34][..]));
        assert_eq!(attribute(&bytes, 7), Some(&[1][..]));
        assert_eq!(attribute(&bytes, 2), None);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None, "shorter than its own header");
    }

    #[test]
    fn the_loopback_device_takes_no_redirects() {
        assert_eq!(takes_redirects(1).unwrap(), Some(false));
        assert!(takes_redirects(u32::MAX >> 1).is_err());
    }
}
