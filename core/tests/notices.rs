//! Stories of what a node has to tell the receiver of webhooks (decision 0013).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod world;

use jindou_core::{
    notice::{Telling, Told, tell},
    settings::Settings,
};
use world::World;

fn world(change: impl FnOnce(&mut Settings)) -> World {
    let mut settings =
        Settings { tells: tell::ALL, tells_status: true, shard_count: 3, ..Settings::default() };
    change(&mut settings);
    World::with(settings)
}

/// What was told since the last time, in the words of a test.
fn told(world: &mut World) -> (Vec<Telling>, Vec<String>) {
    let tellings: Vec<Telling> = world.told.drain(..).map(|(_, telling)| telling).collect();
    let words = tellings.iter().map(|telling| match &telling.what {
        Told::Stored(message) => format!("notify {}", message.seq),
        Told::Offline { message, uids } => {
            let mut uids = uids.clone();
            uids.sort_unstable();
            format!("offline {} {}", message.seq, uids.join(","))
        }
        Told::Status(item) => {
            let mut parts: Vec<&str> = item.split('-').collect();
            // The connection's number.
            parts.remove(3);
            parts.join("-")
        }
    });
    let words = words.collect();
    (tellings, words)
}

fn take(world: &mut World, tellings: &[Telling]) {
    for telling in tellings {
        world.taken(telling);
    }
    world.run();
}

#[test]
fn a_message_is_told_once_taken_and_its_row_goes() {
    let mut world = world(|settings| settings.tells_status = false);
    world.group("g", &["ann", "bob", "eve"]);
    let ann = world.connect("ann");
    world.connect("bob");
    world.send_wait(ann, "g", 2, "1");
    world.send_wait(ann, "g", 2, "2");
    let (tellings, mut words) = told(&mut world);
    words.sort_unstable();
    // Without tokens every device is a slave: connected or not, nobody has a master session.
    assert_eq!(words, ["notify 1", "notify 2", "offline 1 bob,eve", "offline 2 bob,eve"]);
    assert_eq!(world.store.notices.len(), 2);
    take(&mut world, &tellings);
    world.advance(1_000);
    assert!(world.store.notices.is_empty());
    assert!(told(&mut world).1.is_empty());
    world.restart();
    assert!(told(&mut world).1.is_empty());
}

#[test]
fn what_was_not_taken_is_told_again_after_a_crash_and_by_the_next_leader() {
    let mut world = world(|settings| settings.tells_status = false);
    let ann = world.connect("ann");
    world.send_wait(ann, "bob", 1, "1");
    world.send_wait(ann, "bob", 1, "2");
    let (tellings, _) = told(&mut world);
    let first: Vec<Telling> =
        tellings.iter().filter(|telling| telling.number == 1).cloned().collect();
    assert_eq!(first.len(), 2);
    take(&mut world, &first);
    world.advance(1_000);
    world.restart();
    world.advance(1_000);
    let mut words = told(&mut world).1;
    words.sort_unstable();
    assert_eq!(words, ["notify 2", "offline 2 bob"]);
    world.lead_all(false);
    world.lead_all(true);
    world.advance(1_000);
    assert_eq!(told(&mut world).1.len(), 2);
    // Answers to an earlier leader count for nothing.
    take(&mut world, &tellings);
    world.advance(1_000);
    assert_eq!(world.store.notices.len(), 1);
}

#[test]
fn a_window_bounds_what_is_under_way_and_nothing_is_left_out() {
    let mut world = world(|settings| {
        (settings.tells, settings.tells_status) = (tell::STORED, false);
    });
    let ann = world.connect("ann");
    for n in 1..=1_500 {
        world.send_wait(ann, "bob", 1, &n.to_string());
    }
    let mut seqs = Vec::new();
    loop {
        let (tellings, _) = told(&mut world);
        assert!(tellings.len() <= 512, "{}", tellings.len());
        if tellings.is_empty() {
            break;
        }
        for telling in &tellings {
            let Told::Stored(message) = &telling.what else { panic!("{telling:?}") };
            seqs.push(message.seq);
        }
        take(&mut world, &tellings);
        world.advance(600);
    }
    assert_eq!(seqs, (1..=1_500).collect::<Vec<u64>>());
    assert!(world.store.notices.is_empty());
}

#[test]
fn one_that_is_never_taken_holds_up_no_other() {
    let mut world = world(|settings| {
        (settings.tells, settings.tells_status) = (tell::STORED, false);
    });
    let ann = world.connect("ann");
    let mut count = 0;
    for n in 1..=1_200 {
        world.send_wait(ann, "bob", 1, &n.to_string());
        let (tellings, _) = told(&mut world);
        count += tellings.len();
        let others: Vec<Telling> =
            tellings.into_iter().filter(|telling| telling.number != 1).collect();
        take(&mut world, &others);
    }
    assert_eq!(count, 1_200);
}

#[test]
fn when_too_many_or_too_old_the_oldest_go_and_it_is_said() {
    let mut full = world(|settings| {
        (settings.tells, settings.tells_status) = (tell::STORED, false);
        settings.notices_size_max = 2_000;
    });
    let ann = full.connect("ann");
    for n in 1..=100 {
        full.send_wait(ann, "bob", 1, &n.to_string());
    }
    full.advance(1_000);
    let left: Vec<u64> = full.store.notices.keys().map(|(_, number)| *number).collect();
    assert!(!left.is_empty() && left.len() < 40, "{left:?}");
    assert_eq!(left.last(), Some(&100));
    assert!(full.warnings.iter().any(|text| text.contains("too many")), "{:?}", full.warnings);

    let mut old = world(|settings| {
        (settings.tells, settings.tells_status) = (tell::STORED, false);
        settings.notice_ms_max = 60_000;
    });
    let ann = old.connect("ann");
    old.send_wait(ann, "bob", 1, "1");
    old.advance(50_000);
    assert_eq!(old.store.notices.len(), 1);
    old.advance(50_000);
    assert!(old.store.notices.is_empty());
    assert!(old.warnings.iter().any(|text| text.contains("in time")), "{:?}", old.warnings);
}

#[test]
fn sessions_are_told_with_the_counts_after_the_change() {
    let mut world = world(|settings| settings.tells = 0);
    let ann = world.connect("ann");
    world.connect("bob");
    world.close(ann);
    world.run();
    let words = told(&mut world).1;
    let of = |uid: &str| -> Vec<String> {
        words.iter().filter(|word| word.starts_with(uid)).cloned().collect()
    };
    assert_eq!(of("ann"), ["ann-0-1-1-1", "ann-0-0-0-0"]);
    assert_eq!(of("bob"), ["bob-0-1-1-1"]);
}

#[test]
fn without_a_receiver_there_are_no_rows() {
    let mut world = world(|settings| (settings.tells, settings.tells_status) = (0, false));
    let ann = world.connect("ann");
    world.send_wait(ann, "bob", 1, "1");
    assert!(world.store.notices.is_empty() && world.store.notice_heads.is_empty());
    assert!(world.told.is_empty());
}
