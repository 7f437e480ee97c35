//! IPsec policies of the network namespace, which neither a FIB lookup nor a redirect heeds.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};

/// Why it is not known whether there are any.
#[derive(Debug, thiserror::Error)]
#[error("cannot count the IPsec policies: {attempt} failed")]
pub struct Error {
    attempt: &'static str,
    source: io::Error,
}

/// `XFRM_MSG_GETSPDINFO` and `NLM_F_REQUEST`.
const GET_INFO: u16 = 0x25;
const REQUEST: u16 = 1;
/// `XFRM_MSG_NEWSPDINFO`.
const INFO: u16 = 0x24;
/// Sizes of `struct nlmsghdr`, of the flags after it, and of `struct nlattr`; the first attribute is `XFRMA_SPD_INFO`.
const HEADER: usize = 16;
const FLAGS: usize = 4;
const ATTRIBUTE: usize = 4;

/// How many policies there are for packets that leave or are forwarded. None where the kernel knows no IPsec.
///
/// # Errors
///
/// The kernel does not answer.
pub fn policies() -> Result<u32, Error> {
    let failed = |attempt| move |source| Error { attempt, source };
    let mut socket = match Socket::new(NETLINK_XFRM) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        Err(error) => return Err(failed("opening a socket")(error)),
    };
    socket.bind_auto().map_err(failed("binding it"))?;
    let mut message = Vec::with_capacity(HEADER + FLAGS);
    message.extend(((HEADER + FLAGS) as u32).to_ne_bytes());
    message.extend(GET_INFO.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence, port and flags.
    message.resize(HEADER + FLAGS, 0);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0).map_err(failed("asking"))?;
    let (answer, _) = socket.recv_from_full().map_err(failed("asking"))?;
    count(&answer).ok_or_else(|| failed("reading the answer")(io::ErrorKind::InvalidData.into()))
}

/// `struct xfrmu_spdinfo` begins with the numbers for packets that arrive, that leave and that are forwarded.
fn count(answer: &[u8]) -> Option<u32> {
    if answer.get(4..6)? != INFO.to_ne_bytes() {
        return None;
    }
    let numbers = answer.get(HEADER + FLAGS + ATTRIBUTE..)?;
    let number = |at: usize| Some(u32::from_ne_bytes(*numbers.get(at..)?.first_chunk()?));
    Some(number(4)?.saturating_add(number(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_and_what_is_forwarded_counts() {
        let mut answer = vec![0; HEADER + FLAGS + ATTRIBUTE];
        answer[4..6].copy_from_slice(&INFO.to_ne_bytes());
        for number in [1_u32, 2, 4, 8, 16, 32] {
            answer.extend(number.to_ne_bytes());
        }
        assert_eq!(count(&answer), Some(6));
        assert_eq!(count(&answer[..30]), None);
        answer[4] = 2;
        assert_eq!(count(&answer), None, "an error");
    }

    #[test]
    fn the_kernel_answers() {
        policies().unwrap();
    }
}
