//! CONNECT and its answer (protocol.md §2.1–2.4).

use std::collections::VecDeque;

use rand_core::RngCore as _;

use super::{Flow, Keys, Link, Live, Pending, Session};
use crate::{
    code::Code,
    envelope::{Ask, Login},
    id::{ConnId, SYSTEM_DEVICE, SYSTEM_UID, has_special_char},
    shard::{
        Shard,
        asks::{Asker, To},
        unacked::UnackedQueue,
    },
    wire::{
        crypto::SALT_SIZE,
        frame::{self, Connack, Connect, Frame, encode},
        jsonrpc::{self, ConnectResult, RpcConnect},
        outbound::Framing,
    },
};

impl Shard {
    pub(super) fn on_rpc_connect(
        &mut self,
        link: &mut Link,
        rpc: &RpcConnect<'_>,
        id: String,
    ) -> Flow {
        let connect = Connect {
            version: rpc.version,
            device_flag: rpc.device_flag,
            device_id: &rpc.device_id,
            uid: &rpc.uid,
            token: &rpc.token,
            client_timestamp: rpc.client_timestamp,
            client_key: "",
        };
        self.on_connect(link, &connect, Some(id))
    }

    pub(super) fn on_connect(
        &mut self,
        link: &mut Link,
        connect: &Connect<'_>,
        rpc_id: Option<String>,
    ) -> Flow {
        self.vars.connect_frames += 1;
        let uid = connect.uid;
        let size_max = self.settings.uid_size_max;
        let unusable = uid.trim().is_empty()
            || has_special_char(uid)
            || uid.len() > size_max
            || connect.device_id.len() > size_max;
        if unusable {
            return Flow::Close;
        }
        let mut pending = Pending {
            uid: uid.into(),
            device_id: connect.device_id.into(),
            device_flag: connect.device_flag,
            version: connect.version,
            client_timestamp: connect.client_timestamp,
            keys: None,
            rpc_id,
            login: 0,
            since_ms: self.now.unix_ms,
        };
        if uid == SYSTEM_UID || connect.device_id == SYSTEM_DEVICE {
            self.refuse_connect(link, &pending, Code::AuthFail);
            return Flow::Close;
        }
        if pending.rpc_id.is_none() && !self.settings.encryption_off {
            let salt = self.salt();
            let server_key = self.server_key();
            match server_key.agree(connect.client_key, salt) {
                Ok(cipher) => {
                    let server_key = server_key.public_base64().to_owned();
                    pending.keys = Some(Keys { cipher, server_key, salt });
                }
                Err(_) => {
                    self.refuse_connect(link, &pending, Code::ClientKeyIsEmpty);
                    return Flow::Close;
                }
            }
        }
        let login = Login {
            session: self.session(link.conn),
            uid: pending.uid.clone(),
            device_flag: pending.device_flag,
            device_id: pending.device_id.clone(),
            token: connect.token.into(),
            since_ms: self.now.unix_ms,
        };
        let (to, asker) = (To::Slot(self.slot_of(uid)), Asker::Session(link.conn));
        pending.login = self.ask(Ask::Login(login), to, asker);
        link.session = Session::Authenticating(Box::new(pending));
        Flow::Pause
    }

    /// The home has answered.
    pub(in crate::shard) fn on_logged_in(
        &mut self,
        conn: ConnId,
        outcome: Result<(u8, bool), Code>,
    ) {
        let Some(mut entry) = self.take_conn(conn) else {
            return;
        };
        let session = std::mem::replace(&mut entry.link.session, Session::Greeting);
        let Session::Authenticating(pending) = session else {
            entry.link.session = session;
            return self.put_conn(entry);
        };
        let (device_level, send_ban) = match outcome {
            Ok(welcome) => welcome,
            Err(code) => {
                self.refuse_connect(&mut entry.link, &pending, code);
                return self.end(entry);
            }
        };
        self.vars.connects += 1;
        self.write_connack(&mut entry.link, &pending, Code::Success);
        let json = pending.rpc_id.is_some();
        let version = pending.version.min(frame::VERSION_LATEST);
        let Pending { uid, device_id, device_flag, keys, since_ms, .. } = *pending;
        entry.inbound.set_version(version);
        let framing = Framing::of(entry.link.transport, json);
        entry.link.session = Session::Live(Box::new(Live {
            uid,
            device_id,
            device_flag,
            device_level,
            version,
            json,
            framing,
            cipher: keys.map(|keys| keys.cipher),
            send_ban,
            since_ms,
            memory: None,
            unacked: UnackedQueue::default(),
            rpc_ids: VecDeque::new(),
            next_rpc: 0,
            send_second: 0,
            sends: 0,
        }));
        self.session_count += 1;
        entry.link.active_mono_ms = self.now.mono_ms;
        self.read_frames(entry, &mut []);
    }

    fn refuse_connect(&mut self, link: &mut Link, pending: &Pending, code: Code) {
        self.vars.connects_refused += 1;
        match &pending.rpc_id {
            Some(id) => {
                self.write(link, true, |out| {
                    jsonrpc::encode_error(out, Some(id), code.into(), code.name());
                });
            }
            None => self.write_connack(link, pending, code),
        }
    }

    fn write_connack(&mut self, link: &mut Link, pending: &Pending, code: Code) {
        let version = pending.version.min(frame::VERSION_LATEST);
        let time_diff = self.now.unix_ms.saturating_sub(pending.client_timestamp);
        let node_id = self.settings.node.0;
        if let Some(id) = &pending.rpc_id {
            let result =
                ConnectResult { server_version: version, time_diff, reason: code.into(), node_id };
            self.write(link, true, |out| jsonrpc::encode_connect_result(out, id, &result));
            return;
        }
        let keys = pending.keys.as_ref().filter(|_| code == Code::Success);
        let salt = keys.map_or("", |keys| std::str::from_utf8(&keys.salt).unwrap_or_default());
        let connack = Frame::Connack(Connack {
            server_version: (pending.version > 3).then_some(version),
            time_diff,
            reason: code.into(),
            server_key: keys.map_or("", |keys| &keys.server_key),
            salt,
            node_id,
        });
        self.write(link, false, |out| {
            // All strings are short: this cannot fail.
            let _ = encode(&connack, version, out);
        });
    }

    fn salt(&mut self) -> [u8; SALT_SIZE] {
        const ALPHABET: &[u8; 62] =
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut salt = [0u8; SALT_SIZE];
        self.rng.fill_bytes(&mut salt);
        salt.map(|byte| ALPHABET.get(usize::from(byte) % 62).copied().unwrap_or(b'0'))
    }
}
