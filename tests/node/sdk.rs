//! Published SDKs, unmodified, chat through the node: see `tests/sdk/README.md`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{done, installed, python, repository};
use crate::support::node::Node;

/// How long a round trip may take, two connections lost and found again included.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(240);
/// Steps that a program must report, in `tests/sdk/README.md`.
const STEPS: usize = 7;

#[test]
fn npm_wukongimjssdk_makes_its_round_trip() {
    let folder = repository("tests/sdk/js");
    let files = ["package.json", "package-lock.json", ".npmrc", "load.js", "main.js"];
    let paths = files.map(|name| folder.join(name));
    let inputs: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
    let installed = installed("sdk-js", &inputs, |target| {
        for (name, path) in files.iter().zip(&paths) {
            std::fs::copy(path, target.join(name)).unwrap();
        }
        done(Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(target));
    });
    round_trip("js", Command::new("node").arg("main.js").current_dir(installed));
}

#[test]
fn pypi_wukong_easy_sdk_makes_its_round_trip() {
    let python = python("venv-sdk", "tests/sdk/python/requirements.txt");
    let main = repository("tests/sdk/python/main.py");
    round_trip("py", Command::new(python).arg("-B").arg(main));
}

#[test]
fn crate_wukong_easy_sdk_makes_its_round_trip() {
    let folder = repository("tests/sdk/rust");
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-rust");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--target-dir"]).arg(&target);
    done(build.current_dir(folder));
    round_trip("rs", &mut Command::new(target.join("debug/jindou-sdk-round-trip")));
}

/// Runs a program against a node with token auth on, which dies and comes back when it asks.
fn round_trip(run: &str, program: &mut Command) {
    let mut node = Node::start_with(&[("WK_TOKENAUTHON", "true")]);
    let mut child = program
        .env("JINDOU_API", format!("http://{}", node.api_address()))
        .env("JINDOU_WS", format!("ws://{}", node.ws()))
        .env("JINDOU_RUN", run)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut answers, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    let (end, mut held) = (Instant::now() + ROUND_TRIP_MAX, Vec::new());
    // The lines end when the program does.
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "ask: kill" => node.kill(),
            Ok(line) if line == "ask: start" => {
                node.restart();
            }
            Ok(line) => {
                held.push(line);
                continue;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("not done after {ROUND_TRIP_MAX:?}; {held:?}");
            }
        }
        answers.write_all(b"done\n").unwrap();
    }
    let status = child.wait().unwrap();
    assert!(status.success() && held.len() == STEPS, "{status}; {held:?}");
}
