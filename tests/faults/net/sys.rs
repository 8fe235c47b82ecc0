//! The two things about namespaces that no safe function offers.

#![expect(unsafe_code, reason = "an ioctl, and a hook between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::libc;
use nix::sys::signal::Signal;

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// From `linux/if_tun.h`: _IOW('T', 202, int).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Makes a tunnel device of this name in the namespace of this thread. What the kernel sends through
/// it is read from the file, a packet each time; what is written arrives.
pub fn tunnel(name: &str) -> io::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    let flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI);
    let flags = flags.map_err(io::Error::other)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads and writes one `struct ifreq` (40 bytes), which `request` is.
    match unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        0 => Ok(device),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts a process that ends when this thread does: nothing outlives a test, however it ends.
pub fn spawn_tied(mut command: Command) -> io::Result<Child> {
    // SAFETY: the hook makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    command.spawn()
}
