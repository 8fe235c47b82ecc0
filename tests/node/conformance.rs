//! Recorded v2.2.5 behaviour, played against the node by `tests/conformance/run.py`.

use std::process::Command;

use crate::programs::{python, repository};
use crate::support::{alone, program};

fn play(more: &[&str]) {
    let python = python("venv-conformance", "tests/conformance/requirements.txt");
    let _alone = alone();
    let output = Command::new(python)
        .arg(repository("tests/conformance/run.py"))
        .arg("--bin")
        .arg(program())
        .args(["--jobs", "4"])
        .args(more)
        .arg("--list")
        .arg(repository("tests/conformance/holds.txt"))
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{out}{err}\nreplay: tests/conformance/README.md");
}

#[test]
fn every_scenario_of_the_list_holds() {
    play(&[]);
}

/// Clients and requests are spread over the nodes; JINDOU_SEED spreads them otherwise.
#[test]
fn every_scenario_of_the_list_holds_on_three_nodes() {
    let seed = std::env::var("JINDOU_SEED").unwrap_or_else(|_| "1".to_owned());
    println!("JINDOU_SEED={seed}");
    play(&["--nodes", "3", "--seed", &seed]);
}

#[test]
fn the_lists_of_scenarios_are_what_the_scenarios_say() {
    let mut choose = Command::new("python3");
    let output = choose.arg(repository("tests/conformance/choose.py")).arg("--check").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
