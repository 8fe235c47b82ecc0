//! The few system calls that neither std nor socket2 nor monoio offers in a safe form.

#![expect(
    unsafe_code,
    reason = "plain system calls; every pointer is to a local that outlives the call"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new eventfd: not blocking, closed on exec, counter 0.
pub(crate) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; the new descriptor belongs to nobody else.
    unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Which directions [`shutdown`] ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// Reading; on a listening socket: accepting.
    Read,
    /// Both: pending reads and sends of the socket return at once.
    Both,
}

/// Ends directions of a socket. Errors are of no use to callers: the socket is being given up.
pub(crate) fn shutdown(fd: RawFd, direction: Direction) {
    let how = match direction {
        Direction::Read => libc::SHUT_RD,
        Direction::Both => libc::SHUT_RDWR,
    };
    // SAFETY: takes no pointer. A wrong descriptor gives an error, and callers hold the socket.
    unsafe {
        libc::shutdown(fd, how);
    }
}

/// A second descriptor of a socket.
pub(crate) fn duplicate(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open as long as the borrow lives.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }.try_clone_to_owned()
}

/// The CPUs on which this thread may run, ascending.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t of zeros is the empty set, and the kernel writes at most its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        check(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set))?;
        let size = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
        Ok((0..size).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect())
    }
}

/// Binds this thread to one CPU.
pub(crate) fn set_affinity(cpu: usize) -> io::Result<()> {
    // SAFETY: as in `affinity`; CPU_SET ignores numbers outside of the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))?;
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one. Returns the limit now in force.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    // SAFETY: both calls read or write one local rlimit.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
        }
        Ok(limit.rlim_cur)
    }
}

/// Sets up a small io_uring and closes it: `Err` when the kernel lacks it, when it is switched
/// off (`kernel.io_uring_disabled`), or when a seccomp profile forbids it.
pub(crate) fn try_io_uring() -> io::Result<()> {
    // `struct io_uring_params`: 120 bytes, all zero for the defaults.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel reads and writes `io_uring_params`, which fits the array; the new
    // descriptor belongs to nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr());
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        drop(OwnedFd::from_raw_fd(check(fd)?));
    }
    Ok(())
}
