//! The selection that is played each time the tests run: one round each.

use std::time::Duration;

use crate::play::play;
use crate::scenarios::named;
use crate::support::{Dice, variable};

/// What has its test here.
pub const SHORT: [&str; 9] = [
    "kill_each",
    "kill_all",
    "cut_minority",
    "cut_majority",
    "cut_one_way",
    "kill_one",
    "pause",
    "rolling_restart",
    "join",
];

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

#[test]
fn pause() {
    short("pause");
}

#[test]
fn cut_majority() {
    short("cut_majority");
}

#[test]
fn rolling_restart() {
    short("rolling_restart");
}
