//! What is done to a cluster. Each scenario is one round of it; a run repeats it until its time is
//! over.

use std::time::Duration;

use crate::net::Wire;
use crate::play::Run;
use crate::support::history::Kind;

/// One kind of trouble.
pub struct Scenario {
    pub name: &'static str,
    /// Nodes to begin with.
    pub nodes: usize,
    /// Whether packets are touched, which takes a network of one's own.
    pub wire: bool,
    /// Whether one run can hold several rounds.
    pub repeats: bool,
    pub round: fn(&mut Run<'_, '_>),
}

impl Scenario {
    const fn new(name: &'static str, nodes: usize, round: fn(&mut Run<'_, '_>)) -> Self {
        Self { name, nodes, wire: false, repeats: true, round }
    }

    const fn wired(self) -> Self {
        Self { wire: true, ..self }
    }

    const fn once(self) -> Self {
        Self { repeats: false, ..self }
    }
}

/// Every scenario, by name.
pub const ALL: &[Scenario] = &[
    Scenario::new("quiet", 3, quiet),
    Scenario::new("kill_alone", 1, kill_all),
    Scenario::new("kill_one", 3, kill_one),
    Scenario::new("kill_each", 3, kill_each),
    Scenario::new("kill_all", 3, kill_all),
    Scenario::new("vanish", 3, vanish).wired(),
    Scenario::new("pause", 3, pause),
    Scenario::new("cut_minority", 3, cut_minority).wired(),
    Scenario::new("cut_majority", 3, cut_majority).wired(),
    Scenario::new("cut_one_way", 3, cut_one_way).wired(),
    Scenario::new("flapping", 3, flapping).wired(),
    Scenario::new("slow", 3, slow).wired(),
    Scenario::new("wipe", 3, wipe),
    Scenario::new("rolling_restart", 3, rolling_restart),
    Scenario::new("stop_all", 3, stop_all),
    Scenario::new("join", 3, join).once(),
    Scenario::new("grow", 1, grow).once(),
    Scenario::new("kill_two_of_five", 5, kill_two_of_five),
];

/// The scenario with this name.
pub fn named(name: &str) -> &'static Scenario {
    let found = ALL.iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario {name}"))
}

/// Nothing happens: what breaks here is no fault's fault.
fn quiet(run: &mut Run<'_, '_>) {
    run.calm();
}

fn kill_one(run: &mut Run<'_, '_>) {
    let victim = run.some_node();
    kill(run, &[victim], true);
}

fn kill_each(run: &mut Run<'_, '_>) {
    for victim in run.nodes_in_some_order() {
        kill(run, &[victim], true);
        run.calm();
    }
}

/// The cluster comes back by itself, whatever the order.
fn kill_all(run: &mut Run<'_, '_>) {
    let all = run.nodes_in_some_order();
    kill(run, &all, false);
}

fn kill_two_of_five(run: &mut Run<'_, '_>) {
    let victims = run.nodes_in_some_order();
    kill(run, &victims[..2], true);
}

fn kill(run: &mut Run<'_, '_>, victims: &[usize], quorum: bool) {
    let fault = run.fault(Kind::Kill, victims, quorum);
    for victim in victims {
        run.cluster.kill(*victim);
    }
    run.wait(3000, 7000);
    for victim in victims {
        run.cluster.launch(*victim);
    }
    for victim in victims {
        run.cluster.await_serving(*victim);
    }
    run.world.healed(fault);
}

/// A host is gone from one moment to the next, and no connection to it ever ends.
fn vanish(run: &mut Run<'_, '_>) {
    let victim = run.some_node();
    let fault = run.fault(Kind::Vanish, &[victim], true);
    run.cluster.set_unplugged(victim, true);
    run.cluster.kill(victim);
    run.wait(4000, 9000);
    run.cluster.set_unplugged(victim, false);
    run.cluster.launch(victim);
    run.cluster.await_serving(victim);
    run.world.healed(fault);
}

/// A node stands still, with all its connections open, and goes on as if nothing had been.
fn pause(run: &mut Run<'_, '_>) {
    let victim = run.some_node();
    let fault = run.fault(Kind::Pause, &[victim], true);
    run.cluster.pause(victim);
    run.wait(2000, 9000);
    run.cluster.resume(victim);
    run.world.healed(fault);
}

fn cut_minority(run: &mut Run<'_, '_>) {
    let victim = run.some_node();
    let fault = run.fault(Kind::Cut, &[victim], true);
    run.cluster.set_isolated(victim, true);
    run.wait(4000, 12_000);
    run.cluster.heal();
    run.world.healed(fault);
}

/// No node sees another: nobody may acknowledge anything.
fn cut_majority(run: &mut Run<'_, '_>) {
    let all = run.nodes_in_some_order();
    let fault = run.fault(Kind::Cut, &all, false);
    for place in all {
        run.cluster.set_isolated(place, true);
    }
    run.wait(4000, 10_000);
    run.cluster.heal();
    run.world.healed(fault);
}

/// A node hears the others and is not heard, or the other way round.
fn cut_one_way(run: &mut Run<'_, '_>) {
    let victim = run.some_node();
    let deaf = run.dice.between(0, 2) == 0;
    let fault = run.fault(Kind::Cut, &[victim], true);
    let wire = Wire { cut: true, ..Wire::default() };
    for other in (0..run.cluster.count()).filter(|other| *other != victim) {
        let (from, to) = if deaf { (other, victim) } else { (victim, other) };
        run.cluster.set_wire(from, to, wire);
    }
    run.wait(4000, 10_000);
    run.cluster.heal();
    run.world.healed(fault);
}

fn flapping(run: &mut Run<'_, '_>) {
    let victim = run.some_node();
    let fault = run.fault(Kind::Flap, &[victim], true);
    for _ in 0..run.dice.between(4, 9) {
        run.cluster.set_isolated(victim, true);
        run.wait(200, 1800);
        run.cluster.set_isolated(victim, false);
        run.wait(100, 1200);
    }
    run.cluster.heal();
    run.world.healed(fault);
}

fn slow(run: &mut Run<'_, '_>) {
    let all: Vec<_> = (0..run.cluster.count()).collect();
    let fault = run.fault(Kind::Slow, &all, true);
    for from in &all {
        for to in all.iter().filter(|to| *to != from) {
            let wire = Wire {
                cut: false,
                delay: Duration::from_millis(run.dice.between(5, 60)),
                jitter: Duration::from_millis(run.dice.between(0, 40)),
                loss: u32::try_from(run.dice.between(0, 30)).unwrap(),
            };
            run.cluster.set_wire(*from, *to, wire);
        }
    }
    run.wait(6000, 12_000);
    run.cluster.heal();
    run.world.healed(fault);
}

/// A node loses its disk and comes back empty; then the cluster has to do with it and one other.
fn wipe(run: &mut Run<'_, '_>) {
    let order = run.nodes_in_some_order();
    let victim = order[0];
    let fault = run.fault(Kind::Wipe, &[victim], true);
    run.cluster.kill(victim);
    run.wait(500, 4000);
    run.cluster.wipe(victim);
    run.cluster.launch(victim);
    run.cluster.await_serving(victim);
    let spread = run.cluster.await_spread();
    run.world.healed(fault);
    run.world.spread(spread);
    run.calm();
    kill(run, &order[1..2], true);
}

fn rolling_restart(run: &mut Run<'_, '_>) {
    for place in run.nodes_in_some_order() {
        let fault = run.fault(Kind::Stop, &[place], true);
        let took = run.cluster.stop(place);
        println!("         it stopped within {took:.1?}");
        run.cluster.launch(place);
        run.cluster.await_serving(place);
        run.world.healed(fault);
        run.calm();
    }
}

fn stop_all(run: &mut Run<'_, '_>) {
    let all = run.nodes_in_some_order();
    let fault = run.fault(Kind::Stop, &all, false);
    for place in &all {
        run.cluster.stop(*place);
    }
    for place in &all {
        run.cluster.launch(*place);
    }
    for place in all {
        run.cluster.await_serving(place);
    }
    run.world.healed(fault);
}

fn join(run: &mut Run<'_, '_>) {
    grow_by_one(run);
}

/// One node becomes three, and can then do without the one that was first.
fn grow(run: &mut Run<'_, '_>) {
    grow_by_one(run);
    run.calm();
    grow_by_one(run);
    run.calm();
    kill(run, &[0], true);
}

fn grow_by_one(run: &mut Run<'_, '_>) {
    let place = run.cluster.count();
    let fault = run.fault(Kind::Join, &[place], true);
    run.cluster.join(crate::play::ENVIRONMENT);
    let spread = run.cluster.await_spread();
    run.world.healed(fault);
    run.world.spread(spread);
}
