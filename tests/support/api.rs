//! What a business back end asks of the HTTP API.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::PATIENCE;
use super::client::{Channel, GROUP};
use super::http::{self, Reply};

/// Messages asked for per page of history.
const PAGE: usize = 5000;

/// The API of one node.
#[derive(Clone)]
pub struct Api {
    address: String,
    patience: Duration,
}

/// A message as history gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub seq: u32,
    pub id: i64,
    pub from: String,
    pub client_msg_no: String,
    #[serde(with = "super::history::base64")]
    pub payload: Vec<u8>,
}

impl Api {
    pub fn new(address: String) -> Self {
        Self { address, patience: PATIENCE }
    }

    /// The same, but a request that takes longer counts as unanswered.
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// A POST whose outcome may stay unknown.
    pub fn try_post(&self, path: &str, body: &Value) -> io::Result<Reply> {
        let body = body.to_string();
        http::request_within(self.patience, &self.address, "POST", path, body.as_bytes())
    }

    /// A POST whose outcome may stay unknown; anything but 200 is an error.
    pub fn ask(&self, path: &str, body: &Value) -> io::Result<Value> {
        answered(self.try_post(path, body)?)
    }

    /// A GET; anything but 200 is an error.
    pub fn look(&self, path: &str) -> io::Result<Value> {
        answered(http::request_within(self.patience, &self.address, "GET", path, b"")?)
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
    pub fn try_history(&self, reader: &str, of: &Channel, start: u32) -> io::Result<Vec<Stored>> {
        let (mut out, mut start) = (Vec::new(), start.max(1));
        loop {
            let body = json!({
                "login_uid": reader, "channel_id": of.id, "channel_type": of.kind,
                "start_message_seq": start, "end_message_seq": 0, "limit": PAGE, "pull_mode": 1,
            });
            let page = self.ask("/channel/messagesync", &body)?;
            let messages = page["messages"].as_array();
            let messages = messages.ok_or_else(|| io::Error::other(format!("strange {page}")))?;
            out.extend(messages.iter().map(Stored::read));
            match messages.last() {
                Some(last) if messages.len() == PAGE => start = Stored::read(last).seq + 1,
                _ => return Ok(out),
            }
        }
    }

    /// All of a channel as `reader` sees it, from seq `start`; it must be answered.
    pub fn history_from(&self, reader: &str, channel: &Channel, start: u32) -> Vec<Stored> {
        self.try_history(reader, channel, start)
            .unwrap_or_else(|e| panic!("history of {channel:?}: {e}"))
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

fn answered(reply: Reply) -> io::Result<Value> {
    match reply.status {
        200 => Ok(reply.json()),
        status => Err(io::Error::other(format!("status {status}: {}", reply.text()))),
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
