//! Under a seccomp profile that forbids io_uring, as Docker's default one does, a node runs on
//! epoll and says why. Each case in a process of its own, because a filter stays.

#![expect(unsafe_code, clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Command;

use common::{Plan, check_echo, echo};
use jindou_net::{DriverChoice, DriverKind, probe};

const ERROR: &str = "JINDOU_TEST_ERROR";

/// Makes io_uring's three system calls fail with `error`, in all threads to come.
fn forbid(error: u32) {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    // Reads the number of the call; 425, 426 and 427 are io_uring's on every architecture.
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 425, 0, 2),
        statement(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 427, 1, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: 5, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter outlive the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn under_a_filter() {
    let Ok(error) = std::env::var(ERROR) else {
        return;
    };
    forbid(error.parse().unwrap());
    assert!(probe(DriverChoice::IoUring).is_err());
    let found = probe(DriverChoice::Auto).unwrap();
    assert_eq!(found.kind, DriverKind::Epoll);
    println!("because: {}", found.reason.unwrap());
    let node = Plan::new(found.kind, 2).start(|_| echo);
    check_echo(&mut node.connect(), b"on epoll");
}

#[test]
fn a_node_falls_back_to_epoll_and_says_why() {
    for (error, reason) in [(libc::EPERM, "forbidden"), (libc::ENOSYS, "not in this kernel")] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "under_a_filter", "--nocapture"])
            .env(ERROR, error.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&format!("because: {reason}")), "{text}");
    }
}
