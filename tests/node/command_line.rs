//! The command line and the log: detached nodes and their end, log files, a log that nobody reads.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::node::Node;
use crate::support::{PATIENCE, http};

/// A node that was started with `-d`, which is no child of the test.
struct Detached(Node);

impl Detached {
    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.0.command();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().unwrap()
    }

    fn pid_file(&self) -> PathBuf {
        self.0.folder().join("wukongim.pid")
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.pid_file()).ok().and_then(|text| text.parse().ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn log(node: &Node, name: &str) -> String {
    fs::read_to_string(node.data().join("logs").join(name)).unwrap()
}

#[test]
fn a_detached_node_serves_when_the_parent_comes_back_and_ends_by_stop() {
    let node = Detached(Node::prepare(&[]));
    let none = node.run(&["stop"]);
    assert!(!none.status.success() && text(&none.stderr).contains("no node was started with -d"));
    for round in 0..2 {
        let started = node.run(&["-d", "--mode", "release"]);
        assert!(started.status.success(), "{started:?}");
        assert!(node.0.serves(), "round {round}: not serving");
        let pid = fs::read_to_string(node.pid_file()).unwrap();
        assert!(text(&started.stdout).contains(&pid), "{started:?} of {pid}");
        let session = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let session = session.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
        assert_eq!(session, pid, "it has left the session of its parent");

        let second = node.run(&["--daemon=true"]);
        assert!(!second.status.success(), "{second:?}");
        assert!(text(&second.stderr).contains("wukongim.pid is held"), "{second:?}");

        let stopped = node.run(&["stop"]);
        assert!(stopped.status.success(), "{stopped:?}");
        assert!(!node.0.serves() && !node.pid_file().exists());
        assert!(log(&node.0, "focus.log").lines().last().unwrap().contains("stopped"));
    }
    assert_eq!(node.0.log(), "", "a detached node says nothing on stdout");
}

#[test]
fn a_detached_node_that_cannot_start_says_why() {
    let node = Detached(Node::prepare(&[("WK_CLUSTER_NODEID", "1024")]));
    let started = node.run(&["-d"]);
    assert!(!started.status.success());
    assert!(text(&started.stderr).contains("must be a number from 1 to 1023"), "{started:?}");
    assert!(!node.pid_file().exists());
}

#[test]
fn a_pid_file_of_a_killed_node_hits_nobody() {
    let node = Detached(Node::prepare(&[]));
    fs::write(node.pid_file(), std::process::id().to_string()).unwrap();
    let stopped = node.run(&["stop"]);
    assert!(!stopped.status.success());
    assert!(text(&stopped.stderr).contains("left over"), "{stopped:?}");
    fs::remove_file(node.pid_file()).unwrap();
}

#[test]
fn each_severity_has_its_file_of_json_lines() {
    let mut node = Node::prepare(&[("WK_TOKENAUTHOM", "true"), ("WK_LOGGER_LEVEL", "4")]);
    node.launch_as(|command| {
        command.args(["--noStdout=true", "--config", "none.yaml", "-i"]);
    });
    node.wait_ready();
    node.terminate();
    for name in ["info.log", "warn.log", "error.log", "panic.log", "focus.log"] {
        for line in log(&node, name).lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["msg"].as_str().unwrap().starts_with('【'), "{line}");
            let level = if name == "focus.log" { "info.log" } else { name };
            assert_eq!(line["level"], level.strip_suffix(".log").unwrap());
        }
    }
    let warnings = log(&node, "warn.log");
    for wanted in ["WK_TOKENAUTHOM is ignored, did you mean", "none.yaml", "tokenAuthOn is false"] {
        assert!(warnings.contains(wanted), "{wanted}: {warnings}");
    }
    assert_eq!(log(&node, "info.log"), log(&node, "focus.log"), "the level leaves out the rest");
    assert_eq!(node.log(), "", "--noStdout");

    node.set("WK_LOGGER_LEVEL", "2");
    node.set("WK_LOGGER_LINENUM", "true");
    node.restart();
    node.terminate();
    assert!(log(&node, "focus.log").contains("clients are accepted"));
    let info = log(&node, "info.log");
    assert!(info.contains("clients are accepted") && info.contains("\"linenum\":\"src/node/"));
    assert!(node.log().contains("clients are accepted"));
}

/// A terminal that was stopped, a container's log driver that hangs: lines are dropped and counted,
/// and the node serves on.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    const LINES: usize = 12_000;
    let mut node = Node::prepare(&[("WK_LOGGER_LEVEL", "1")]);
    let (unread, stdout) = UnixStream::pair().unwrap();
    node.launch_as(|command| {
        command.stdout(std::os::fd::OwnedFd::from(stdout));
    });
    node.wait_ready();
    // Each bad request is a line at level debug.
    for _ in 0..LINES {
        let refused = http::exchange(PATIENCE, &node.api_address(), b"\x01\r\n\r\n");
        assert!(refused.is_err(), "{refused:?}");
    }
    let metrics = http::request(&node.manager(), "GET", "/metrics", b"").unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    let count =
        metrics.lines().find_map(|line| line.strip_prefix("jindou_log_lines_dropped_total "));
    assert!(count.unwrap().parse::<f64>().unwrap() > 0.0);
    let kept = log(&node, "info.log").lines().filter(|l| l.contains("HTTP connection")).count();
    assert!(kept > LINES / 2, "the files have what stdout lacks: {kept}");
    drop(unread);
    let (status, _) = node.terminate();
    assert!(status.success(), "{status}");
}
