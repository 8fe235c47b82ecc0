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

    /// Appends to the stream of a group; whose it is the node knows.
    async fn append(&self, to: &Stream, id: &str, kind: &str, payload: Value) -> Result<Value> {
        let event = json!({"channel_id": to.group, "channel_type": 2, "client_msg_no": to.number,
            "event_id": id, "event_type": kind, "payload": payload});
        self.post("/message/event", event).await
    }

    /// Unread messages in the conversation of `uid` with `peer`; `None`: there is none.
    async fn unread(&self, uid: &str, peer: &str) -> Result<Option<u64>> {
        let all = self.post("/conversation/sync", json!({"uid": uid, "msg_count": 1})).await?;
        let found = all.as_array().into_iter().flatten().find(|c| c["channel_id"] == *peer);
        Ok(found.and_then(|conversation| conversation["unread"].as_u64()))
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

/// A message to which words are appended.
struct Stream {
    group: String,
    number: String,
}

/// A text as the payload of a message.
fn content(text: &str) -> String {
    let payload = json!({"type": 1, "content": text}).to_string();
    base64::prelude::BASE64_STANDARD.encode(payload)
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

    /// The next event of a stream.
    async fn event(&mut self, what: &str) -> Result<(String, String, Value)> {
        let wanted = |e: &Event| matches!(e, Event::CustomEvent(_));
        match self.take(what, PATIENCE, wanted).await? {
            Event::CustomEvent(event) => {
                Ok((event.id.clone(), event.event_type.clone(), event.data.clone()))
            }
            _ => Err("no event".into()),
        }
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

    stream(&world, &group, &mut a, &mut b).await?;
    talk.push(("stream".to_owned(), 2));
    println!("held: stream");

    several_devices(&world, &format!("cat-{run}"), &ann, &mut a).await?;
    println!("held: several devices");

    let command = json!({"header": {"sync_once": 1, "red_dot": 1}, "from_uid": ann,
        "channel_id": group, "channel_type": 2, "payload": content("refresh")});
    world.post("/message/send", command).await?;
    b.gets(&ann, &group, GROUP, &("refresh".to_owned(), 1)).await?;
    println!("held: command");

    let sent = a.send(&bob, PERSON, "unread").await?;
    b.gets(&ann, &ann, PERSON, &sent).await?;
    chat.push(sent);
    assert_eq!(world.unread(&bob, &ann).await?, Some(4));
    let with_ann =
        |unread: u64| json!({"uid": bob, "channel_id": ann, "channel_type": 1, "unread": unread});
    world.post("/conversations/setUnread", with_ann(2)).await?;
    assert_eq!(world.unread(&bob, &ann).await?, Some(2));
    world.post("/conversations/clearUnread", with_ann(0)).await?;
    assert_eq!(world.unread(&bob, &ann).await?, Some(0));
    world.post("/conversations/delete", with_ann(0)).await?;
    assert_eq!(world.unread(&bob, &ann).await?, None);
    println!("held: conversations");

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

/// A back end streams an answer into the group.
async fn stream(world: &World, group: &str, a: &mut User, b: &mut User) -> Result<()> {
    let to = Stream { group: group.to_owned(), number: format!("stream-{group}") };
    let anchor = json!({"header": {"red_dot": 1}, "is_stream": 1, "client_msg_no": to.number,
        "from_uid": "bot", "channel_id": group, "channel_type": 2, "payload": content("stream")});
    let sent = world.post("/message/send", anchor).await?;
    let words = ["Hel", "lo ", "你好 🦀"];
    for (n, word) in words.iter().enumerate() {
        let payload = json!({"kind": "text", "delta": word});
        world.append(&to, &format!("e{n}"), "stream.delta", payload).await?;
    }
    world.append(&to, "end", "stream.close", json!({"end_reason": 0})).await?;
    for user in [a, b] {
        user.gets("bot", group, GROUP, &("stream".to_owned(), 2)).await?;
        for (n, word) in words.iter().enumerate() {
            let (id, kind, data) = user.event(word).await?;
            assert_eq!((id, kind.as_str()), (format!("e{n}"), "stream.delta"));
            assert_eq!(data["payload"]["delta"], *word);
            assert_eq!(data["message_id"], sent["data"]["message_id"]);
        }
        let (_, kind, data) = user.event("end").await?;
        assert_eq!(
            (kind.as_str(), data["stream_status"].as_str()),
            ("stream.close", Some("closed"))
        );
    }
    let page = json!({"login_uid": "x", "channel_id": group, "channel_type": 2, "limit": 1});
    let page = world.post("/channel/messagesync", page).await?;
    let text = page["messages"][0]["stream_data"].as_str().ok_or("no text")?;
    assert_eq!(base64::prelude::BASE64_STANDARD.decode(text)?, words.concat().as_bytes());
    Ok(())
}

/// Two devices of a user whose devices do not end each other.
async fn several_devices(world: &World, cat: &str, ann: &str, a: &mut User) -> Result<()> {
    let token =
        json!({"uid": cat, "token": format!("t-{cat}"), "device_flag": DESKTOP, "device_level": 0});
    world.post("/user/token", token).await?;
    let (mut first, mut second) = (world.connect(cat).await?, world.connect(cat).await?);
    let sent = a.send(cat, PERSON, "to both").await?;
    first.gets(ann, ann, PERSON, &sent).await?;
    second.gets(ann, ann, PERSON, &sent).await?;
    let sent = first.send(ann, PERSON, "from one").await?;
    a.gets(cat, cat, PERSON, &sent).await?;
    second.gets(cat, ann, PERSON, &sent).await?;
    first.client.destroy().await;
    second.client.destroy().await;
    Ok(())
}
