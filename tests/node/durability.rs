//! G1 to G7 over the end of the process: writers over every door, a kill at a random moment, a
//! restart on the same directory, again and again; then the whole history is checked.
//!
//! `JINDOU_ROUNDS` sets how often (5 in the everyday run, 25 and more before a release).

use std::fs;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::shim;
use crate::support::client::Transport;
use crate::support::history::assert_holds;
use crate::support::node::Node;
use crate::support::{Dice, alone, variable};
use crate::workload::{Door, World, survive};

#[test]
fn g1_to_g7_hold_over_kills_at_random_moments() {
    let _alone = alone();
    let dice = Dice::new("durability::g1_to_g7_hold_over_kills_at_random_moments");
    let rounds = variable("JINDOU_ROUNDS").unwrap_or(5);
    survive(dice, Node::start(), rounds, |_| {});
}

/// kill -9 leaves the page cache alive; this disk does not, see `shim/lossy.c`.
#[test]
fn g1_to_g7_hold_over_kills_on_a_disk_that_loses_what_was_not_fsynced() {
    let _alone = alone();
    let dice =
        Dice::new("durability::g1_to_g7_hold_over_kills_on_a_disk_that_loses_what_was_not_fsynced");
    let rounds = variable("JINDOU_ROUNDS").unwrap_or(5);
    let mut node = Node::prepare(&[]);
    let (data, shadow) = (node.data(), node.folder().join("shadow"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&shadow).unwrap();
    node.set("LD_PRELOAD", shim::library("lossy").to_str().unwrap());
    node.set("JINDOU_SHIM_ROOT", data.to_str().unwrap());
    node.set("JINDOU_SHIM_SHADOW", shadow.to_str().unwrap());
    node.set("JINDOU_SHIM_FSYNC_US", "5000");
    node.launch();
    node.wait_ready();
    survive(dice, node, rounds, |node| {
        // What the power cut left becomes the disk.
        shim::copy(&node.folder().join("shadow"), &node.data());
    });
}

#[test]
fn g1_a_graceful_stop_under_load_loses_nothing_and_ends_within_10_s() {
    let _alone = alone();
    let mut dice =
        Dice::new("durability::g1_a_graceful_stop_under_load_loses_nothing_and_ends_within_10_s");
    let node = Arc::new(RwLock::new(Node::start()));
    let doors = [Transport::Tcp, Transport::Ws, Transport::Json].map(Door::Client);
    let world = World::new(Arc::clone(&node), &[&doors[..], &[Door::Http]].concat());
    let threads = world.run(|| dice.fork());
    for _ in 0..2 {
        world.wait_for_acks(500);
        let mut node = node.write().unwrap();
        let (status, took) = node.terminate();
        assert!(status.success(), "SIGTERM: {status}");
        assert!(took < Duration::from_secs(10), "SIGTERM took {took:?}");
        node.restart();
    }
    world.settle(threads);
    world.read();
    assert_holds(&world.history());
}
