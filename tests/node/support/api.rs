//! What a business back end asks of the HTTP API.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::client::{Channel, GROUP};
use super::http::{self, Reply};

/// Messages asked for per page of history.
const PAGE: usize = 5000;

/// The API of one node.
#[derive(Clone)]
pub struct Api {
    address: String,
}

/// A message as history gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: u32,
    pub id: i64,
    pub from: String,
    pub client_msg_no: String,
    pub payload: Vec<u8>,
}

impl Api {
    pub fn new(address: String) -> Self {
        Self { address }
    }

    /// A POST whose outcome may stay unknown.
    pub fn try_post(&self, path: &str, body: &Value) -> io::Result<Reply> {
        http::request(&self.address, "POST", path, body.to_string().as_bytes())
    }

    /// A POST that must be answered with 200.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let reply = self.try_post(path, body).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text());
        reply.json()
    }

    /// A GET that must be answered with 200.
    pub fn get(&self, path: &str) -> Value {
        let reply = http::request(&self.address, "GET", path, b"").unwrap();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Makes a group.
    pub fn group(&self, id: &str, members: &[&str]) -> Channel {
        let body = json!({"channel_id": id, "channel_type": GROUP, "subscribers": members});
        self.post("/channel", &body);
        Channel::group(id)
    }

    /// Registers a token.
    pub fn token(&self, uid: &str, token: &str, flag: u8, level: u8) {
        let body = json!({"uid": uid, "token": token, "device_flag": flag, "device_level": level});
        self.post("/user/token", &body);
    }

    /// `POST /message/send`; the message's id.
    pub fn send(&self, from: &str, to: &Channel, client_msg_no: &str, payload: &[u8]) -> i64 {
        let reply = self.post("/message/send", &Self::message(from, to, client_msg_no, payload));
        reply["data"]["message_id"].as_i64().unwrap()
    }

    /// The body of `POST /message/send`.
    pub fn message(from: &str, to: &Channel, client_msg_no: &str, payload: &[u8]) -> Value {
        json!({
            "header": {"red_dot": 1}, "from_uid": from, "channel_id": to.id,
            "channel_type": to.kind, "client_msg_no": client_msg_no,
            "payload": BASE64_STANDARD.encode(payload),
        })
    }

    /// All of a channel as `reader` sees it, from seq `start`.
    pub fn history_from(&self, reader: &str, channel: &Channel, start: u32) -> Vec<Stored> {
        let (mut out, mut start) = (Vec::new(), start.max(1));
        loop {
            let body = json!({
                "login_uid": reader, "channel_id": channel.id, "channel_type": channel.kind,
                "start_message_seq": start, "end_message_seq": 0, "limit": PAGE, "pull_mode": 1,
            });
            let page = self.post("/channel/messagesync", &body);
            let messages = page["messages"].as_array().unwrap();
            out.extend(messages.iter().map(Stored::read));
            match messages.last() {
                Some(last) if messages.len() == PAGE => start = Stored::read(last).seq + 1,
                _ => return out,
            }
        }
    }

    /// All of a channel as `reader` sees it.
    pub fn history(&self, reader: &str, channel: &Channel) -> Vec<Stored> {
        self.history_from(reader, channel, 1)
    }

    /// The conversation of `uid` with this channel, if there is one.
    pub fn conversation(&self, uid: &str, channel: &str) -> Option<Value> {
        let all = self.post("/conversation/sync", &json!({"uid": uid, "msg_count": 20}));
        let mut all = all.as_array().unwrap().iter();
        all.find(|one| one["channel_id"] == channel).cloned()
    }

    /// Ids of the connections of `uid`.
    pub fn connections(&self, uid: &str) -> Vec<i64> {
        let all = self.get(&format!("/connz?limit=1000&uid={uid}"));
        let all = all["connections"].as_array().unwrap();
        all.iter().map(|one| one["id"].as_i64().unwrap()).collect()
    }
}

impl Stored {
    fn read(message: &Value) -> Self {
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        Self {
            seq: u32::try_from(message["message_seq"].as_u64().unwrap()).unwrap(),
            id: message["message_id"].as_i64().unwrap(),
            from: text("from_uid"),
            client_msg_no: text("client_msg_no"),
            payload: BASE64_STANDARD.decode(text("payload")).unwrap(),
        }
    }
}
