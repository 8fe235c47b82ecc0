//! The selection that is played each time the tests run: one round each. What holds must go on holding;
//! scenarios that still find something now and then ([`OPEN`]) are played by the campaign only, until
//! they do not.

use std::time::Duration;

use crate::play::play;
use crate::scenarios::named;
use crate::support::{Dice, variable};

/// What has its test here.
pub const SHORT: [&str; 6] =
    ["kill_each", "kill_all", "cut_minority", "cut_one_way", "kill_one", "join"];

/// What still finds something now and then.
pub const OPEN: [&str; 3] = ["rolling_restart", "pause", "cut_majority"];

/// One round.
fn short(name: &'static str) {
    let seed = Dice::of_clock().seed();
    let seed = variable("JINDOU_SEED").unwrap_or(seed);
    if let Err(text) = play(named(name), seed, Duration::ZERO) {
        panic!("{text}");
    }
}

#[test]
fn kill_each() {
    short("kill_each");
}

#[test]
fn kill_all() {
    short("kill_all");
}

#[test]
fn cut_minority() {
    short("cut_minority");
}

#[test]
fn cut_one_way() {
    short("cut_one_way");
}

#[test]
fn kill_one() {
    short("kill_one");
}

#[test]
fn join() {
    short("join");
}
