//! Figures of a cluster of three on loopback, for the table of the measurements:
//! `JINDOU_FIGURES=3 cargo test --release --test faults figures -- --nocapture` gives the medians of three
//! rounds, each on fresh nodes. `JINDOU_FIGURES_NODES` sets another number of nodes. Without
//! `JINDOU_FIGURES` nothing is measured.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::net::Network;
use crate::play::{Keep, WARM};
use crate::support::client::{Channel, Client, Login, SUCCESS, Transport};
use crate::support::history::{Gaps, History, Kind, Outcome, check, gaps, summary};
use crate::support::{Dice, alone, eventually, program, variable};
use crate::workload::{Plan, Size, World};

/// Channels of the idle cluster.
const STORED: usize = 100_000;
/// How long an idle cluster is looked at, after as long a rest.
const IDLE: Duration = Duration::from_secs(30);

/// Every figure's values, a round each, with the name of its row.
#[derive(Default)]
struct Table(Vec<(String, Vec<f64>)>);

impl Table {
    fn add(&mut self, name: &str, value: f64) {
        println!("  {name}: {value:.2}");
        match self.0.iter_mut().find(|(row, _)| row == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    fn print(&self) {
        println!("\n| figure | median | all |\n|---|---|---|");
        for (name, values) in &self.0 {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let all: Vec<_> = values.iter().map(|value| format!("{value:.2}")).collect();
            println!("| {name} | {:.2} | {} |", sorted[sorted.len() / 2], all.join(", "));
        }
    }
}

#[test]
fn of_a_cluster() {
    let Some(rounds) = variable("JINDOU_FIGURES") else {
        return;
    };
    let nodes = variable("JINDOU_FIGURES_NODES").unwrap_or(3) as usize;
    let only = std::env::var("JINDOU_FIGURES_ROWS").unwrap_or_default();
    let wanted = |row: &str| only.is_empty() || only.split(',').any(|one| one == row);
    let (_alone, mut table) = (alone(), Table::default());
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        if wanted("load") {
            load(&mut table, nodes);
        }
        if wanted("kill") && nodes > 1 {
            failover(&mut table, nodes, Kind::Kill, round);
        }
        if wanted("stop") && nodes > 1 {
            failover(&mut table, nodes, Kind::Stop, round);
        }
        if wanted("idle") {
            idle(&mut table, nodes);
        }
    }
    table.print();
}

/// Runs the load generator against a cluster; its report.
fn bench(cluster: &Cluster<'_>, words: &str) -> Value {
    let report = tempfile::NamedTempFile::new().unwrap();
    let doors = cluster.doors().read().unwrap().clone();
    let targets: Vec<_> = doors.iter().map(|door| door.tcp.as_str()).collect();
    let mut command = Command::new(program());
    command.arg("bench").args(words.split(' '));
    command.args(["--target", &format!("tcp://{}", targets.join(","))]);
    command.args(["--http", &format!("http://{}", doors[0].http)]);
    for pid in cluster.pids() {
        command.args(["--pid", &pid.to_string()]);
    }
    command.arg("--json").arg(report.path());
    let output = command.output().unwrap();
    if !output.status.success() {
        let (out, err) = (&output.stdout, &output.stderr);
        println!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    }
    serde_json::from_slice(&fs::read(report.path()).unwrap()).unwrap_or_default()
}

/// Sends in every shape, and connects.
fn load(table: &mut Table, nodes: usize) {
    let rows = [
        ("one in flight", "send -n 1 -k 1 --prefix one --warmup 2s --duration 8s"),
        (
            "200/s",
            "send -n 100 --rate 200 --arrivals poisson --prefix rate --warmup 2s --duration 10s",
        ),
        ("200 x 4", "send -n 200 -k 4 --prefix flood --warmup 3s --duration 8s"),
        (
            "5000/s",
            "send -n 200 --rate 5000 --arrivals poisson --prefix open --warmup 3s --duration 8s",
        ),
    ];
    for (name, words) in rows {
        let cluster = Cluster::start(&Network::Loopback, nodes, &[]);
        let report = bench(&cluster, words);
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let processes = report["processes"].as_array().into_iter().flatten();
        let cpu: f64 = processes.map(|process| number(&process["cpu_s"])).sum();
        let acked = number(&report["acked"]);
        table.add(&format!("{name}: acked/s"), number(&report["acked_per_s"]));
        table.add(&format!("{name}: p50 ms"), number(&report["sendack"]["p50_us"]) / 1000.0);
        table.add(&format!("{name}: p99 ms"), number(&report["sendack"]["p99_us"]) / 1000.0);
        table.add(&format!("{name}: CPU of all nodes, µs per send"), cpu * 1e6 / acked);
        let failures = report["failures"].as_array().map_or(1, Vec::len);
        table.add(&format!("{name}: broken promises"), failures as f64);
    }
    let cluster = Cluster::start(&Network::Loopback, nodes, &[]);
    let report = bench(&cluster, "idle -n 6000 --dials 64 --hold 1s");
    table.add("connects/s", report["connect"]["per_s"].as_f64().unwrap_or(f64::NAN));
}

/// One node dies, or stops, under 100 sends a second over 50 channels, and serves again.
fn failover(table: &mut Table, nodes: usize, kind: Kind, round: u64) {
    let seed = variable("JINDOU_SEED").unwrap_or_default() + round;
    let mut dice = Dice::seeded(seed);
    let mut cluster = Cluster::start(&Network::Loopback, nodes, &[]);
    let size = Size { rate: 100.0, ..Size::usual() };
    let world = World::new(cluster.doors(), Plan::new(size, &mut dice));
    let keep = Keep::new(&world, &format!("figures-{kind:?}"), seed);
    let clients = world.run(&mut dice);
    eventually("the first acknowledgements", || (world.acked() >= 5 * WARM).then_some(()));
    let victim = dice.between(0, nodes as u64) as usize;
    let fault = world.fault(kind, vec![cluster.id(victim)], true);
    if kind == Kind::Kill {
        cluster.kill(victim);
        // The cluster does without it, for longer than its failover takes.
        thread::sleep(Duration::from_secs(10));
    } else {
        let took = cluster.stop(victim);
        table.add("stop: until it had ended, s", took.as_secs_f64());
    }
    let start = Instant::now();
    cluster.launch(victim);
    cluster.await_serving(victim);
    table.add(&format!("{kind:?}: until it served again, s"), start.elapsed().as_secs_f64());
    thread::sleep(Duration::from_secs(5));
    world.healed(fault);
    let history = world.settle(clients);
    let Gaps { p50, p99, max, .. } = gaps(&history)[0];
    for (name, gap) in [("p50", p50), ("p99", p99), ("max", max)] {
        let name = format!("{kind:?}: longest without an acknowledgement, {name}, ms");
        table.add(&name, gap.as_secs_f64() * 1000.0);
    }
    let (once, twice) = failed(&history);
    table.add(&format!("{kind:?}: sends that failed once, %"), once);
    table.add(&format!("{kind:?}: sends that failed again, %"), twice);
    let found = check(&history);
    table.add(&format!("{kind:?}: broken promises"), found.len() as f64);
    if !found.is_empty() {
        println!("{}", summary(&found));
        println!("history: {}", keep.save());
    }
}

/// Shares of the messages that failed at least once, and at least twice, within the fault.
fn failed(history: &History) -> (f64, f64) {
    let fault = &history.faults[0];
    let mut messages: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for attempt in &history.attempts {
        let key = (attempt.sender.as_str(), attempt.client_msg_no.as_str());
        let (wanted, failed) = messages.entry(key).or_default();
        *wanted = attempt.wanted;
        *failed += u64::from(!matches!(attempt.outcome, Outcome::Acked { .. }));
    }
    let during = |wanted: u64| wanted >= fault.start && wanted <= fault.end;
    let during: Vec<_> = messages.values().filter(|(wanted, _)| during(*wanted)).collect();
    let share = |least: u64| {
        let count = during.iter().filter(|(_, failed)| *failed >= least).count();
        100.0 * count as f64 / during.len().max(1) as f64
    };
    (share(1), share(2))
}

/// Nobody is there, and many channels are stored.
fn idle(table: &mut Table, nodes: usize) {
    let cluster = Cluster::start(&Network::Loopback, nodes, &[]);
    let doors = cluster.doors().read().unwrap().clone();
    let writers: Vec<_> = (0..nodes)
        .map(|place| {
            let door = doors[place].clone();
            thread::spawn(move || {
                let login = Login::new(&format!("filler-{place}"), Transport::Tcp);
                let mut client = Client::login_at(&door.tcp, &door.ws, &login).unwrap();
                let all: Vec<usize> = (place..STORED).step_by(nodes).collect();
                for some in all.chunks(200) {
                    let (seqs, frames): (Vec<_>, Vec<_>) = some
                        .iter()
                        .map(|n| client.frame(&Channel::person(&format!("p{n}")), "1", b"hello"))
                        .unzip();
                    client.write(&frames).unwrap();
                    for seq in seqs {
                        assert_eq!(client.ack(seq).reason, SUCCESS);
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    thread::sleep(IDLE);
    let pids = cluster.pids();
    let before: Vec<_> = pids.iter().map(|pid| cpu(*pid)).collect();
    thread::sleep(IDLE);
    for (pid, before) in pids.iter().zip(before) {
        let used = (cpu(*pid) - before) / IDLE.as_secs_f64();
        table.add("idle, 100,000 channels: % of a core per node", used * 100.0);
        table.add("idle, 100,000 channels: MB per node", resident(*pid));
    }
}

/// CPU seconds of a process so far.
fn cpu(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = threads.map(|thread| {
        let line = fs::read_to_string(thread.unwrap().path().join("schedstat"));
        let line = line.unwrap_or_default();
        line.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0)
    });
    nanos.sum::<f64>() / 1e9
}

/// Resident memory of a process, MB.
fn resident(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<f64>().unwrap() / 1024.0
}
