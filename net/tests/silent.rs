//! Ten thousand connections that say nothing. The clients live in a second process, because both
//! ends together may be more than one process may hold open.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use common::{Plan, check_echo, connect, drivers, echo};

const COUNT: u64 = 10_000;
const ADDRESS: &str = "JINDOU_TEST_ADDRESS";

/// The second process: connects, says so, waits for the end of its input, tries some.
#[test]
fn clients() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    jindou_net::raise_open_files().unwrap();
    let address = address.parse().unwrap();
    let mut streams: Vec<_> = (0..COUNT).map(|_| connect(address)).collect();
    println!("\nconnected");
    std::io::stdin().lines().next();
    for place in (0..streams.len()).step_by(777) {
        check_echo(&mut streams[place], b"not dead");
    }
}

#[test]
fn ten_thousand_silent_connects_disturb_nobody() {
    for driver in drivers() {
        let node = Plan::new(driver, 2).start(|_| echo);
        let mut stream = node.connect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "clients", "--nocapture"])
            .env(ADDRESS, node.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while node.sum(|counters| counters.open.get()) < COUNT {
            check_echo(&mut stream, b"meanwhile");
        }
        assert!(lines.any(|line| line.unwrap().contains("connected")));
        node.wait_for(COUNT + 1, |counters| counters.open.get());
        check_echo(&mut stream, b"beside");
        child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        assert!(lines.all(|line| line.is_ok()));
        assert!(child.wait().unwrap().success());
        node.wait_for(1, |counters| counters.open.get());
        check_echo(&mut stream, b"after");
    }
}
