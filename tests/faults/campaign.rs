//! Every scenario, for as long as one likes.
//!
//! `JINDOU_FAULTS_SECONDS=3600 cargo test --release --test faults campaign -- --nocapture` plays every
//! scenario in turn, with other dice each time, for an hour; `JINDOU_SCENARIO` and `JINDOU_SEED` choose
//! one and its dice. `JINDOU_FAULTS_RATE` sets the sends a second. With `JINDOU_KEEP` the history and the
//! nodes' logs of a run that holds are kept too.

use std::panic;
use std::time::{Duration, Instant};

use crate::play::play;
use crate::scenarios::{ALL, named};
use crate::short::SHORT;
use crate::support::{Dice, variable};

/// How long a scenario is played in a campaign.
const TURN: Duration = Duration::from_secs(60);

/// Without a time: one round of one of the scenarios that have no test of their own.
#[test]
fn plays_on() {
    let time = variable("JINDOU_FAULTS_SECONDS").map(Duration::from_secs);
    let chosen = std::env::var("JINDOU_SCENARIO").ok();
    let mut dice = Dice::of_clock();
    let mut all: Vec<_> = ALL.iter().collect();
    match (&chosen, time) {
        (Some(name), _) => all = vec![named(name)],
        (None, Some(_)) => {}
        (None, None) => {
            all.retain(|scenario| !SHORT.contains(&scenario.name));
            all = vec![all[dice.between(0, all.len() as u64) as usize]];
        }
    }
    let (start, mut failed, mut turns) = (Instant::now(), Vec::new(), 0);
    for scenario in all.iter().cycle() {
        let first = variable("JINDOU_SEED").filter(|_| turns == 0);
        let seed = first.unwrap_or_else(|| dice.between(0, 1_000_000_000));
        let turn = if time.is_some() { TURN } else { Duration::ZERO };
        // A run that cannot go on says why by itself; the others go on.
        let played = panic::catch_unwind(|| play(scenario, seed, turn));
        let played = played.unwrap_or_else(|_| Err(format!("{}: it broke off", scenario.name)));
        if let Err(text) = played {
            println!("FAILED {text}");
            failed.push(text);
        }
        turns += 1;
        if start.elapsed() >= time.unwrap_or_default() {
            break;
        }
    }
    println!("{turns} runs in {:.0?}, {} failed", start.elapsed(), failed.len());
    assert!(failed.is_empty(), "{} of {turns} runs failed:\n{}", failed.len(), failed.join("\n"));
}
