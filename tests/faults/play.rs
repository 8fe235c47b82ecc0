//! Plays a scenario: a fresh cluster, clients, faults until the time is over, and the verdict.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::net::with_network;
use crate::scenarios::Scenario;
use crate::support::history::{self, Kind, check, gaps, save};
use crate::support::{Dice, alone, eventually};
use crate::workload::{Plan, Size, World};

/// Dead connections are noticed sooner than by default; clients ping often enough.
pub const ENVIRONMENT: &[(&str, &str)] = &[("WK_CONNIDLETIME", "15s")];

/// Acknowledged messages before the first fault.
pub const WARM: usize = 100;

/// A scenario under way.
pub struct Run<'a, 'n> {
    pub cluster: &'a mut Cluster<'n>,
    pub world: Arc<World>,
    pub dice: &'a mut Dice,
}

impl Run<'_, '_> {
    /// A fault begins; its place.
    pub fn fault(&mut self, kind: Kind, places: &[usize], quorum: bool) -> usize {
        let nodes = places.iter().map(|place| self.cluster.id(*place)).collect();
        self.world.fault(kind, nodes, quorum)
    }

    /// Lets time pass: so many milliseconds.
    pub fn wait(&mut self, low: u64, high: u64) {
        thread::sleep(Duration::from_millis(self.dice.between(low, high)));
    }

    /// Lets the cluster do its work between two faults.
    pub fn calm(&mut self) {
        self.wait(2500, 5000);
    }

    pub fn some_node(&mut self) -> usize {
        self.dice.between(0, self.cluster.count() as u64) as usize
    }

    pub fn nodes_in_some_order(&mut self) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.cluster.count()).collect();
        for place in (1..all.len()).rev() {
            all.swap(place, self.dice.between(0, place as u64 + 1) as usize);
        }
        all
    }
}

/// What is kept of a run that fails; at its end the clients go home.
pub struct Keep<'a> {
    world: &'a World,
    file: PathBuf,
    name: String,
    seed: u64,
}

impl<'a> Keep<'a> {
    pub fn new(world: &'a World, name: &str, seed: u64) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("histories");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}-{seed}.jsonl"));
        Self { world, file, name: name.to_owned(), seed }
    }

    /// Writes the history down; where, and how to see it all again.
    pub fn save(&self) -> String {
        let Self { world, file, name, seed } = self;
        let file = match save(&world.history(), file) {
            Ok(()) => file.display().to_string(),
            Err(e) => format!("not kept: {e}"),
        };
        format!(
            "{file}\n  check again: JINDOU_HISTORY={file} cargo test --test faults replay -- \
             --nocapture\n  play again: JINDOU_SCENARIO={name} JINDOU_SEED={seed} cargo test --test \
             faults campaign -- --nocapture"
        )
    }
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        self.world.abandon();
        if thread::panicking() {
            eprintln!("history: {}", self.save());
        }
    }
}

/// Rounds of a scenario for so long, at least one. An error tells what was broken, and how to see it
/// again.
pub fn play(scenario: &Scenario, seed: u64, time: Duration) -> Result<(), String> {
    let _alone = alone();
    with_network(|network| {
        if scenario.wire && network.wire().is_none() {
            println!("{}: left out, it needs network namespaces (run as root)", scenario.name);
            return Ok(());
        }
        println!("{}, seed {seed}", scenario.name);
        let mut dice = Dice::seeded(seed);
        let mut cluster = Cluster::start(network, scenario.nodes, ENVIRONMENT);
        let world = World::new(cluster.doors(), Plan::new(Size::usual(), &mut dice));
        let keep = Keep::new(&world, scenario.name, seed);
        let clients = world.run(&mut dice);
        eventually("the first acknowledgements", || (world.acked() >= WARM).then_some(()));
        let start = Instant::now();
        loop {
            let mut run = Run { cluster: &mut cluster, world: Arc::clone(&world), dice: &mut dice };
            (scenario.round)(&mut run);
            run.calm();
            if !scenario.repeats || start.elapsed() >= time {
                break;
            }
        }
        let history = world.settle(clients);
        for (fault, gaps) in history.faults.iter().zip(gaps(&history)) {
            let (kind, nodes) = (fault.kind, &fault.nodes);
            println!("  {kind:?} of {nodes:?}: longest without an acknowledgement {gaps}");
        }
        let (attempts, pushes, reads) =
            (history.attempts.len(), history.pushes.len(), history.reads.len());
        println!(
            "  {attempts} attempts, {} acknowledged, {pushes} pushes, {reads} reads",
            world.acked()
        );
        let found = check(&history);
        if found.is_empty() {
            if std::env::var_os("JINDOU_KEEP").is_some() {
                let (history, logs) = (keep.save(), cluster.keep().join(" "));
                println!("  nodes: {logs}\n  history: {history}");
            }
            return Ok(());
        }
        let (summary, logs) = (history::summary(&found), cluster.keep().join(" "));
        Err(format!("{}: {summary}\n  nodes: {logs}\n  history: {}", scenario.name, keep.save()))
    })
}
