//! Which I/O driver the process runs on: io_uring where the kernel lets us, epoll otherwise.
//!
//! Docker's and containerd's default seccomp profiles answer io_uring with EPERM, old kernels with
//! ENOSYS, `kernel.io_uring_disabled=2` with EPERM. The whole crate works on both drivers; epoll
//! costs about 1.2–1.35 times the CPU per request.

use std::{fmt, io, str::FromStr};

use crate::sys;

/// The setting `driver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring if the probe succeeds, else epoll.
    #[default]
    Auto,
    /// io_uring, or the start fails.
    IoUring,
    /// epoll.
    Epoll,
}

impl FromStr for DriverChoice {
    type Err = ProbeError;

    /// `auto`, `io_uring` or `epoll`; empty is `auto`.
    fn from_str(text: &str) -> Result<Self, ProbeError> {
        match text.to_ascii_lowercase().as_str() {
            "" | "auto" => Ok(Self::Auto),
            "io_uring" | "iouring" | "uring" => Ok(Self::IoUring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(ProbeError::Unknown(text.to_owned())),
        }
    }
}

/// The driver in use. A process view: all shards run on the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What [`probe`] found; to be logged and exported as a metric.
#[derive(Debug)]
pub struct Probe {
    /// The driver to use.
    pub kind: DriverKind,
    /// Why io_uring is not used, when `auto` chose epoll.
    pub reason: Option<String>,
}

/// Why no driver was chosen.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The setting has another value.
    #[error("unknown driver {0:?}: auto, io_uring or epoll")]
    Unknown(String),
    /// io_uring was asked for and cannot be used.
    #[error("io_uring was asked for and cannot be used: {0}")]
    Unavailable(String),
}

/// Tries io_uring with one small ring, unless epoll is asked for.
pub fn probe(choice: DriverChoice) -> Result<Probe, ProbeError> {
    let found = match choice {
        DriverChoice::Epoll => {
            return Ok(Probe { kind: DriverKind::Epoll, reason: None });
        }
        DriverChoice::Auto | DriverChoice::IoUring => try_io_uring(choice),
    };
    match (found, choice) {
        (Ok(()), _) => Ok(Probe { kind: DriverKind::IoUring, reason: None }),
        (Err(reason), DriverChoice::IoUring) => Err(ProbeError::Unavailable(reason)),
        (Err(reason), DriverChoice::Auto | DriverChoice::Epoll) => {
            Ok(Probe { kind: DriverKind::Epoll, reason: Some(reason) })
        }
    }
}

fn try_io_uring(choice: DriverChoice) -> Result<(), String> {
    sys::try_io_uring().map_err(|error| explain(&error))?;
    // monoio's own check: the operations that it uses, and its variable for forcing epoll.
    if choice == DriverChoice::Auto && !monoio::utils::detect_uring() {
        return Err("the kernel lacks operations that we need".to_owned());
    }
    Ok(())
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("forbidden by a seccomp profile or kernel.io_uring_disabled ({error})")
        }
        Some(libc::ENOSYS) => format!("not in this kernel ({error})"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_setting_has_three_values() {
        assert_eq!("auto".parse::<DriverChoice>().unwrap(), DriverChoice::Auto);
        assert_eq!("epoll".parse::<DriverChoice>().unwrap(), DriverChoice::Epoll);
        assert_eq!("io_uring".parse::<DriverChoice>().unwrap(), DriverChoice::IoUring);
        assert!("kqueue".parse::<DriverChoice>().is_err());
    }

    #[test]
    fn epoll_is_never_probed() {
        let probe = probe(DriverChoice::Epoll).unwrap();
        assert_eq!(probe.kind, DriverKind::Epoll);
        assert_eq!(probe.reason, None);
    }

    #[test]
    fn auto_always_finds_a_driver() {
        let probe = probe(DriverChoice::Auto).unwrap();
        assert_eq!(probe.kind == DriverKind::Epoll, probe.reason.is_some());
    }
}
