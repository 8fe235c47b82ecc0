//! Who chats with whom, drawn from dice.

use std::time::Duration;

use crate::support::Dice;
use crate::support::client::{Channel, Transport};

/// How a writer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Client(Transport),
    Http,
}

pub struct WriterPlan {
    pub uid: String,
    pub way: Way,
    /// Sent to in turn.
    pub channels: Vec<Channel>,
}

pub struct ReaderPlan {
    pub uid: String,
    pub channels: Vec<Channel>,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub writers: usize,
    pub readers: usize,
    pub groups: usize,
    pub persons: usize,
    /// Sends a second, all writers together.
    pub rate: f64,
}

impl Size {
    /// 50 channels; 100 sends a second of an optimised node, fewer of another.
    pub fn usual() -> Self {
        let rate = crate::support::variable("JINDOU_FAULTS_RATE").map(|rate| rate as f64);
        let rate = rate.unwrap_or(if cfg!(debug_assertions) { 40.0 } else { 100.0 });
        Self { writers: 10, readers: 9, groups: 30, persons: 20, rate }
    }
}

/// The clients.
pub struct Plan {
    pub writers: Vec<WriterPlan>,
    pub readers: Vec<ReaderPlan>,
    /// Groups, with their members.
    pub groups: Vec<(Channel, Vec<String>)>,
    /// Writer and reader of each chat of two.
    pub persons: Vec<(String, String)>,
    /// Groups of which some readers leave and come back.
    pub churn: Vec<(Channel, Vec<String>)>,
    /// Come and go, and belong to nothing.
    pub visitors: Vec<String>,
    /// Between two sends of one writer.
    pub pace: Duration,
}

impl Plan {
    pub fn new(size: Size, dice: &mut Dice) -> Self {
        let way = |n: usize| match n % 10 {
            3 => Way::Client(Transport::Ws),
            5 => Way::Client(Transport::Json),
            7 | 9 => Way::Http,
            _ => Way::Client(Transport::Tcp),
        };
        let writer = |n| WriterPlan { uid: format!("w{n}"), way: way(n), channels: Vec::new() };
        let reader = |n| ReaderPlan { uid: format!("r{n}"), channels: Vec::new() };
        let mut plan = Self {
            writers: (0..size.writers).map(writer).collect(),
            readers: (0..size.readers).map(reader).collect(),
            groups: Vec::new(),
            persons: Vec::new(),
            churn: Vec::new(),
            visitors: vec!["v0".to_owned(), "v1".to_owned()],
            pace: Duration::from_secs_f64(size.writers as f64 / size.rate),
        };
        for n in 0..size.groups {
            plan.add_group(n, dice);
        }
        for n in 0..size.persons {
            let writer = &mut plan.writers[n % size.writers];
            let reader = &mut plan.readers[(n / size.writers * 5 + n) % size.readers];
            writer.channels.push(Channel::person(&reader.uid));
            reader.channels.push(Channel::person(&writer.uid));
            plan.persons.push((writer.uid.clone(), reader.uid.clone()));
        }
        for writer in &mut plan.writers {
            shuffle(&mut writer.channels, dice);
        }
        plan
    }

    fn add_group(&mut self, n: usize, dice: &mut Dice) {
        let group = Channel::group(&format!("g{n}"));
        let mut members = Vec::new();
        // Every writer gets its share, whatever the dice.
        for step in 0..3 {
            let count = self.writers.len();
            let writer = &mut self.writers[(3 * n + step) % count];
            writer.channels.push(group.clone());
            members.push(writer.uid.clone());
        }
        let mut readers: Vec<usize> = (0..self.readers.len()).collect();
        shuffle(&mut readers, dice);
        readers.truncate(4);
        for place in &readers {
            let reader = &mut self.readers[*place];
            reader.channels.push(group.clone());
            members.push(reader.uid.clone());
        }
        if n < 3 {
            let moving = readers[..2].iter().map(|place| self.readers[*place].uid.clone());
            self.churn.push((group.clone(), moving.collect()));
        }
        self.groups.push((group, members));
    }
}

fn shuffle<T>(all: &mut [T], dice: &mut Dice) {
    for place in (1..all.len()).rev() {
        all.swap(place, dice.between(0, place as u64 + 1) as usize);
    }
}
