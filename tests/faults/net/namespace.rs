//! A network of its own for a process: one tunnel device, and a thread that lives in there.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::sys;

type Job = Box<dyn FnOnce() + Send>;

/// A nameless network namespace. It is gone with its thread and the processes that were started in
/// it; nothing needs to be swept.
pub struct Namespace {
    jobs: Sender<Job>,
}

impl Namespace {
    /// A namespace with this address, and the far end of its tunnel.
    pub fn new(address: Ipv4Addr) -> io::Result<(Self, File)> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::Builder::new().name(format!("net-{address}")).spawn(move || {
            let _ = ready.send(enter(address));
            for job in queue {
                job();
            }
        })?;
        let tunnel = made.recv().map_err(io::Error::other)??;
        Ok((Self { jobs }, tunnel))
    }

    /// Starts a process in there; it is killed when the namespace is dropped.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (done, child) = mpsc::channel();
        let job = move || {
            let _ = done.send(sys::spawn_tied(command));
        };
        self.jobs.send(Box::new(job)).map_err(|_| io::Error::other("the namespace is gone"))?;
        child.recv().map_err(io::Error::other)?
    }
}

/// Gives this thread, and all threads and processes it starts from now on, a network of its own
/// with one address; the far end of the tunnel through which it sees others.
pub fn enter(address: Ipv4Addr) -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let tunnel = sys::tunnel("t0")?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &format!("{address}/24"), "dev", "t0"])?;
    ip(&["link", "set", "t0", "mtu", "9000", "txqueuelen", "10000", "up"])?;
    Ok(tunnel)
}

fn ip(words: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(words).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("ip {}: {}", words.join(" "), text.trim())))
        }
    }
}
