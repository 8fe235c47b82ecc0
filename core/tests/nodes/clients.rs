//! The nodes' callers: clients over JSON-RPC, and a back end's requests.

use jindou_core::stream::{StreamKey, StreamView};

use super::*;

impl Nodes {
    pub(crate) fn connect(&mut self, node: usize, uid: &str) -> Client {
        self.connect_as(node, uid, "d")
    }

    pub(crate) fn connect_as(&mut self, node: usize, uid: &str, device: &str) -> Client {
        let client = self.begin_connect(node, uid, device);
        self.run();
        let answer = self.heard(client).into_iter().next().unwrap_or(Value::Null);
        assert_eq!(answer["result"]["reasonCode"], 1, "{answer}");
        client
    }

    /// Connects without waiting.
    pub(crate) fn begin_connect(&mut self, node: usize, uid: &str, device: &str) -> Client {
        self.next_conn += 1;
        let count = u32::from(self.nodes[node].settings.shard_count);
        let shard = ShardId(u16::try_from(self.next_conn % count).unwrap());
        let conn = ConnId::new(shard, self.next_conn, 1);
        let peer = "127.0.0.1:9".parse().unwrap();
        self.event(node, shard.0, Event::Opened { conn, port: Port::Tcp, peer });
        let client = Client { node, conn };
        self.heard.insert(client, Vec::new());
        let params = json!({"uid": uid, "deviceId": device, "deviceFlag": 0, "token": ""});
        self.say(client, &json!({"method": "connect", "id": "c", "params": params}));
        client
    }

    pub(crate) fn say(&mut self, client: Client, object: &Value) {
        let shard = usize::from(client.conn.shard().0);
        if let Some(inbox) = self.nodes[client.node].inboxes.get_mut(shard) {
            inbox.push_bytes(client.conn, object.to_string().as_bytes());
        }
    }

    pub(crate) fn send(&mut self, client: Client, channel: &str, kind: u8, number: &str) {
        let params = json!({"channelId": channel, "channelType": kind, "clientMsgNo": number,
                            "payload": "aGk="});
        self.say(client, &json!({"method": "send", "id": number, "params": params}));
    }

    /// The same to a group, with so many bytes of payload.
    pub(crate) fn send_large(&mut self, client: Client, group: &str, number: &str, size: usize) {
        let payload = "AAAA".repeat(size / 3);
        let params = json!({"channelId": group, "channelType": 2, "clientMsgNo": number,
                            "payload": payload});
        self.say(client, &json!({"method": "send", "id": number, "params": params}));
    }

    /// What came since the last call; every RECV is acknowledged.
    pub(crate) fn heard(&mut self, client: Client) -> Vec<Value> {
        let bytes = self.outputs.remove(&client).unwrap_or_default();
        let stream = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
        let objects: Vec<Value> = stream.map(|object| object.expect("whole objects")).collect();
        if !self.closed.contains(&client) {
            for object in objects.iter().filter(|object| object["method"] == "recv") {
                let ack = json!({"messageId": object["params"]["messageId"],
                                 "messageSeq": object["params"]["messageSeq"]});
                self.say(client, &json!({"method": "recvack", "params": ack}));
            }
        }
        objects
    }

    /// (id, reason, seq) of the answers to sends, and (channel, seq) of RECVs, since the last call.
    pub(crate) fn listen(&mut self, client: Client) -> (Vec<Ack>, Vec<Recv>) {
        let (mut acks, mut recvs) = (Vec::new(), Vec::new());
        for object in self.heard(client) {
            if object["method"] == "recv" {
                let params = &object["params"];
                let channel = params["channelId"].as_str().unwrap().to_owned();
                recvs.push((channel, params["messageSeq"].as_u64().unwrap()));
            } else if let Some(reason) = object["result"]["reasonCode"].as_u64() {
                let seq = object["result"]["messageSeq"].as_u64().unwrap_or(0);
                acks.push((object["id"].as_str().unwrap().to_owned(), reason, seq));
            }
        }
        (acks, recvs)
    }

    /// Sends and gives (reason, seq).
    pub(crate) fn send_wait(
        &mut self,
        client: Client,
        channel: &str,
        kind: u8,
        number: &str,
    ) -> (u64, u64) {
        self.send(client, channel, kind, number);
        self.run();
        let (acks, _) = self.listen(client);
        let ack = acks.into_iter().find(|(id, ..)| id == number).expect("an answer");
        (ack.1, ack.2)
    }

    // ---- back end ----

    pub(crate) fn ask(&mut self, node: usize, to: Target, request: Request) -> RequestToken {
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        self.event(node, 0, Event::Request { token, to, request });
        token
    }

    pub(crate) fn answer(&mut self, token: RequestToken) -> Option<Reply> {
        self.replies.remove(&token)
    }

    pub(crate) fn ask_wait(&mut self, node: usize, id: &str, request: Request) -> Reply {
        let token = self.ask(node, Target::Id(id.into()), request);
        self.run();
        self.answer(token).expect("an answer")
    }

    pub(crate) fn group(&mut self, id: &str, members: &[&str]) {
        let members = members.iter().map(|m| Name::from(*m)).collect();
        let info = Some(ChannelInfo::default());
        let request =
            Request::WriteChannel { channel: ChannelId::new(id, 2), info, reset: false, members };
        assert!(matches!(self.ask_wait(0, id, request), Reply::Done));
    }

    /// The client numbers of a channel's messages, in order of seq.
    pub(crate) fn stored(&self, channel: &ChannelId) -> Vec<String> {
        let leader = self.leaders[&channel.slot(self.slot_count)];
        let messages = &self.nodes[leader].store.messages;
        let of = messages.range((channel.clone(), 0)..=(channel.clone(), u64::MAX));
        of.map(|(_, message)| message.client_msg_no.to_string()).collect()
    }

    /// A stream in the store of a node.
    pub(crate) fn view_at(&self, node: usize, stream: &StreamKey) -> StreamView {
        self.nodes[node].store.stream(stream)
    }

    /// Whether all replicas that are alive have the same rows.
    pub(crate) fn replicas_agree(&self) -> bool {
        let alive: Vec<&Node> =
            self.nodes[..self.replicas].iter().filter(|node| node.alive).collect();
        alive.windows(2).all(|pair| pair[0].store == pair[1].store)
    }

    pub(crate) fn node_id(node: usize) -> NodeId {
        node_id(node)
    }
}
