//! The generator against a stand-in server that keeps or breaks its promises.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "tests"
)]

mod standin;

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use standin::{Fault, StandIn};

/// Runs a line of arguments and gives the verdict and the JSON report.
fn bench(server: &StandIn, line: &str) -> (Result<(), String>, Value) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = line
        .replace("TCP", &format!("tcp://127.0.0.1:{}", server.tcp))
        .replace("WS", &format!("ws://127.0.0.1:{}", server.ws));
    let line =
        format!("{line} --http http://127.0.0.1:{} --json {}", server.http, file.path().display());
    let verdict = jindou_bench::run(line.split_whitespace().map(OsString::from));
    let json = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap());
    (verdict.map_err(|error| format!("{error:#}")), json.unwrap_or(Value::Null))
}

/// Runs end by count, not by time: the machine may be busy.
const SHORT: &str = "--warmup 0s --duration 60s --messages 600";
const FAULTY: &str = "--warmup 0s --duration 60s --messages 600 --drain 1s";

/// One run at a time: they measure wall time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn persons_over_every_wire() {
    let server = StandIn::start(Fault::None);
    for wire in [
        "TCP",
        "WS",
        "TCP --rpc",
        "WS --rpc",
        "TCP --protocol 2",
        "WS --protocol 4",
        "TCP --threads 2",
    ] {
        let line = format!("send --target {wire} -n 4 -k 8 --verify 1 --strict {SHORT}");
        let (verdict, json) = bench(&server, &line);
        assert_eq!(verdict, Ok(()), "{wire}: {json:#}");
        let check = &json["check"];
        assert!(check["acked"] == 600, "{wire}: {json:#}");
        assert_eq!(check["acked"], check["delivered"], "{wire}");
        assert_eq!(check["keys_checked"], check["delivered"], "{wire}");
        assert_eq!(json["connect"]["connections"], 4, "{wire}");
        assert!(json["sendack"]["p50_us"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn connections_go_to_each_node_in_turn() {
    let (server, other) = (StandIn::start(Fault::None), StandIn::start(Fault::None));
    // The two of a pair are on different servers, which do not know each other.
    let line = format!(
        "send --target TCP,127.0.0.1:{} -n 4 -k 8 --drain 1s --warmup 0s --duration 60s --messages 60",
        other.tcp
    );
    let (verdict, json) = bench(&server, &line);
    assert!(verdict.is_err(), "{json:#}");
    let check = &json["check"];
    assert_eq!((&check["acked"], &check["delivered"]), (&Value::from(60), &Value::from(0)));
}

#[test]
fn one_connection_and_offline_receivers() {
    let server = StandIn::start(Fault::None);
    let (verdict, json) = bench(&server, &format!("send --target TCP -n 1 -k 1 {SHORT}"));
    assert_eq!(verdict, Ok(()));
    assert_eq!(json["connect"]["connections"], 2);
    let (verdict, json) = bench(&server, &format!("send --target TCP -n 3 --offline {SHORT}"));
    assert_eq!(verdict, Ok(()));
    assert_eq!(json["check"]["delivered"], 0);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = StandIn::start(Fault::None);
    for arrivals in ["uniform", "poisson"] {
        let line = format!(
            "send --target TCP -n 4 --rate 1000 --arrivals {arrivals} --warmup 100ms --duration 1s --pid {}",
            std::process::id()
        );
        let (verdict, json) = bench(&server, &line);
        assert_eq!(verdict, Ok(()));
        let acked = json["sendack"]["count"].as_u64().unwrap();
        let slack = if arrivals == "uniform" { 1 } else { 150 };
        assert!(acked.abs_diff(1000) <= slack, "{arrivals}: {acked}");
        assert!(json["processes"][0]["cpu_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_group() {
    let server = StandIn::start(Fault::None);
    let line = format!(
        "fanout --target TCP -g 70 --senders 2 -k 5 --verify 1 --strict {SHORT} --messages 60"
    );
    let (verdict, json) = bench(&server, &line);
    assert_eq!(verdict, Ok(()), "{json:#}");
    let check = &json["check"];
    assert_eq!(check["acked"], 60);
    assert_eq!(check["delivered"].as_u64().unwrap(), 71 * check["acked"].as_u64().unwrap());
}

#[test]
fn idle_connections_are_counted_alive() {
    let server = StandIn::start(Fault::None);
    for wire in ["TCP", "WS", "TCP --rpc --threads 2", "TCP --source 127.0.0.1 --source 127.0.0.2"]
    {
        let line = format!("idle --target {wire} -n 40 --dials 8 --hold 300ms --ping 50ms");
        let (verdict, json) = bench(&server, &line);
        assert_eq!(verdict, Ok(()), "{wire}: {json:#}");
        assert_eq!((&json["alive"], &json["ponged"]), (&Value::from(40), &Value::from(40)));
    }
}

#[test]
fn lost_connects_are_dialled_again() {
    let server = StandIn::start(Fault::HangUp);
    let (verdict, json) = bench(&server, "idle --target TCP -n 10 --dials 1 --hold 10ms");
    assert_eq!(verdict, Ok(()));
    assert!(json["connect"]["dialled_again"].as_u64().unwrap() >= 5);
    let (verdict, _) = bench(&server, "idle --target TCP -n 10 --dials 1 --tries 1 --hold 10ms");
    assert!(verdict.unwrap_err().contains("cannot connect"));
}

#[test]
fn broken_promises_fail_the_run() {
    for (fault, strict, words) in [
        (Fault::LoseSome, "", "acknowledged and never delivered"),
        (Fault::WrongKey, "", "wrong key"),
        (Fault::Double, "--strict", "came again"),
    ] {
        let server = StandIn::start(fault);
        let line = format!("send --target TCP -n 4 -k 8 {strict} {FAULTY}");
        let (verdict, json) = bench(&server, &line);
        let error = verdict.unwrap_err();
        assert!(error.contains(words), "{fault:?}: {error}\n{json:#}");
    }
    let server = StandIn::start(Fault::LoseSome);
    let (verdict, _) = bench(&server, &format!("fanout --target TCP -g 5 -k 60 {FAULTY}"));
    assert!(verdict.unwrap_err().contains("acknowledged and never delivered"));
}

#[test]
fn refusals_are_counted_and_are_no_failure() {
    let server = StandIn::start(Fault::RefuseSome);
    let (verdict, json) = bench(&server, &format!("send --target TCP -n 2 -k 4 {SHORT}"));
    assert_eq!(verdict, Ok(()));
    assert!(json["check"]["refused"]["15"].as_u64().unwrap() > 1);
    assert_eq!(json["check"]["acked"], json["check"]["delivered"]);
}
