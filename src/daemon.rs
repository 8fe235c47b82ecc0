//! Running detached (operations.md §1.2): `-d` starts the node as a process of its own and waits until it
//! serves; `stop` ends it. Between them stands `./wukongim.pid`, which the node holds locked while it
//! lives: a number that is left over can't hit another process, and `stop` knows when the node has ended.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// In the working directory, as v2.2.5 has it.
const PID_FILE: &str = "wukongim.pid";
/// What the child sends back, in bytes.
const NONCE_SIZE: usize = 32;
/// How long `-d` waits for a node that waits for others.
const START_MAX: Duration = Duration::from_secs(60);
/// How long sending the nonce back may take, and reading it.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the parent waits for.
enum Heard {
    /// The node serves.
    Serves,
    /// The process has ended.
    Ended(io::Result<ExitStatus>),
}

/// Starts this program again, detached, and waits until that node serves, at most a minute. What it
/// says on stderr meanwhile is passed on.
///
/// # Errors
/// It could not be started, or ended.
pub fn detach(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port to hear the node at")?;
    let nonce = nonce()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .arg("--pingback")
        .arg(listener.local_addr()?.to_string())
        .arg("--noStdout")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the node")?;
    let pid = child.id();
    if let Some(mut stdin) = child.stdin.take() {
        // A child that has ended already is noticed below.
        let _ = stdin.write_all(&nonce);
    }
    let (heard, hears) = mpsc::channel();
    let ended = heard.clone();
    thread::Builder::new().name("child".into()).spawn(move || watch(child, &ended))?;
    thread::Builder::new().name("pingback".into()).spawn(move || {
        if wait_for(&listener, &nonce) {
            // Nobody listens any more when the parent has given up.
            let _ = heard.send(Heard::Serves);
        }
    })?;
    match hears.recv_timeout(START_MAX) {
        Ok(Heard::Serves) => println!("the node serves, process {pid}; `stop` here ends it"),
        Ok(Heard::Ended(Ok(status))) => bail!("the node ended before it served: {status}"),
        Ok(Heard::Ended(Err(error))) => return Err(error).context("the node cannot be watched"),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => println!(
            "the node runs, process {pid}, and does not serve yet: its log and /readyz say what it waits for"
        ),
    }
    Ok(())
}

/// Passes the child's stderr on, then waits for its end.
fn watch(mut child: Child, heard: &mpsc::Sender<Heard>) {
    if let Some(mut stderr) = child.stderr.take() {
        // It ends when the child closes it.
        let _ = io::copy(&mut stderr, &mut io::stderr());
    }
    let _ = heard.send(Heard::Ended(child.wait()));
}

/// Waits for a connection that brings the nonce; others are not the child's.
fn wait_for(listener: &TcpListener, nonce: &[u8]) -> bool {
    listener.incoming().flatten().any(|mut stream| {
        let mut given = [0; NONCE_SIZE];
        stream.set_read_timeout(Some(ANSWER_MAX)).is_ok()
            && stream.read_exact(&mut given).is_ok()
            && given == nonce
    })
}

fn nonce() -> io::Result<[u8; NONCE_SIZE]> {
    let mut nonce = [0; NONCE_SIZE];
    File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(nonce)
}

/// The child's end: a session of its own, and the pid file.
#[derive(Debug)]
pub struct Detached {
    /// Whom to tell that the node serves.
    parent: SocketAddr,
    _file: PidFile,
}

impl Detached {
    /// Leaves the terminal and takes the pid file of the working directory.
    ///
    /// # Errors
    /// `pingback` is no address, or a node runs from this directory.
    pub fn begin(pingback: &str) -> anyhow::Result<Self> {
        let parent = pingback.parse().context("--pingback: no address")?;
        // Who leads a session already has no terminal to leave.
        let _ = nix::unistd::setsid();
        Ok(Self { parent, _file: PidFile::take(Path::new(PID_FILE))? })
    }

    /// Tells the parent that the node serves, by what it wrote to stdin, and lets go of its stderr.
    pub fn serving(&self) -> impl FnOnce() + Send + 'static {
        let parent = self.parent;
        move || {
            if let Err(error) = answer(&parent) {
                tracing::warn!("cannot tell {parent} that the node serves: {error}");
            }
        }
    }
}

fn answer(parent: &SocketAddr) -> io::Result<()> {
    let mut nonce = Vec::new();
    // More than the nonce nobody sends, and nobody could make use of.
    io::stdin().take(4096).read_to_end(&mut nonce)?;
    nix::unistd::dup2_stderr(File::options().write(true).open("/dev/null")?)?;
    let mut stream = TcpStream::connect_timeout(parent, ANSWER_MAX)?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(&nonce)
}

/// A pid file, locked. Dropping it removes it.
#[derive(Debug)]
struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    fn take(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write {name}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("{name} is held: a node that was started with -d runs from this directory")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {name}"));
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { file, path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Still locked, so it is ours. One that stays is empty and tells nobody anything.
        let _ = self.file.set_len(0);
        let _ = fs::remove_file(&self.path);
    }
}

/// Ends the node that was started with `-d` from this directory: SIGTERM, as opposed to v2.2.5's
/// SIGKILL, and back when it has ended. A node ends within `limits.drainTimeMax`.
///
/// # Errors
/// There is none, or it can't be told.
pub fn stop() -> anyhow::Result<()> {
    let pid = stop_at(Path::new(PID_FILE))?;
    println!("stopped, process {pid}");
    Ok(())
}

fn stop_at(path: &Path) -> anyhow::Result<i32> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| {
        format!("no {name} here: no node was started with -d from this directory")
    })?;
    match file.try_lock() {
        Ok(()) => bail!("{name} is left over: that node does not run any more"),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot look at {name}"));
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0);
    let pid = pid.with_context(|| format!("{name} holds no process number"))?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)
        .with_context(|| format!("process {pid} can't be told to stop"))?;
    // It lets go when it ends.
    file.lock().with_context(|| format!("cannot wait for process {pid}"))?;
    Ok(pid)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_nonce_is_taken_from_the_child_only() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let nonce = nonce().unwrap();
        let teller = thread::spawn(move || {
            TcpStream::connect(address).unwrap().write_all(b"short").unwrap();
            TcpStream::connect(address).unwrap().write_all(&[1; NONCE_SIZE]).unwrap();
            TcpStream::connect(address).unwrap().write_all(&nonce).unwrap();
        });
        assert!(wait_for(&listener, &nonce));
        teller.join().unwrap();
    }

    #[test]
    fn a_pid_file_is_one_nodes_and_a_left_over_one_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        assert!(stop_at(&path).unwrap_err().to_string().contains("no node was started with -d"));
        fs::write(&path, "1").unwrap();
        assert!(stop_at(&path).unwrap_err().to_string().contains("left over"));
        let held = PidFile::take(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        assert!(PidFile::take(&path).unwrap_err().to_string().contains("is held"));
        held.file.set_len(0).unwrap();
        assert!(stop_at(&path).unwrap_err().to_string().contains("no process number"));
    }
}
