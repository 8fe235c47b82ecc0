//! A node that is out of descriptors goes on serving, and accepts again when some come back. In a
//! process of its own, because the limit is the process's; the clients live in a second one.

#![expect(unsafe_code, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use common::{Plan, check_echo, connect, drivers, echo};

const COUNT: usize = 300;
const ADDRESS: &str = "JINDOU_TEST_ADDRESS";

/// The second process: connects, waits, gives up two thirds, uses the others.
#[test]
fn clients() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let address = address.parse().unwrap();
    let mut streams: Vec<_> = (0..COUNT).map(|_| connect(address)).collect();
    println!("\nconnected");
    std::io::stdin().lines().next();
    let mut rest = streams.split_off(COUNT * 2 / 3);
    check_echo(&mut streams[0], b"accepted early");
    drop(streams);
    for stream in &mut rest {
        check_echo(stream, b"accepted late");
    }
}

fn limit_open_files(count: u64) {
    // SAFETY: both calls read or write one local rlimit.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = count;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn out_of_descriptors_is_survived() {
    if std::env::var(ADDRESS).is_ok() {
        return;
    }
    for driver in drivers() {
        let node = Plan::new(driver, 1).start(|_| echo);
        let mut stream = node.connect();
        check_echo(&mut stream, b"first");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "clients", "--nocapture"])
            .env(ADDRESS, node.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        limit_open_files(open + 100);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("connected")));
        while node.sum(|counters| counters.accept_errors.get()) == 0 {
            check_echo(&mut stream, b"meanwhile");
        }
        assert!(node.sum(|counters| counters.open.get()) < COUNT as u64);
        check_echo(&mut stream, b"still served");
        child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        assert!(lines.all(|line| line.is_ok()));
        assert!(child.wait().unwrap().success());
        node.wait_for(1, |counters| counters.open.get());
        check_echo(&mut stream, b"after");
        jindou_net::raise_open_files().unwrap();
    }
}
