//! A node in a process of its own, with a data directory of its own: on free loopback ports, or on
//! the usual ports of a host of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::api::Api;
use super::eventually;
use super::http;
use super::ports::Ports;

/// How long a node may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);

/// Starts a process somewhere.
pub type Spawn = Arc<dyn Fn(Command) -> io::Result<Child> + Send + Sync>;

/// Where a node lives.
pub enum Place {
    /// On loopback, on a block of ports.
    Loopback(Ports),
    /// On a host of its own, into which processes are started in a way of their own.
    Host { address: String, spawn: Spawn },
}

/// The usual ports of the seven listeners.
const USUAL: [u16; 7] = [5100, 5200, 5001, 5300, 5172, 11110, 5210];

impl Place {
    fn host(&self) -> &str {
        match self {
            Self::Loopback(_) => "127.0.0.1",
            Self::Host { address, .. } => address,
        }
    }

    fn address(&self, listener: u16) -> String {
        match self {
            Self::Loopback(ports) => ports.address(listener),
            Self::Host { address, .. } => format!("{address}:{}", USUAL[usize::from(listener)]),
        }
    }

    fn spawn(&self, mut command: Command) -> io::Result<Child> {
        match self {
            Self::Loopback(_) => command.spawn(),
            Self::Host { spawn, .. } => spawn(command),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host())
    }
}

/// A node. Dropping it kills the process and removes its data, unless a test is failing.
pub struct Node {
    place: Place,
    folder: Option<TempDir>,
    environment: BTreeMap<String, String>,
    child: Option<Child>,
    kept: bool,
}

impl Node {
    /// A node with default settings that serves.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A node with these `WK_*` or other variables that serves.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut node = Self::prepare(environment);
        node.launch();
        node.wait_ready();
        node
    }

    /// A node that has not been started.
    pub fn prepare(environment: &[(&str, &str)]) -> Self {
        Self::prepare_at(Place::Loopback(Ports::reserve()), "node", environment)
    }

    /// A node at this place that has not been started; `name` begins the name of its folder.
    pub fn prepare_at(place: Place, name: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let mut node = Self {
            place,
            folder: Some(folder),
            environment: BTreeMap::new(),
            child: None,
            kept: false,
        };
        let data = node.data().to_str().unwrap().to_owned();
        let listeners = [
            ("WK_MODE", "release".to_owned()),
            ("WK_ROOTDIR", data),
            ("WK_EXTERNAL_IP", node.place.host().to_owned()),
            ("WK_ADDR", format!("tcp://{}", node.tcp())),
            ("WK_WSADDR", format!("ws://{}", node.ws())),
            ("WK_HTTPADDR", node.api_address()),
            ("WK_MANAGER_ADDR", node.manager()),
            ("WK_DEMO_ADDR", node.demo()),
            ("WK_CLUSTER_ADDR", format!("tcp://{}", node.cluster())),
            ("WK_CLUSTER_SERVERADDR", node.cluster()),
        ];
        for (name, value) in listeners {
            node.environment.insert(name.to_owned(), value);
        }
        // The whole suite runs on either I/O driver.
        if let Ok(driver) = std::env::var("JINDOU_TEST_DRIVER") {
            node.set("WK_DRIVER", &driver);
        }
        for (name, value) in environment {
            node.set(name, value);
        }
        node
    }

    /// Changes a variable, for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Where clients connect over TCP.
    pub fn tcp(&self) -> String {
        self.place.address(0)
    }

    /// Where clients connect over WebSocket.
    pub fn ws(&self) -> String {
        self.place.address(1)
    }

    /// Where the HTTP API listens.
    pub fn api_address(&self) -> String {
        self.place.address(2)
    }

    /// Where the manager and the metrics are.
    pub fn manager(&self) -> String {
        self.place.address(3)
    }

    /// Where the demo is.
    pub fn demo(&self) -> String {
        self.place.address(4)
    }

    /// Where other nodes connect.
    pub fn cluster(&self) -> String {
        self.place.address(5)
    }

    /// Where clients connect over WebSocket with TLS, if that is on.
    pub fn wss(&self) -> String {
        self.place.address(6)
    }

    /// The HTTP API.
    pub fn api(&self) -> Api {
        Api::new(self.api_address())
    }

    /// `WK_ROOTDIR`.
    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// A folder beside the data, for what a test needs while the node lives.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What the node wrote on stdout and stderr, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("out.log")).unwrap_or_default()
    }

    /// Starts the process.
    pub fn launch(&mut self) {
        self.launch_as(|_| ());
    }

    /// Starts the process by a changed command.
    pub fn launch_as(&mut self, change: impl FnOnce(&mut Command)) {
        assert!(self.child.is_none(), "the node runs already");
        let mut command = self.command();
        change(&mut command);
        self.child = Some(self.place.spawn(command).unwrap());
    }

    /// The command that starts the process.
    pub fn command(&self) -> Command {
        let out =
            File::options().create(true).append(true).open(self.folder().join("out.log")).unwrap();
        let mut command = Command::new(super::program());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("WK_")) {
                command.env_remove(name);
            }
        }
        command
            .envs(&self.environment)
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        command
    }

    /// Whether `/health` says that the node serves; asked with little patience.
    pub fn serves(&self) -> bool {
        let patience = Duration::from_millis(500);
        http::request_within(patience, &self.api_address(), "GET", "/health", b"")
            .is_ok_and(|reply| reply.status == 200)
    }

    /// Leaves data and log behind; where.
    pub fn keep(&mut self) -> &Path {
        self.kept = true;
        self.folder()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Empties the data directory of a node that does not run.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "the node runs");
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// Waits until `/health` says that the node serves, and tells how long that took.
    pub fn wait_ready(&mut self) -> Duration {
        let start = Instant::now();
        loop {
            let health = http::request(&self.api_address(), "GET", "/health", b"");
            if health.is_ok_and(|reply| reply.status == 200) {
                return start.elapsed();
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the node ended with {status} instead of serving");
            }
            assert!(start.elapsed() < START_MAX, "not serving after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the process runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until the process ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        eventually("the end of the process", || child.try_wait().unwrap())
    }

    /// SIGTERM; waits for the end and tells how the process ended and how long that took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let start = Instant::now();
        kill(pid, Signal::SIGTERM).unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            if start.elapsed() > START_MAX {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the node still ran {START_MAX:?} after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts a stopped node again on its data; tells how long it took to serve.
    pub fn restart(&mut self) -> Duration {
        self.launch();
        self.wait_ready()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            // Raft says a hundred times what its nodes say once.
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("【openraft")).collect();
            let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
            eprintln!("last words of the node at {:?}:\n  {}", self.place, last.join("\n  "));
            self.kept = true;
        }
        if let Some(folder) = self.folder.take().filter(|_| self.kept) {
            eprintln!("kept {}", folder.keep().display());
        }
    }
}
