//! What a business asks over HTTP, of any node: history, conversations, who is online; and what it
//! changes: members, read positions. At the end it asks every node.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{AGAIN, GIVE_UP, Phase, Route, World};
use crate::cluster::Door;
use crate::support::PATIENCE;
use crate::support::api::Api;
use crate::support::client::{Channel, GROUP, PERSON};
use crate::support::history::{Conversation, Counts, Limits, Membership, Position, Presence, Read};

/// The name of this reader.
const READER: &str = "back end";

/// What a back end does, a thread each.
#[derive(Clone, Copy)]
pub(super) enum Work {
    History,
    Conversations,
    Members,
    Presence,
}

impl Work {
    pub(super) const ALL: [Self; 4] =
        [Self::History, Self::Conversations, Self::Members, Self::Presence];
}

pub(super) struct BackEnd<'a> {
    world: &'a World,
    route: Route<'a>,
}

impl<'a> BackEnd<'a> {
    /// Does one thing all the time.
    pub(super) fn work(&mut self, work: Work) {
        match work {
            Work::History => self.read_history(),
            Work::Conversations => self.read_conversations(),
            Work::Members => self.move_members(),
            Work::Presence => self.watch_presence(),
        }
    }

    pub(super) fn new(world: &'a World, seed: u64) -> Self {
        Self { world, route: Route::new(world, 0, seed) }
    }

    /// Asks some node once; silence is told.
    fn ask(&mut self, path: &str, body: &Value) -> io::Result<Value> {
        let (api, node) = self.route.api();
        let (start, sent) = (Instant::now(), self.world.now());
        let answer = api.ask(path, body);
        if start.elapsed() >= GIVE_UP && answer.is_err() {
            self.world.silent(path, node, sent);
        }
        self.route.leave();
        answer
    }

    /// Asks until it is done, which must not take for ever; when it was asked first, and answered.
    fn insist(&mut self, path: &str, body: &Value, phase: Phase) -> (u64, Option<u64>) {
        let sent = self.world.now();
        while self.world.phase() <= phase {
            if self.ask(path, body).is_ok() {
                return (sent, Some(self.world.now()));
            }
            self.world.pause(phase, AGAIN);
        }
        (sent, None)
    }

    pub(super) fn make_channels(&mut self) {
        let world = self.world;
        for (group, members) in &world.plan.groups {
            let body =
                json!({"channel_id": group.id, "channel_type": GROUP, "subscribers": members});
            let (sent, answered) = self.insist("/channel", &body, Phase::Running);
            for uid in members {
                let (channel, uid) = (group.id.clone(), uid.clone());
                let change = Membership { channel, uid, added: true, sent, answered };
                world.record(|h| h.memberships.push(change));
            }
        }
        // The two of a chat belong to it for ever.
        for (writer, reader) in &world.plan.persons {
            for uid in [writer, reader] {
                let channel = World::name(writer, &Channel::person(reader));
                let uid = uid.clone();
                let change = Membership { channel, uid, added: true, sent: 0, answered: Some(0) };
                world.record(|h| h.memberships.push(change));
            }
        }
    }

    /// A channel as one of its users names it.
    fn some_channel(&mut self) -> (String, Channel) {
        let (groups, persons) = (&self.world.plan.groups, &self.world.plan.persons);
        let place = self.route.below(groups.len() + persons.len());
        match groups.get(place) {
            Some((group, members)) => (members[0].clone(), group.clone()),
            None => {
                let (writer, reader) = &persons[place - groups.len()];
                (reader.clone(), Channel::person(writer))
            }
        }
    }

    /// Reads the end of one channel after the other, now and then all of it.
    fn read_history(&mut self) {
        let mut known = std::collections::HashMap::<String, u32>::new();
        while self.world.phase() == Phase::Running {
            self.world.pause(Phase::Running, Duration::from_millis(100));
            let (uid, of) = self.some_channel();
            let channel = World::name(&uid, &of);
            let last = known.get(&channel).copied().unwrap_or(0);
            let from = if self.route.below(10) == 0 { 1 } else { last.saturating_sub(5).max(1) };
            let doors = self.world.doors();
            let door = &doors[self.route.below(doors.len())];
            if let Ok(read) = self.read(door, &uid, &of, from, false) {
                known.insert(channel, read);
            }
        }
    }

    /// Reads a channel at one node; its last seq.
    fn read(
        &self,
        door: &Door,
        uid: &str,
        of: &Channel,
        from: u32,
        settled: bool,
    ) -> io::Result<u32> {
        let api = Api::new(door.http.clone()).within(GIVE_UP);
        let (start, begun) = (self.world.now(), Instant::now());
        let messages = api.try_history(uid, of, from);
        if messages.is_err() && begun.elapsed() >= GIVE_UP {
            self.world.silent("/channel/messagesync", door.node, start);
        }
        let messages = messages?;
        let last = messages.last().map_or(from - 1, |message| message.seq);
        let (channel, reader) = (World::name(uid, of), READER.to_owned());
        let end = self.world.now();
        let read = Read { channel, reader, start, end, from, settled, messages };
        self.world.record(|h| h.reads.push(read));
        Ok(last)
    }

    /// Looks at a reader's conversations, or says that it has read one.
    fn read_conversations(&mut self) {
        while self.world.phase() == Phase::Running {
            self.world.pause(Phase::Running, Duration::from_millis(250));
            let readers = &self.world.plan.readers;
            let reader = &readers[self.route.below(readers.len())];
            if self.route.below(3) > 0 {
                let doors = self.world.doors();
                let door = &doors[self.route.below(doors.len())];
                let _ = self.conversations(door, &reader.uid, false);
                continue;
            }
            let channel = &reader.channels[self.route.below(reader.channels.len())];
            let moves = |(of, _): &(Channel, _)| of == channel;
            if self.world.plan.churn.iter().any(moves) {
                continue;
            }
            let body = json!({
                "uid": reader.uid, "channel_id": channel.id, "channel_type": channel.kind,
            });
            let sent = self.world.now();
            let answer = self.ask("/conversations/clearUnread", &body);
            let answered = answer.is_ok().then(|| self.world.now());
            let (uid, channel) = (reader.uid.clone(), World::name(&reader.uid, channel));
            self.world.record(|h| h.positions.push(Position { channel, uid, sent, answered }));
        }
    }

    /// Reads all conversations of a user at one node.
    fn conversations(&self, door: &Door, uid: &str, settled: bool) -> io::Result<()> {
        let api = Api::new(door.http.clone()).within(GIVE_UP);
        let (start, begun) = (self.world.now(), Instant::now());
        let answer = api.ask("/conversation/sync", &json!({"uid": uid, "msg_count": 1}));
        if answer.is_err() && begun.elapsed() >= GIVE_UP {
            self.world.silent("/conversation/sync", door.node, start);
        }
        let (answer, end) = (answer?, self.world.now());
        let strange = || io::Error::other(format!("strange conversations {answer}"));
        let mut missing = self.channels_of(uid);
        for one in answer.as_array().ok_or_else(strange)? {
            let number = |name: &str| one[name].as_u64().and_then(|n| u32::try_from(n).ok());
            let id = one["channel_id"].as_str().ok_or_else(strange)?.to_owned();
            let kind = if one["channel_type"] == PERSON { PERSON } else { GROUP };
            let channel = World::name(uid, &Channel { id, kind });
            missing.remove(&channel);
            let state = Counts {
                last_seq: number("last_msg_seq").ok_or_else(strange)?,
                read_seq: number("readed_to_msg_seq").ok_or_else(strange)?,
                unread: number("unread").ok_or_else(strange)?,
            };
            let (uid, state) = (uid.to_owned(), Some(state));
            let seen = Conversation { channel, uid, start, end, settled, state };
            self.world.record(|h| h.conversations.push(seen));
        }
        for channel in missing {
            let seen =
                Conversation { channel, uid: uid.to_owned(), start, end, settled, state: None };
            self.world.record(|h| h.conversations.push(seen));
        }
        Ok(())
    }

    fn channels_of(&self, uid: &str) -> BTreeSet<String> {
        let plan = &self.world.plan;
        let groups = plan.groups.iter().filter(|(_, all)| all.iter().any(|member| member == uid));
        let persons = plan.persons.iter().filter(|(w, r)| w == uid || r == uid);
        let persons = persons.map(|(w, r)| World::name(w, &Channel::person(r)));
        groups.map(|(group, _)| group.id.clone()).chain(persons).collect()
    }

    /// Takes readers out of groups, and puts them back.
    fn move_members(&mut self) {
        let world = self.world;
        while world.phase() == Phase::Running {
            let churn = &world.plan.churn;
            let (group, members) = &churn[self.route.below(churn.len())];
            let uid = &members[self.route.below(members.len())];
            self.change(group, uid, false);
            let wait = Duration::from_millis(200 + self.route.below(1500) as u64);
            world.pause(Phase::Running, wait);
            self.change(group, uid, true);
            world.pause(Phase::Running, wait);
        }
    }

    fn change(&mut self, group: &Channel, uid: &str, added: bool) {
        let path = if added { "/channel/subscriber_add" } else { "/channel/subscriber_remove" };
        let body = json!({
            "channel_id": group.id, "channel_type": group.kind, "subscribers": [uid],
        });
        let (sent, answered) = self.insist(path, &body, Phase::Settling);
        let (channel, uid) = (group.id.clone(), uid.to_owned());
        let change = Membership { channel, uid, added, sent, answered };
        self.world.record(|h| h.memberships.push(change));
    }

    fn watch_presence(&mut self) {
        while self.world.phase() == Phase::Running {
            self.world.pause(Phase::Running, Duration::from_millis(500));
            let doors = self.world.doors();
            let door = &doors[self.route.below(doors.len())];
            let _ = self.presence(door);
        }
    }

    /// Who is online, by one node; those who are.
    fn presence(&self, door: &Door) -> io::Result<BTreeSet<String>> {
        let plan = &self.world.plan;
        let readers = plan.readers.iter().map(|reader| reader.uid.clone());
        let asked: Vec<_> = readers.chain(plan.visitors.iter().cloned()).collect();
        let api = Api::new(door.http.clone()).within(GIVE_UP);
        let start = self.world.now();
        let answer = api.ask("/user/onlinestatus", &json!(asked))?;
        let end = self.world.now();
        let all = answer.as_array().into_iter().flatten();
        let all = all.filter(|one| one["online"] == 1);
        let online: BTreeSet<_> =
            all.filter_map(|one| one["uid"].as_str().map(str::to_owned)).collect();
        let list = online.iter().cloned().collect();
        let seen = Presence { node: door.node, start, end, asked, online: list };
        self.world.record(|h| h.presences.push(seen));
        Ok(online)
    }

    /// What every node says when nothing goes on any more, and what every reader got.
    pub(super) fn look_at_the_end(&mut self) {
        let (world, doors) = (self.world, self.world.doors());
        let heal = Limits::default().heal;
        let mut lasts = Vec::new();
        let groups = world.plan.groups.iter().map(|(group, all)| (all[0].clone(), group.clone()));
        let persons = world.plan.persons.iter();
        let persons = persons.map(|(w, r)| (r.clone(), Channel::person(w)));
        for (uid, channel) in groups.chain(persons) {
            for door in &doors {
                let last = self.until(&format!("{channel:?} at {}", door.node), || {
                    self.read(door, &uid, &channel, 1, true)
                });
                lasts.push((World::name(&uid, &channel), last));
            }
        }
        // Every reader gets all that there is, or has had the time for it.
        let end = Instant::now() + heal;
        while Instant::now() < end && !self.all_pushed(&lasts) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let settled = world.now();
        world.record(|h| h.settled = settled);
        let readers = world.plan.readers.iter().map(|reader| reader.uid.clone());
        let writers = world.plan.writers.iter().map(|writer| writer.uid.clone());
        for uid in readers.chain(writers) {
            for door in &doors {
                self.until(&format!("conversations of {uid} at {}", door.node), || {
                    self.conversations(door, &uid, true)
                });
            }
        }
        let last_fault = world.history.lock().unwrap().faults.iter().map(|fault| fault.end).max();
        let expected: BTreeSet<_> =
            world.plan.readers.iter().map(|reader| reader.uid.clone()).collect();
        let due = last_fault.unwrap_or(0) + heal.as_nanos() as u64;
        for door in &doors {
            // Right at once, or asked once more when it must be.
            while !self.presence(door).is_ok_and(|online| expected == online) {
                if world.now() > due {
                    let _ = self.presence(door);
                    break;
                }
                std::thread::sleep(AGAIN);
            }
        }
    }

    /// Asks until it is answered.
    fn until<T>(&self, what: &str, mut probe: impl FnMut() -> io::Result<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            match probe() {
                Ok(found) => return found,
                Err(e) => assert!(Instant::now() < end, "{what}: {e}"),
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn all_pushed(&self, lasts: &[(String, u32)]) -> bool {
        let pushed = self.world.pushed.lock().unwrap();
        self.world.plan.readers.iter().all(|reader| {
            // Who was away at the end of a channel need not have been pushed it.
            let stays = |of: &&Channel| self.world.plan.churn.iter().all(|(moves, _)| moves != *of);
            let mine = reader.channels.iter().filter(stays);
            let mine: BTreeSet<_> = mine.map(|of| World::name(&reader.uid, of)).collect();
            lasts.iter().filter(|(channel, _)| mine.contains(channel)).all(|(channel, last)| {
                let key = (reader.uid.clone(), channel.clone());
                pushed.get(&key).copied().unwrap_or(0) >= *last
            })
        })
    }
}
