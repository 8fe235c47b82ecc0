//! Published SDKs, unmodified, chat through the node: see `tests/sdk/README.md`.

use std::process::Command;
use std::time::Duration;

use crate::programs::{converse, done, npm, python, repository};
use crate::support::node::Node;

/// How long a round trip may take, two connections lost and found again included.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(240);
/// Steps that a program must report, in `tests/sdk/README.md`.
pub const STEPS: usize = 11;

#[test]
fn npm_wukongimjssdk_makes_its_round_trip() {
    let folder = repository("tests/sdk/js");
    let files = ["package.json", "package-lock.json", ".npmrc", "load.js", "main.js"];
    let installed = npm("sdk-js", &folder, &files);
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
    program
        .env("JINDOU_API", format!("http://{}", node.api_address()))
        .env("JINDOU_WS", format!("ws://{}", node.ws()))
        .env("JINDOU_RUN", run);
    converse(&mut node, program, STEPS, ROUND_TRIP_MAX);
}
