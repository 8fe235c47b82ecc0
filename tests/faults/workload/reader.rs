//! A reader: listens on one connection after the other, and reads after each CONNACK what it may have
//! missed, as an SDK does. A visitor only comes and goes.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::plan::ReaderPlan;
use super::{Phase, Pulse, Route, World};
use crate::support::api::Stored;
use crate::support::client::{Channel, Client, Event, Transport};
use crate::support::history::{Read, Session};

pub(super) struct Reader<'a> {
    world: &'a World,
    plan: &'a ReaderPlan,
    transport: Transport,
    route: Route<'a>,
    /// What it has seen of each channel, above the part without a gap.
    known: HashMap<String, Known>,
}

#[derive(Default)]
struct Known {
    whole: u32,
    above: BTreeSet<u32>,
}

impl Known {
    fn add(&mut self, seq: u32) {
        if seq > self.whole {
            self.above.insert(seq);
        }
        while self.above.remove(&(self.whole + 1)) {
            self.whole += 1;
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(world: &'a World, at: usize, seed: u64) -> Self {
        let transport = Transport::ALL[[0, 0, 0, 1, 2][at % 5]];
        let (plan, route) = (&world.plan.readers[at], Route::new(world, at, seed));
        Self { world, plan, transport, route, known: HashMap::new() }
    }

    pub(super) fn run(&mut self) {
        while let Some((mut client, door)) =
            self.route.session(&self.plan.uid, self.transport, Phase::Settling)
        {
            let open = Session {
                uid: self.plan.uid.clone(),
                connection: self.world.connection(),
                node: door.node,
                open: self.world.now(),
                closed: None,
            };
            self.catch_up();
            self.listen(&mut client, &open);
            if self.world.phase() == Phase::Over {
                self.world.record(|h| h.sessions.push(open));
                return;
            }
            let closed = Some(self.world.now());
            self.world.record(|h| h.sessions.push(Session { closed, ..open }));
            self.route.leave();
        }
    }

    fn listen(&mut self, client: &mut Client, session: &Session) {
        let mut pulse = Pulse::new();
        while self.world.phase() < Phase::Over && pulse.beats(client) {
            let event = client.next(Duration::from_millis(100));
            if event.is_some() {
                pulse.heard = Instant::now();
            }
            match event {
                Some((at, Event::Recv(received))) => {
                    let channel = World::name(&self.plan.uid, &received.channel);
                    self.known.entry(channel).or_default().add(received.seq);
                    self.world.pushed(&self.plan.uid, session.connection, at, received);
                }
                Some((_, Event::Closed | Event::Disconnect { .. })) => return,
                Some((_, Event::Pong)) | None => {}
                Some((_, other)) => panic!("{}: {other:?}", self.plan.uid),
            }
        }
    }

    /// Reads every channel from where it knows all of it, wherever that is answered.
    fn catch_up(&mut self) {
        let plan = self.plan;
        for channel in &plan.channels {
            while self.world.phase() < Phase::Over && !self.read(channel) {
                self.route.world.pause(Phase::Settling, super::AGAIN);
            }
        }
    }

    fn read(&mut self, of: &Channel) -> bool {
        let channel = World::name(&self.plan.uid, of);
        let known = self.known.entry(channel.clone()).or_default();
        let from = known.whole + 1;
        let doors = self.world.doors();
        let door = &doors[self.route.below(doors.len())];
        let api = crate::support::api::Api::new(door.http.clone()).within(Duration::from_secs(3));
        let start = self.world.now();
        let Ok(messages) = api.try_history(&self.plan.uid, of, from) else {
            return false;
        };
        let known = self.known.entry(channel.clone()).or_default();
        for Stored { seq, .. } in &messages {
            known.add(*seq);
        }
        let reader = self.plan.uid.clone();
        let end = self.world.now();
        let read = Read { channel, reader, start, end, from, settled: false, messages };
        self.world.record(|h| h.reads.push(read));
        true
    }
}

/// Connects to some node, stays a while, leaves, and stays away.
pub(super) fn visit(world: &World, at: usize, seed: u64) {
    let uid = &world.plan.visitors[at];
    let mut route = Route::new(world, at, seed);
    while let Some((mut client, door)) = route.session(uid, Transport::Tcp, Phase::Running) {
        let (connection, open) = (world.connection(), world.now());
        let end = Instant::now() + Duration::from_millis(2000 + route.below(20_000) as u64);
        let mut pulse = Pulse::new();
        while world.phase() == Phase::Running && Instant::now() < end && pulse.beats(&client) {
            match client.next(Duration::from_millis(100)) {
                Some((_, Event::Closed | Event::Disconnect { .. })) => break,
                Some(_) => pulse.heard = Instant::now(),
                None => {}
            }
        }
        drop(client);
        let (uid, closed) = (uid.clone(), Some(world.now()));
        let session = Session { uid, connection, node: door.node, open, closed };
        world.record(|h| h.sessions.push(session));
        route.leave();
        let away = Duration::from_millis(5000 + route.below(25_000) as u64);
        world.pause(Phase::Running, away);
    }
}
