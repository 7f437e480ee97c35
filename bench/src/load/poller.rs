//! Waiting for sockets, by the microsecond.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::time::{TimeSpec, TimeValLike as _},
};

/// Events looked at in one call.
const EVENTS: usize = 256;

/// An epoll instance. Sockets are told of once when something changes, so whoever handles an event takes all there is.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes a number.
        let epoll = Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a new descriptor that is nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    /// Watches a socket for as long as it is open.
    pub(super) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: flags.cast_unsigned(), u64: token };
        // SAFETY: the event outlives the call.
        let added = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_fd().as_raw_fd(),
                &raw mut event,
            )
        };
        Ok(Errno::result(added).map(drop)?)
    }

    /// Tokens of sockets of which there is news; none after `longest`.
    pub(super) fn wait(&mut self, longest: Duration) -> io::Result<Vec<u64>> {
        let longest = TimeSpec::nanoseconds(i64::try_from(longest.as_nanos()).unwrap_or(i64::MAX));
        // SAFETY: there is room for as many events as is said, and the time outlives the call.
        let count = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS as libc::c_int,
                longest.as_ref(),
                std::ptr::null(),
            )
        };
        match Errno::result(count) {
            Ok(count) => Ok(self.events.iter().take(count as usize).map(|event| event.u64).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets this thread's timers be exact: they are late by 50 us otherwise.
pub(super) fn exact_timers() {
    // SAFETY: takes numbers, and concerns this thread alone.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
