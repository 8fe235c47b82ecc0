//! Stories of system accounts that a datasource knows (http-api.md §20).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod world;

use jindou_core::settings::Settings;
use world::{Client, World};

const NOT_IN_GROUP: u64 = 3;
const SUCCESS: u64 = 1;

fn world() -> (World, Client, Client) {
    let settings =
        Settings { has_datasource: true, shard_count: 3, slot_count: 8, ..Settings::default() };
    let mut world = World::with(settings);
    world.group("g", &["ann"]);
    let (ann, boss) = (world.connect("ann"), world.connect("boss"));
    world.heard(ann);
    world.heard(boss);
    (world, ann, boss)
}

/// The reasons of the SENDACKs since the last time.
fn acked(world: &mut World, client: Client) -> Vec<u64> {
    let heard = world.heard(client);
    let acks = heard.iter().filter_map(|frame| frame["result"]["reasonCode"].as_u64());
    acks.collect()
}

#[test]
fn a_send_that_would_be_refused_waits_for_the_datasource_and_keeps_its_order() {
    let (mut world, ann, boss) = world();
    world.send(ann, "g", 2, "1");
    world.run();
    assert_eq!((acked(&mut world, ann), world.asked), (vec![SUCCESS], 0), "nothing to ask");
    for number in ["1", "2", "3"] {
        world.send(boss, "g", 2, number);
    }
    world.advance(200);
    assert_eq!((acked(&mut world, boss), world.asked), (vec![], 1));
    world.sourced(Some(&["boss"]));
    world.advance(400);
    assert_eq!(acked(&mut world, boss), [SUCCESS; 3]);
    let eve = world.connect("eve");
    world.heard(eve);
    world.send(eve, "g", 2, "1");
    world.run();
    assert_eq!((acked(&mut world, eve), world.asked), (vec![NOT_IN_GROUP], 1));
}

#[test]
fn a_datasource_that_fails_is_asked_again_after_a_while() {
    let (mut world, ann, boss) = world();
    world.send(boss, "g", 2, "1");
    world.run();
    world.sourced(None);
    world.advance(200);
    assert_eq!((acked(&mut world, boss), world.asked), (vec![NOT_IN_GROUP], 1));
    world.send(boss, "g", 2, "2");
    world.run();
    assert_eq!((acked(&mut world, boss), world.asked), (vec![NOT_IN_GROUP], 1), "at once");
    world.advance(15_000);
    world.send(boss, "g", 2, "3");
    world.send(ann, "g", 2, "1");
    world.run();
    assert_eq!(world.asked, 2);
    world.sourced(Some(&["boss"]));
    world.advance(400);
    assert_eq!((acked(&mut world, boss), acked(&mut world, ann)), (vec![SUCCESS], vec![SUCCESS]));
}

#[test]
fn nobody_waits_a_second_time_for_a_datasource_that_is_slow() {
    let (mut world, _, boss) = world();
    world.send(boss, "g", 2, "1");
    world.advance(300);
    assert!(acked(&mut world, boss).is_empty());
    world.advance(1_000);
    assert_eq!((acked(&mut world, boss), world.asked), (vec![NOT_IN_GROUP], 1));
    world.advance(9_000);
    world.sourced(None);
    world.advance(15_000);
    world.send(boss, "g", 2, "2");
    world.run();
    assert_eq!((acked(&mut world, boss), world.asked), (vec![NOT_IN_GROUP], 2));
    world.sourced(Some(&["boss"]));
    world.send(boss, "g", 2, "3");
    world.run();
    assert_eq!((acked(&mut world, boss), world.asked), (vec![SUCCESS], 2));
}
