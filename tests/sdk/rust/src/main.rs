//! The round trip of crate wukong-easy-sdk; see ../README.md.

use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Stdin};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::timeout;
use wukong_easy_sdk::{Auth, ChannelType, Client, DisconnectReason, Error, Event, Options};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PERSON: ChannelType = ChannelType::Person;
const GROUP: ChannelType = ChannelType::Group;
const DESKTOP: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// A text with the seq that its SENDACK gave.
type Sent = (String, u64);

struct World {
    /// Host and port of the HTTP API.
    api: String,
    ws: String,
    stdin: Lines<BufReader<Stdin>>,
}

impl World {
    async fn ask(&mut self, what: &str) -> Result<()> {
        println!("ask: {what}");
        let answer = self.stdin.next_line().await?;
        (answer.as_deref() == Some("done")).then_some(()).ok_or_else(|| "no answer".into())
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let (mut socket, body) = (TcpStream::connect(&self.api).await?, body.to_string());
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.api,
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).await?;
        let mut reply = String::new();
        socket.read_to_string(&mut reply).await?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or("no head")?;
        if head.split(' ').nth(1) != Some("200") {
            return Err(format!("{path}: {reply}").into());
        }
        Ok(serde_json::from_str(body)?)
    }

    async fn history(
        &self,
        login_uid: &str,
        channel_id: &str,
        kind: ChannelType,
    ) -> Result<Vec<Sent>> {
        let kind = u8::from(kind);
        let page = json!({"login_uid": login_uid, "channel_id": channel_id, "channel_type": kind, "limit": 1000});
        let page = self.post("/channel/messagesync", page).await?;
        let messages = page["messages"].as_array().ok_or("no messages")?;
        messages
            .iter()
            .map(|m| {
                let payload = base64::prelude::BASE64_STANDARD
                    .decode(m["payload"].as_str().ok_or("no payload")?)?;
                let content: Value = serde_json::from_slice(&payload)?;
                let text = content["content"].as_str().ok_or("no content")?;
                Ok((text.to_owned(), m["message_seq"].as_u64().ok_or("no seq")?))
            })
            .collect()
    }

    fn user(&self, uid: &str, token: &str) -> Result<User> {
        let options = Options {
            // Pings often, so that the answer's form is tried too.
            ping_interval: Duration::from_millis(500),
            reconnect_delay: Duration::from_millis(200),
            max_reconnect_delay: Duration::from_secs(2),
            max_reconnect_attempts: 60,
            ..Options::default()
        };
        let client = Client::new(&self.ws, Auth::new(uid, token), options)?;
        let events = client.subscribe();
        Ok(User { client, events })
    }

    async fn connect(&self, uid: &str) -> Result<User> {
        let mut user = self.user(uid, &format!("t-{uid}"))?;
        user.client.connect().await?;
        user.take("connection", PATIENCE, |e| matches!(e, Event::Connect(_))).await?;
        Ok(user)
    }
}

struct User {
    client: Client,
    events: broadcast::Receiver<Event>,
}

impl User {
    /// Waits for an event, passing over others.
    async fn take(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        let found = timeout(patience, async {
            loop {
                let event = self.events.recv().await?;
                if wanted(&event) {
                    return Ok::<_, broadcast::error::RecvError>(event);
                }
            }
        });
        Ok(found.await.map_err(|_| format!("{what} did not come"))??)
    }

    async fn send(&self, channel: &str, kind: ChannelType, text: &str) -> Result<Sent> {
        let ack = self.client.send(channel, kind, json!({"type": 1, "content": text})).await?;
        assert_eq!(ack.reason_code, 1);
        Ok((text.to_owned(), ack.message_seq))
    }

    async fn gets(
        &mut self,
        from: &str,
        channel: &str,
        kind: ChannelType,
        sent: &Sent,
    ) -> Result<()> {
        let wanted = |e: &Event| matches!(e, Event::Message(m) if m.payload["content"] == *sent.0);
        let Event::Message(m) = self.take(&format!("message {sent:?}"), PATIENCE, wanted).await?
        else {
            return Err("no message".into());
        };
        let got = (m.from_uid.as_str(), m.channel_id.as_str(), m.channel_type, m.message_seq);
        assert_eq!(got, (from, channel, u8::from(kind), sent.1));
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let variable = |name| std::env::var(name).map_err(|e| format!("{name}: {e}"));
    let (api, run) = (variable("JINDOU_API")?, variable("JINDOU_RUN")?);
    let mut world = World {
        api: api.trim_start_matches("http://").to_owned(),
        ws: variable("JINDOU_WS")?,
        stdin: BufReader::new(tokio::io::stdin()).lines(),
    };
    let (ann, bob, group) = (format!("ann-{run}"), format!("bob-{run}"), format!("group-{run}"));
    for uid in [&ann, &bob] {
        let token = json!({"uid": uid, "token": format!("t-{uid}"), "device_flag": DESKTOP, "device_level": 1});
        world.post("/user/token", token).await?;
    }
    world
        .post(
            "/channel",
            json!({"channel_id": group, "channel_type": 2, "subscribers": [ann, bob]}),
        )
        .await?;
    let (mut a, mut b) = (world.connect(&ann).await?, world.connect(&bob).await?);
    let (mut chat, mut talk) = (Vec::new(), Vec::new());

    let sent = a.send(&bob, PERSON, "hello Bob").await?;
    b.gets(&ann, &ann, PERSON, &sent).await?;
    chat.push(sent);
    let sent = b.send(&ann, PERSON, "你好 Ann 🦀").await?;
    a.gets(&bob, &bob, PERSON, &sent).await?;
    chat.push(sent);
    println!("held: person chat");

    let sent = b.send(&group, GROUP, "hello group").await?;
    a.gets(&bob, &group, GROUP, &sent).await?;
    talk.push(sent);
    println!("held: group chat");

    b.client.destroy().await;
    for i in 0..3 {
        chat.push(a.send(&bob, PERSON, &format!("offline {i}")).await?);
    }
    b = world.connect(&bob).await?;
    let conversations =
        world.post("/conversation/sync", json!({"uid": bob, "msg_count": 10})).await?;
    let with_ann = conversations.as_array().into_iter().flatten().find(|c| c["channel_id"] == *ann);
    let with_ann = with_ann.ok_or("no conversation")?;
    assert_eq!(
        (with_ann["unread"].as_u64(), with_ann["last_msg_seq"].as_u64()),
        (Some(3), Some(5))
    );
    assert_eq!(world.history(&bob, &ann, PERSON).await?, chat);
    println!("held: offline, then sync");

    let second = world.connect(&bob).await?;
    let kick = Event::Disconnect(DisconnectReason::Server { code: 12 });
    b.take("kick", PATIENCE, |e| format!("{e:?}") == format!("{kick:?}")).await?;
    b.client.destroy().await;
    b = second;
    println!("held: kicked by the same device");

    let stranger = world.user(&ann, "wrong")?;
    assert_eq!(stranger.client.connect().await.err(), Some(Error::Server { code: 2 }));
    stranger.client.destroy().await;
    println!("held: token refused");

    world.ask("kill").await?;
    for user in [&mut a, &mut b] {
        user.take("loss of connection", PATIENCE, |e| matches!(e, Event::Disconnect(_))).await?;
    }
    world.ask("start").await?;
    for user in [&mut a, &mut b] {
        user.take("connection after the kill", PATIENCE * 3, |e| matches!(e, Event::Connect(_)))
            .await?;
    }
    let sent = a.send(&bob, PERSON, "after the kill").await?;
    b.gets(&ann, &ann, PERSON, &sent).await?;
    chat.push(sent);
    println!("held: reconnected after the kill");

    assert_eq!(world.history(&bob, &ann, PERSON).await?, chat);
    assert_eq!(world.history(&ann, &group, GROUP).await?, talk);
    println!("held: nothing acknowledged is missing");
    a.client.destroy().await;
    b.client.destroy().await;
    Ok(())
}
