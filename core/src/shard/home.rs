//! The home of a uid: who is logged in where (design.md §4), who may log in, who must go
//! (protocol.md §2.2, §2.5).

use super::{Shard, cache::Found, waiting::Waiting};
use crate::{
    channel_info::kind,
    code::Code,
    entry::ChannelRef,
    envelope::{Envelope, Login},
    id::{ChannelId, ConnId, Name, SlotId},
};

/// A session as its user's home knows it.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) conn: ConnId,
    pub(crate) device_flag: u8,
    device_id: Name,
}

/// The level of a device that may end the sessions of others.
const MASTER: u8 = 1;

impl Shard {
    /// A session asks to be let in.
    pub(super) fn on_login(&mut self, login: Box<Login>) {
        let conn = login.conn;
        let uid = login.uid.clone();
        let refuse = |code| Envelope::LoggedIn { conn, uid, outcome: Err(code), send_ban: false };
        let slot = SlotId::of(&login.uid, self.settings.slot_count);
        if !self.leads(slot) {
            return self.send(conn.shard(), refuse(Code::SystemError));
        }
        let level = if login.uid == self.settings.manager_uid {
            let wanted = &self.settings.manager_token;
            if wanted.is_empty() || *wanted != login.token {
                return self.send(conn.shard(), refuse(Code::AuthFail));
            }
            0
        } else if self.settings.token_auth && !login.uid.ends_with(&*self.settings.visitor_suffix) {
            let again = || Waiting::Envelope(Box::new(Envelope::Login(login.clone())));
            let user = match self.users.get_or_wait(&login.uid, again) {
                Found::Ready(user) => user,
                Found::Loading => return,
                Found::Missing => return self.load_user(login.uid.clone()),
            };
            match user.device(login.device_flag) {
                Some(device) if !device.token.is_empty() && *device.token == *login.token => {
                    device.level
                }
                Some(_) | None => return self.send(conn.shard(), refuse(Code::AuthFail)),
            }
        } else {
            0
        };
        let personal = ChannelId::new(login.uid.clone(), kind::PERSON);
        let again = || Waiting::Envelope(Box::new(Envelope::Login(login.clone())));
        let info = match self.channels.get_or_wait(&personal, again) {
            Found::Ready(channel) => channel.info(),
            Found::Loading => return,
            Found::Missing => return self.load_channel(personal),
        };
        if info.ban {
            return self.send(conn.shard(), refuse(Code::Ban));
        }
        let count = self.directory.get(&login.uid).map_or(0, Vec::len);
        if count >= self.settings.sessions_per_user_max {
            return self.send(conn.shard(), refuse(Code::RateLimit));
        }
        let Login { uid, device_flag, device_id, .. } = *login;
        self.end_conflicting(&uid, device_flag, &device_id, level);
        self.directory
            .entry(uid.clone())
            // Most users have one session; a Vec grows to four at once.
            .or_insert_with(|| Vec::with_capacity(1))
            .push(Presence { conn, device_flag, device_id });
        let (outcome, send_ban) = (Ok(level), info.send_ban);
        let welcome = Envelope::LoggedIn { conn, uid, outcome, send_ban };
        self.send(conn.shard(), welcome);
    }

    /// A new session of a device ends older ones (protocol.md §2.5).
    fn end_conflicting(&mut self, uid: &Name, device_flag: u8, device_id: &str, level: u8) {
        let master = level == MASTER;
        self.end_sessions(uid, |old| {
            if old.device_flag != device_flag {
                return None;
            }
            match (&*old.device_id == device_id, master) {
                (true, _) => Some(None),
                (false, true) => Some(Some("login in other device".into())),
                (false, false) => None,
            }
        });
    }

    /// Ends every session of a device with a DISCONNECT.
    pub(super) fn kick_device(&mut self, uid: &Name, device_flag: u8, text: &Name) {
        self.end_sessions(uid, |old| (old.device_flag == device_flag).then(|| Some(text.clone())));
    }

    /// Ends the sessions for which `how` gives the text of a DISCONNECT, or none.
    fn end_sessions(&mut self, uid: &Name, how: impl Fn(&Presence) -> Option<Option<Name>>) {
        let Some(sessions) = self.directory.get_mut(uid) else {
            return;
        };
        let mut ended = Vec::new();
        sessions.retain(|session| match how(session) {
            Some(text) => {
                ended.push((session.conn, text));
                false
            }
            None => true,
        });
        if sessions.is_empty() {
            self.directory.swap_remove(uid);
        }
        for (conn, text) in ended {
            self.send(conn.shard(), Envelope::Kick { conn, text });
        }
    }

    /// A session is over.
    pub(super) fn on_left(&mut self, conn: ConnId, uid: &Name) {
        if let Some(sessions) = self.directory.get_mut(uid) {
            sessions.retain(|session| session.conn != conn);
            if sessions.is_empty() {
                self.directory.swap_remove(uid);
            }
        }
    }

    /// The flags of a channel changed: if it is a user's own, its sessions must know.
    pub(super) fn tell_sessions_of(&mut self, channel: &ChannelRef) {
        if channel.kind != kind::PERSON {
            return;
        }
        let Some(sessions) = self.directory.get(&channel.id) else {
            return;
        };
        let conns: Vec<ConnId> = sessions.iter().map(|session| session.conn).collect();
        let personal = ChannelId::from(channel);
        let banned = self.channels.get(&personal).is_some_and(|c| c.info().send_ban);
        for conn in conns {
            self.send(conn.shard(), Envelope::SendBan { conn, banned });
        }
    }
}
