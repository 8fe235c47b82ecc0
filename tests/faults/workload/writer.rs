//! A writer: sends on a schedule, whatever the cluster does, and again what was not acknowledged.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use rand_core::RngCore;

use super::plan::{Way, WriterPlan};
use super::{AGAIN, GIVE_UP, Phase, Pulse, Route, World};
use crate::support::api::Api;
use crate::support::client::{Ack, Channel, Client, Event, SUCCESS};
use crate::support::history::{Attempt, Outcome, TRY_AGAIN};

/// SENDs of one connection on their way at a time.
const WINDOW: usize = 32;
/// What could not be sent in time is sent later, but not what is older than this.
const BACKLOG: Duration = Duration::from_secs(20);
/// How long a message is tried after nothing new is sent.
const DRAIN_MAX: Duration = Duration::from_secs(40);

/// A message that a writer wants to be taken.
#[derive(Clone)]
struct Wish {
    channel: Channel,
    client_msg_no: String,
    payload: Vec<u8>,
    /// When it was due.
    wanted: u64,
}

/// A SEND without an answer.
struct Flying {
    client_seq: u32,
    wish: Wish,
    attempt: Attempt,
    since: Instant,
}

pub(super) struct Writer<'a> {
    world: &'a World,
    plan: &'a WriterPlan,
    route: Route<'a>,
    count: usize,
    /// When the next message is due.
    due: Instant,
    /// To be sent again, from this moment on.
    again: VecDeque<(Instant, Wish)>,
    /// When draining began.
    draining: Option<Instant>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(world: &'a World, at: usize, seed: u64) -> Self {
        let mut route = Route::new(world, at, seed);
        // Writers do not send in step.
        let first = world.plan.pace.mul_f64((route.below(1000) as f64) / 1000.0);
        let plan = &world.plan.writers[at];
        let due = Instant::now() + first;
        Self { world, plan, route, count: 0, due, again: VecDeque::new(), draining: None }
    }

    pub(super) fn run(&mut self) {
        match self.plan.way {
            Way::Http => self.run_http(),
            Way::Client(transport) => {
                while let Some((client, door)) =
                    self.route.session(&self.plan.uid, transport, Phase::Draining)
                {
                    self.converse(client, door.node);
                    if self.is_done() {
                        return;
                    }
                    self.route.leave();
                }
            }
        }
    }

    fn is_done(&mut self) -> bool {
        if self.world.phase() < Phase::Draining {
            return false;
        }
        let since = self.draining.get_or_insert_with(Instant::now);
        self.again.is_empty() || since.elapsed() > DRAIN_MAX
    }

    /// The next message on the schedule, if it is due.
    fn next_wish(&mut self) -> Option<Wish> {
        let now = Instant::now();
        if self.world.phase() > Phase::Running || now < self.due {
            return None;
        }
        let wanted = self.world.time(self.due);
        self.due = (self.due + self.world.plan.pace).max(now - BACKLOG);
        let channel = self.plan.channels[self.count % self.plan.channels.len()].clone();
        self.count += 1;
        let mut payload = vec![0; 16 + self.route.below(200)];
        self.route.dice.fill_bytes(&mut payload);
        let client_msg_no = format!("{}-{}", self.plan.uid, self.count);
        Some(Wish { channel, client_msg_no, payload, wanted })
    }

    fn record(&self, attempt: Attempt) {
        self.world.record(|h| h.attempts.push(attempt));
    }

    /// Sends over one connection until it is lost, or nothing is left to do.
    fn converse(&mut self, mut client: Client, node: u16) {
        let (connection, mut place) = (self.world.connection(), 0);
        let mut flying: VecDeque<Flying> = VecDeque::new();
        let mut pulse = Pulse::new();
        loop {
            let again = self.again.front().is_some_and(|(from, _)| *from <= Instant::now());
            let wish = match flying.len() < WINDOW {
                true if again => self.again.pop_front().map(|(_, wish)| wish),
                true => self.next_wish(),
                false => None,
            };
            if let Some(wish) = wish {
                place += 1;
                let attempt = attempt(self.world, self.plan, &wish, connection, place);
                let written = client.send(&wish.channel, &wish.client_msg_no, &wish.payload);
                let client_seq = *written.as_ref().unwrap_or(&0);
                flying.push_back(Flying { client_seq, wish, attempt, since: Instant::now() });
                if written.is_err() {
                    break;
                }
                continue;
            }
            if flying.is_empty() && self.is_done() {
                break;
            }
            let oldest = flying.front();
            if let Some(oldest) = oldest.filter(|oldest| oldest.since.elapsed() > GIVE_UP) {
                let what =
                    format!("SEND {} to {}", oldest.wish.client_msg_no, oldest.attempt.channel);
                self.world.silent(&what, node, oldest.attempt.sent);
                break;
            }
            if !pulse.beats(&client) {
                break;
            }
            let event = client.next(self.wait());
            if event.is_some() {
                pulse.heard = Instant::now();
            }
            match event {
                Some((at, Event::Ack(ack))) => self.acked(&mut flying, at, ack),
                Some((at, Event::Recv(received))) => {
                    self.world.pushed(&self.plan.uid, connection, at, received);
                }
                Some((_, Event::Closed | Event::Disconnect { .. })) => break,
                Some((_, Event::Pong)) | None => {}
                Some((_, other)) => panic!("{}: {other:?}", self.plan.uid),
            }
        }
        let mut lost = VecDeque::new();
        for one in flying {
            self.record(one.attempt);
            lost.push_back((Instant::now(), one.wish));
        }
        lost.append(&mut self.again);
        self.again = lost;
    }

    /// Until something is to be done.
    fn wait(&self) -> Duration {
        let now = Instant::now();
        let again = self.again.front().map(|(from, _)| from.saturating_duration_since(now));
        let due = self.due.saturating_duration_since(now);
        again.unwrap_or(AGAIN).min(due.max(Duration::from_millis(1))).min(AGAIN)
    }

    fn acked(&mut self, flying: &mut VecDeque<Flying>, at: Instant, ack: Ack) {
        let found = flying.iter().position(|one| one.client_seq == ack.client_seq);
        let one = found.and_then(|place| flying.remove(place));
        let Some(mut one) = one else {
            panic!("{}: SENDACK of nothing: {ack:?}", self.plan.uid);
        };
        one.attempt.outcome = match ack.reason {
            SUCCESS => Outcome::Acked { at: self.world.time(at), id: ack.id, seq: Some(ack.seq) },
            reason => Outcome::Refused { reason },
        };
        if ack.reason == TRY_AGAIN {
            self.again.push_back((Instant::now() + AGAIN, one.wish));
        }
        self.record(one.attempt);
    }

    /// Sends over HTTP, a request on its own for each message, and again until it is answered.
    fn run_http(&mut self) {
        let (world, plan) = (self.world, self.plan);
        thread::scope(|scope| {
            while world.phase() == Phase::Running {
                match self.next_wish() {
                    Some(wish) => {
                        let at = self.route.below(world.doors().len());
                        let route = Route::new(world, at, self.route.dice.next_u64());
                        scope.spawn(move || insist(world, plan, route, &wish));
                    }
                    None => thread::sleep(self.wait()),
                }
            }
        });
    }
}

/// Posts a message until that is answered with success.
fn insist(world: &World, plan: &WriterPlan, mut route: Route<'_>, wish: &Wish) {
    let mut draining = None;
    loop {
        let (api, node) = route.api();
        let body = Api::message(&plan.uid, &wish.channel, &wish.client_msg_no, &wish.payload);
        let mut attempt = attempt(world, plan, wish, world.connection(), 0);
        let (start, sent) = (Instant::now(), attempt.sent);
        let answer = api.ask("/message/send", &body);
        if answer.is_err() && start.elapsed() >= GIVE_UP {
            world.silent("/message/send", node, sent);
        }
        let id = answer.ok().and_then(|answer| answer["data"]["message_id"].as_i64());
        if let Some(id) = id {
            attempt.outcome = Outcome::Acked { at: world.now(), id, seq: None };
        }
        world.record(|h| h.attempts.push(attempt));
        if world.phase() > Phase::Running {
            draining.get_or_insert_with(Instant::now);
        }
        if id.is_some() || draining.is_some_and(|since| since.elapsed() > DRAIN_MAX) {
            return;
        }
        route.leave();
        thread::sleep(AGAIN);
    }
}

fn attempt(world: &World, plan: &WriterPlan, wish: &Wish, connection: u64, place: u64) -> Attempt {
    Attempt {
        channel: World::name(&plan.uid, &wish.channel),
        sender: plan.uid.clone(),
        client_msg_no: wish.client_msg_no.clone(),
        payload: wish.payload.clone(),
        connection,
        place,
        wanted: wish.wanted,
        sent: world.now(),
        outcome: Outcome::Unknown,
    }
}
