//! The home of a uid: who is logged in where (design.md §4), who may log in, who must go
//! (protocol.md §2.2, §2.5).
//!
//! The home is whoever leads the uid's slot. What it knows is made of logins and of what shards
//! announce when they hear of a new leader; until all have, it lets deliveries wait, at most
//! [`WAIT_MS`] (G8, G11).

use std::{collections::VecDeque, sync::Arc};

use super::{
    Shard, cache::Found, deliver::Job, notices::StatusChange, parcels::Parent, routes::WHEN_TOLD,
    slot::Caller, waiting::Waiting,
};
use crate::{
    channel_info::kind,
    code::Code,
    entry::ChannelRef,
    envelope::{Announced, Answer, Ask, Content, Envelope, Login},
    id::{ChannelId, Name, NodeId, SessionAddr, ShardAddr, SlotId},
    map::{Map, Set},
};

/// How long deliveries wait at a new home for shards that have not announced their sessions.
const WAIT_MS: u64 = 1_000;
/// Sessions in one announcement.
const ANNOUNCED_MAX: usize = 1_024;

/// A session as its user's home knows it.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) session: SessionAddr,
    pub(crate) device_flag: u8,
    level: u8,
    device_id: Name,
    pub(crate) since_ms: i64,
}

/// The sessions of a slot's users.
#[derive(Debug, Default)]
pub(crate) struct Home {
    pub(crate) users: Map<Name, Vec<Presence>>,
    /// Who has announced its sessions, and to the leader of which term.
    announced: Map<ShardAddr, u64>,
    /// When it serves at the latest; `None`: it does not lead yet.
    open_ms: Option<u64>,
    is_open: bool,
    /// Deliveries that wait until it serves.
    held: VecDeque<Job>,
}

/// The level of a device that may end the sessions of others.
pub(crate) const MASTER: u8 = 1;

impl Shard {
    /// A session asks to be let in.
    pub(super) fn on_login(&mut self, caller: Caller, ask: &Arc<Ask>, login: &Login) {
        let slot = self.slot_of(&login.uid);
        if !self.leads_now(slot) {
            return self.answer_ask(caller, Answer::NotLeader);
        }
        let level = if login.uid == self.settings.manager_uid {
            let wanted = &self.settings.manager_token;
            if wanted.is_empty() || *wanted != login.token {
                return self.answer_ask(caller, Answer::Code(Code::AuthFail));
            }
            0
        } else if self.settings.token_auth && !login.uid.ends_with(&*self.settings.visitor_suffix) {
            let user = match self.users.get_or_wait(&login.uid, || caller.again(ask)) {
                Found::Ready(user) => user,
                Found::Loading => return,
                Found::Missing => return self.load_user(login.uid.clone()),
            };
            match user.device(login.device_flag) {
                Some(device) if !device.token.is_empty() && *device.token == *login.token => {
                    device.level
                }
                Some(_) | None => {
                    return self.answer_ask(caller, Answer::Code(Code::AuthFail));
                }
            }
        } else {
            0
        };
        let personal = ChannelId::new(login.uid.clone(), kind::PERSON);
        let info = match self.channels.get_or_wait(&personal, || caller.again(ask)) {
            Found::Ready(channel) => channel.info(),
            Found::Loading => return,
            Found::Missing => return self.load_channel(personal),
        };
        if info.ban {
            return self.answer_ask(caller, Answer::Code(Code::Ban));
        }
        let sessions = self.homes.get(&slot).and_then(|home| home.users.get(&login.uid));
        if sessions.map_or(0, Vec::len) >= self.settings.sessions_per_user_max {
            return self.answer_ask(caller, Answer::Code(Code::RateLimit));
        }
        let presence = Presence {
            session: login.session,
            device_flag: login.device_flag,
            level,
            device_id: login.device_id.clone(),
            since_ms: login.since_ms,
        };
        // Asked once more: it is known already.
        let is_known = self.remove_session(slot, login.session, &login.uid).is_some();
        // Whoever comes last wins, whatever the clocks of the nodes say.
        self.end_sessions(&login.uid, |old| presence.ends(old));
        let status = presence.status(true);
        self.add_presence(slot, login.uid.clone(), presence);
        if !is_known {
            self.tell_status(slot, &login.uid, status);
        }
        let (session, uid, send_ban) = (login.session, login.uid.clone(), info.send_ban);
        self.answer_ask(caller, Answer::Welcome { session, uid, level, send_ban });
    }

    fn add_presence(&mut self, slot: SlotId, uid: Name, presence: Presence) {
        let home = self.homes.entry(slot).or_default();
        // Most users have one session; a Vec grows to four at once.
        home.users.entry(uid).or_insert_with(|| Vec::with_capacity(1)).push(presence);
    }

    /// Ends every session of a device with a DISCONNECT.
    pub(super) fn kick_device(&mut self, uid: &Name, device_flag: u8, text: &Name) {
        self.end_sessions(uid, |old| (old.device_flag == device_flag).then(|| Some(text.clone())));
    }

    /// Ends the sessions for which `how` gives the text of a DISCONNECT, or none.
    fn end_sessions(&mut self, uid: &Name, how: impl Fn(&Presence) -> Option<Option<Name>>) {
        let slot = self.slot_of(uid);
        let Some(home) = self.homes.get_mut(&slot) else {
            return;
        };
        let Some(sessions) = home.users.get_mut(uid) else {
            return;
        };
        let mut ended = Vec::new();
        sessions.retain(|presence| match how(presence) {
            Some(text) => {
                ended.push((presence.clone(), text));
                false
            }
            None => true,
        });
        if sessions.is_empty() {
            home.users.swap_remove(uid);
        }
        for (presence, text) in ended {
            let to = Self::shard_of_session(presence.session);
            let content = Content::Kick { conn: presence.session.conn, text };
            self.send_parcel(to, content, Parent::None);
            self.tell_status(slot, uid, presence.status(false));
        }
    }

    /// A session is over.
    pub(super) fn on_left(&mut self, session: SessionAddr, uid: &Name) {
        let slot = self.slot_of(uid);
        if let Some(presence) = self.remove_session(slot, session, uid) {
            self.tell_status(slot, uid, presence.status(false));
        }
    }

    fn remove_session(
        &mut self,
        slot: SlotId,
        session: SessionAddr,
        uid: &Name,
    ) -> Option<Presence> {
        let home = self.homes.get_mut(&slot)?;
        let sessions = home.users.get_mut(uid)?;
        let place = sessions.iter().position(|presence| presence.session == session)?;
        let removed = sessions.remove(place);
        if sessions.is_empty() {
            home.users.swap_remove(uid);
        }
        Some(removed)
    }

    /// The flags of a channel changed: if it is a user's own, its sessions must know, before the
    /// change is answered: the next SEND goes by the new flags (G7).
    pub(super) fn tell_sessions_of(&mut self, channel: &ChannelRef, parent: Parent) {
        if channel.kind != kind::PERSON {
            return;
        }
        let slot = self.slot_of(&channel.id);
        let Some(sessions) = self.homes.get(&slot).and_then(|home| home.users.get(&channel.id))
        else {
            return;
        };
        let sessions: Vec<SessionAddr> = sessions.iter().map(|p| p.session).collect();
        let personal = ChannelId::from(channel);
        let banned = self.channels.get(&personal).is_some_and(|c| c.info().send_ban);
        for session in sessions {
            let to = Self::shard_of_session(session);
            self.send_parcel(to, Content::SendBan { conn: session.conn, banned }, parent);
        }
    }

    /// The sessions of a user, if this is its home and knows all of them.
    pub(super) fn sessions_of(&self, uid: &Name) -> Option<&[Presence]> {
        let slot = self.slot_of(uid);
        if !self.leads_now(slot) {
            return None;
        }
        let home = self.homes.get(&slot).filter(|home| home.is_open)?;
        Some(home.users.get(uid).map_or(&[], Vec::as_slice))
    }

    // ---- a home begins and ends ----

    /// This shard leads the slot now: its deliveries wait until all shards have announced theirs.
    pub(super) fn begin_home(&mut self, slot: SlotId) {
        let open_ms = self.now.mono_ms + WAIT_MS;
        let home = self.homes.entry(slot).or_default();
        home.open_ms = Some(open_ms);
        self.due_at(open_ms);
        self.open_home_if_complete(slot);
    }

    /// This shard does not lead the slot, or another node does with a higher term, of which the
    /// replica here has not heard yet: what waited goes another way, before anything that comes
    /// later.
    pub(super) fn close_home(&mut self, slot: SlotId) {
        self.take_back_pushes(slot);
        let held = self.homes.swap_remove(&slot).map(|home| home.held).unwrap_or_default();
        for job in held {
            let job = self.turn_away(job, slot);
            self.release(job.parent);
        }
        for mut job in std::mem::take(&mut self.jobs) {
            if job.has_part(slot) {
                job = self.turn_away(job, slot);
            }
            if job.is_done() {
                self.release(job.parent);
            } else {
                self.jobs.push_back(job);
            }
        }
    }

    fn open_home_if_complete(&mut self, slot: SlotId) {
        let term = self.term_of(slot);
        let complete = self.homes.get(&slot).is_some_and(|home| {
            home.open_ms.is_some()
                && !home.is_open
                && self
                    .shards_alive()
                    .iter()
                    .all(|shard| home.announced.get(shard).is_some_and(|of| *of >= term))
        });
        if complete {
            self.open_home(slot);
        }
    }

    fn open_home(&mut self, slot: SlotId) {
        let absent = self.shards_unannounced(slot);
        if let Some(home) = self.homes.get_mut(&slot) {
            home.is_open = true;
            self.release_held(slot);
        }
        // From now on pushes go by at sessions that this home does not know of.
        for shard in absent {
            self.miss(shard, Vec::new(), vec![slot]);
        }
    }

    /// The shards whose sessions a home does not know, dead ones among them.
    fn shards_unannounced(&self, slot: SlotId) -> Vec<ShardAddr> {
        let term = self.term_of(slot);
        let announced = self.homes.get(&slot).map(|home| &home.announced);
        let is_absent = |shard: &ShardAddr| {
            let is_dead = self.routes.peers.get(&shard.node).is_some_and(|peer| peer.dead);
            is_dead || announced.and_then(|all| all.get(shard)).is_none_or(|of| *of < term)
        };
        self.shards_known().into_iter().filter(is_absent).collect()
    }

    /// What waited goes on, before anything that came later.
    pub(super) fn release_held(&mut self, slot: SlotId) {
        if let Some(home) = self.homes.get_mut(&slot).filter(|home| !home.held.is_empty()) {
            let mut held = std::mem::take(&mut home.held);
            held.append(&mut self.jobs);
            self.jobs = held;
        }
    }

    /// Homes that have waited long enough serve with what they know.
    pub(super) fn open_due_homes(&mut self) {
        let now = self.now.mono_ms;
        let (mut due, mut next_ms) = (Vec::new(), WHEN_TOLD);
        for (slot, home) in &self.homes {
            match home.open_ms {
                Some(open_ms) if !home.is_open && open_ms <= now => due.push(*slot),
                Some(open_ms) if !home.is_open => next_ms = next_ms.min(open_ms),
                Some(_) | None => {}
            }
        }
        self.due_at(next_ms);
        for slot in due {
            self.open_home(slot);
        }
    }

    /// A node is dead: no home waits for it any more.
    pub(super) fn open_complete_homes(&mut self) {
        let slots: Vec<SlotId> = self.homes.keys().copied().collect();
        for slot in slots {
            self.open_home_if_complete(slot);
        }
    }

    /// Whether deliveries of a slot must wait here; they are kept if so.
    pub(super) fn hold_if_early(&mut self, slot: SlotId, job: impl FnOnce() -> Job) -> bool {
        let has_lease = self.leads_now(slot);
        let Some(home) = self.homes.get_mut(&slot) else {
            return false;
        };
        let early = !home.is_open || !has_lease || !home.held.is_empty();
        if early {
            home.held.push_back(job());
        }
        early
    }

    // ---- announcements ----

    /// Tells the homes of these slots which sessions are here.
    pub(super) fn announce(&mut self, slots: &Set<SlotId>) {
        let mut by_slot: Map<SlotId, Vec<Announced>> = Map::default();
        for slot in slots {
            if *slot != super::CLUSTER_SLOT && self.leader_of(*slot).is_some() {
                by_slot.insert(*slot, Vec::new());
            }
        }
        if by_slot.is_empty() {
            return;
        }
        for entry in self.conns.iter().flatten() {
            let Some(announced) = entry.link.announced() else {
                continue;
            };
            if let Some(sessions) = by_slot.get_mut(&self.slot_of(&announced.uid)) {
                sessions.push(announced);
            }
        }
        let from = self.me();
        for (slot, mut sessions) in by_slot {
            let mut first = true;
            let term = self.term_of(slot);
            loop {
                let rest = sessions.split_off(sessions.len().min(ANNOUNCED_MAX));
                let last = rest.is_empty();
                let piece = Envelope::Announce { from, slot, term, first, last, sessions };
                self.send_to_slot(slot, piece);
                if last {
                    break;
                }
                (first, sessions) = (false, rest);
            }
        }
    }

    /// A shard has told which sessions it has.
    pub(super) fn on_announce(
        &mut self,
        from: ShardAddr,
        (slot, term): (SlotId, u64),
        (first, last): (bool, bool),
        sessions: Vec<Announced>,
    ) {
        let home = self.homes.entry(slot).or_default();
        if first {
            home.users.retain(|_, sessions| {
                sessions.retain(|presence| Self::shard_of_session(presence.session) != from);
                !sessions.is_empty()
            });
        }
        for Announced { uid, conn, device_flag, level, device_id, since_ms } in sessions {
            let session = SessionAddr { node: from.node, conn };
            let new = Presence { session, device_flag, level, device_id, since_ms };
            let known = self.homes.get(&slot).and_then(|home| home.users.get(&uid));
            let younger = known.into_iter().flatten().find_map(|old| {
                let is_younger = (old.since_ms, old.session) > (new.since_ms, new.session);
                is_younger.then(|| old.ends(&new)).flatten()
            });
            if let Some(text) = younger {
                let content = Content::Kick { conn, text };
                self.send_parcel(from, content, Parent::None);
                continue;
            }
            self.remove_session(slot, session, &uid);
            self.end_sessions(&uid, |old| new.ends(old));
            self.add_presence(slot, uid, new);
        }
        if last {
            if let Some(home) = self.homes.get_mut(&slot) {
                home.announced.insert(from, term);
            }
            self.open_home_if_complete(slot);
        }
    }

    /// A node's sessions are over, or nobody can reach them; which.
    pub(super) fn forget_sessions_of(&mut self, node: NodeId) -> Vec<SessionAddr> {
        let mut forgotten = Vec::new();
        let mut ended = Vec::new();
        let tells = self.settings.tells_status;
        for (slot, home) in &mut self.homes {
            home.announced.retain(|shard, _| shard.node != node);
            home.users.retain(|uid, sessions| {
                let theirs = sessions.extract_if(.., |presence| presence.session.node == node);
                for presence in theirs {
                    forgotten.push(presence.session);
                    if tells {
                        ended.push((*slot, uid.clone(), presence.status(false)));
                    }
                }
                !sessions.is_empty()
            });
        }
        for (slot, uid, status) in ended {
            self.tell_status(slot, &uid, status);
        }
        forgotten
    }
}

impl Presence {
    /// Whether it is of a master device.
    pub(crate) fn is_master(&self) -> bool {
        self.level == MASTER
    }

    fn status(&self, is_online: bool) -> StatusChange {
        let (device_flag, conn) = (self.device_flag, self.session.conn.0);
        StatusChange { device_flag, conn, is_online }
    }

    /// Whether an older session must go when this one comes, and with which text
    /// (protocol.md §2.5).
    fn ends(&self, old: &Self) -> Option<Option<Name>> {
        if old.device_flag != self.device_flag {
            return None;
        }
        match (old.device_id == self.device_id, self.level == MASTER) {
            (true, _) => Some(None),
            (false, true) => Some(Some("login in other device".into())),
            (false, false) => None,
        }
    }
}

impl Caller {
    /// The ask, to be handled again when what it needs is loaded.
    pub(super) fn again(self, ask: &Arc<Ask>) -> Waiting {
        let (from, id, ask) = (self.from, self.id, ask.clone());
        Waiting::Envelope(Box::new(Envelope::Ask { from, id, ask }))
    }
}
