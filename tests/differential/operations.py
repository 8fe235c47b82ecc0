"""Random operations: API calls, connections, sends. The same seed makes the same ones.

What v2.2.5 does not survive (blank uids in lists, uids of 64 KiB) is left to the conformance scenarios.
"""
import base64, json, random, re, urllib.parse, zlib

PERSON, GROUP, SERVICE, COMMUNITY, TOPIC, INFO, DATA, LIVE, VISITORS, AGENT = 1, 2, 3, 4, 5, 6, 7, 9, 10, 11
GO_TEXT = re.compile(r"json: cannot unmarshal .*")


def pair(a, b):
    """The stored id of a person channel."""
    return f"{a}@{b}" if zlib.crc32(a.encode()) > zlib.crc32(b.encode()) else f"{b}@{a}"


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def in_one_order(value):
    """The keys of a stream by name."""
    if isinstance(value, dict):
        out = {k: in_one_order(v) for k, v in value.items()}
        if isinstance(out.get("event_meta"), dict):
            meta = out["event_meta"]
            out["event_meta"] = meta | {"events": sorted(meta.get("events", []), key=lambda e: e["event_key"])}
        return out
    return [in_one_order(v) for v in value] if isinstance(value, list) else value


class Call:
    """An API call."""
    is_read, number, sort, probes = False, None, None, ()

    def __init__(self, name, method, path, body=None, query=None, **more):
        self.name, self.method, self.body, self.port = name, method, body, "api"
        self.path = path + ("?" + urllib.parse.urlencode(query) if query else "")
        vars(self).update(more)

    async def perform(self, side):
        return await side.http(self)

    def shape(self, answer):
        """Lists whose order v2.2.5 leaves open, in one order."""
        status, body = answer
        if isinstance(body, dict) and "msg" in body:
            body = body | {"msg": GO_TEXT.sub("<what Go's JSON decoder says>", body["msg"])}
        if self.sort and isinstance(body, list):
            body = sorted(body, key=lambda v: json.dumps(v, sort_keys=True))
        return status, in_one_order(body)

    def __str__(self):
        return f"{self.method} {self.path} {json.dumps(self.body, ensure_ascii=False) if self.body is not None else ''}"


class Step:
    """Something with a connection."""
    is_read, number, probes = False, None, ()

    def __init__(self, name, client, **more):
        self.name, self.client = name, client
        vars(self).update(more)

    async def perform(self, side):
        return await getattr(side, self.name.split()[0])(self)

    def shape(self, answer):
        return answer

    def __str__(self):
        return " ".join(f"{k}={v!r}" for k, v in vars(self).items() if k != "probes")


class World:
    """Who and what there is. Kept so that operations meet one another, and so that `known.py` can tell why an answer differs."""

    def __init__(self, seed):
        self.random, self.seed, self.generation = random.Random(seed), seed, 0
        self.count = self.clients_made = 0
        self.renew()

    def renew(self):
        self.generation += 1
        self.clients = {}  # connected: (uid, device flag)
        at = f"{self.seed}x{self.generation}"
        self.users = [f"{name}{at}" for name in ("ann", "bob", "cy-", "dora", "emil", "用户", "gus")]
        self.groups = [(f"g{at}", GROUP), (f"h{at}", GROUP), (f"群{at}", GROUP), (f"c{at}", COMMUNITY), (f"t{at}", TOPIC),
                       (f"n{at}", INFO), (f"d{at}", DATA), (f"l{at}", LIVE), (f"s{at}|x", SERVICE), (f"k{at}", 249)]
        self.sent = []        # (channel as the API names it, its type, one of its users, client number)
        self.created = set()  # channels that were created, not only used
        self.deleted = set()  # (user, channel): a conversation that was deleted
        self.underflown = set()  # (user, channel): v2.2.5 has set its read position to 2^64 - 1

    def note_last(self, call, last_seq):
        """The last seq of the channel whose unread count was set."""
        if last_seq == 0:
            self.underflown.add(call.pair)

    def one(self, values):
        return self.random.choice(values)

    def chance(self, p):
        return self.random.random() < p

    def some(self, values, most):
        return self.random.sample(values, self.random.randint(1, most))

    def number(self):
        self.count += 1
        return f"no-{self.seed}-{self.count}"


class Operations:
    def __init__(self, world, without):
        self.w = world
        weighted = {
            self.connect: 4, self.disconnect: 3, self.send: 16, self.api_send: 14, self.command_send: 3, self.send_batch: 1,
            self.channel: 3, self.channel_info: 2, self.channel_delete: 1, self.members: 6, self.list_change: 5, self.allow_list: 2,
            self.token: 1, self.quit: 1, self.online: 3, self.system_accounts: 1,
            self.history: 14, self.last: 4, self.lookup: 6, self.conversations: 12, self.by_channels: 4, self.conversation_change: 5,
            self.conversation_channels: 1, self.commands: 3, self.stream: 3, self.member_reads: 3, self.refused: 5}
        weighted = {maker: weight for maker, weight in weighted.items() if maker.__name__ not in without}
        self.makers, self.weights = list(weighted), list(weighted.values())
        self.queue = []

    def next(self):
        w = self.w
        if self.queue:
            return self.queue.pop(0)
        while True:
            call = w.random.choices(self.makers, self.weights)[0]()
            if call:
                return call

    # -- connections

    def connect(self):
        w = self.w
        if len(w.clients) >= 6:
            return None
        uid, flag = w.one(w.users), w.one([0, 1, 2])
        if (uid, flag) in w.clients.values():
            return None
        w.clients_made += 1
        client = f"c{w.clients_made}"
        w.clients[client] = (uid, flag)
        return Step("connect", client, uid=uid, flag=flag, transport=w.one(["tcp", "tcp", "ws", "json"]))

    def disconnect(self):
        w = self.w
        if not w.clients or w.chance(0.5):
            return None
        client = w.one(list(w.clients))
        del w.clients[client]
        return Step("disconnect", client)

    def target(self, uid):
        """(channel as `uid` names it, type)"""
        w = self.w
        if w.chance(0.5):
            return w.one([u for u in w.users if u != uid]), PERSON
        return w.one(w.groups)

    def stored(self, uid, channel, kind):
        return pair(uid, channel) if kind == PERSON else channel

    def probe(self, uid, channel, kind):
        return Call("probe", "GET", "/channel/max_message_seq", query={"channel_id": self.stored(uid, channel, kind), "channel_type": kind, "login_uid": uid})

    def send(self):
        w = self.w
        if not w.clients:
            return None
        client = w.one(list(w.clients))
        uid, _ = w.clients[client]
        channel, kind = self.target(uid)
        extra = {"red_dot": w.chance(0.8)}
        if w.chance(0.1):
            extra["no_persist"] = True
        if w.chance(0.05):
            extra["topic"] = "a topic"
        if w.chance(0.05):
            extra["expire"] = 60
        number = w.number()
        w.sent.append((channel, kind, uid, number))
        return Step("send", client, uid=uid, channel=channel, kind=kind, payload={"type": 1, "content": number}, number=number, client_seq=w.count,
                    extra=extra, probes=(self.probe(uid, channel, kind),))

    # -- messages

    def api_send(self, **header):
        w = self.w
        uid = w.one(w.users)
        channel, kind = self.target(uid)
        number = w.number()
        header = {"red_dot": w.one([0, 1]), "no_persist": int(w.chance(0.08))} | header
        body = {"header": header, "from_uid": uid, "channel_id": channel, "channel_type": kind, "client_msg_no": number, "payload": encoded(json.dumps({"n": number}))}
        if w.chance(0.05) and kind != PERSON:
            del body["from_uid"]
        if w.chance(0.05):
            body["expire"] = 3600
        stored = self.stored(uid, channel, kind)
        if not header.get("sync_once"):
            w.sent.append((channel, kind, uid, number))
        probe = self.probe(uid, channel, kind)
        if header.get("sync_once"):
            probe = Call("probe", "GET", "/channel/max_message_seq", query={"channel_id": stored + "____cmd", "channel_type": kind, "login_uid": uid})
        return Call("POST /message/send", "POST", "/message/send", body, number=number, probes=(probe,))

    def command_send(self):
        return self.api_send(sync_once=1, red_dot=0)

    def send_batch(self):
        w = self.w
        uid = w.one(w.users)
        to = w.some([u for u in w.users if u != uid], 3)
        return Call("POST /message/sendbatch", "POST", "/message/sendbatch", {"header": {"red_dot": 1}, "from_uid": uid, "subscribers": to, "payload": encoded("batch")},
                    probes=tuple(self.probe(uid, u, PERSON) for u in to))

    def history(self):
        w = self.w
        uid = w.one(w.users)
        channel, kind = self.target(uid)
        body = {"login_uid": uid, "channel_id": channel, "channel_type": kind, "start_message_seq": w.one([0, 0, 1, 2, 3, 5, 9, 100]),
                "end_message_seq": w.one([0, 0, 0, 1, 2, 4, 8, 100]), "limit": w.one([1, 2, 3, 10, 50, 0]), "pull_mode": w.one([0, 0, 1, 1, 2])}
        return Call("POST /channel/messagesync", "POST", "/channel/messagesync", body, is_read=True)

    def last(self):
        w = self.w
        uid = w.one(w.users)
        channel, kind = self.target(uid)
        path = w.one(["/channel/max_message_seq", "/channel/last_message"])
        return Call("GET " + path, "GET", path, query={"channel_id": channel, "channel_type": kind, "login_uid": uid}, is_read=True)

    def lookup(self):
        w = self.w
        if not w.sent:
            return None
        channel, kind, uid, number = w.one(w.sent)
        way = w.random.randrange(4)
        if way == 0:
            body = {"login_uid": uid, "channel_id": channel, "channel_type": kind, "message_seqs": [w.random.randint(1, 12) for _ in range(3)],
                    "message_ids": [{"$id": number}], "client_msg_nos": [number]}
            return Call("POST /messages", "POST", "/messages", body, is_read=True)
        if way == 1:
            return Call("POST /message", "POST", "/message", {"login_uid": uid, "channel_id": channel, "channel_type": kind, "message_id": {"$id": number}}, is_read=True)
        if way == 2:
            return Call("GET /message/byclientmsgno", "GET", "/message/byclientmsgno", is_read=True,
                        query={"channel_id": self.stored(uid, channel, kind), "channel_type": kind, "client_msg_no": number})
        return Call("POST /messages", "POST", "/messages", {"login_uid": uid, "channel_id": channel, "channel_type": kind, "message_seqs": [0, 1, 10_000]}, is_read=True)

    def commands(self):
        w = self.w
        uid = w.one(w.users)
        return Call("POST /message/sync", "POST", "/message/sync", {"uid": uid, "message_seq": 0, "limit": 0}, is_read=True, sort=True)

    def stream(self):
        """A whole stream: a message, some events, and the state of its keys."""
        w = self.w
        uid, (channel, kind), number = w.one(w.users), w.one(w.groups), w.number()
        send = Call("POST /message/send", "POST", "/message/send", number=number, probes=(self.probe(uid, channel, kind),),
                    body={"header": {"red_dot": 1}, "is_stream": 1, "from_uid": uid, "channel_id": channel, "channel_type": kind, "client_msg_no": number, "payload": encoded("{}")})
        # What v2.2.5 does with deltas after the last key has ended is a defect of its own.
        events, ended = [], set()
        for n in range(w.random.randint(1, 5)):
            form = w.one(["stream.delta", "stream.delta", "stream.delta", "stream.snapshot", "custom", "stream.close", "stream.error", "stream.finish"])
            payload = {"stream.delta": {"kind": "text", "delta": f"{n} "}, "stream.snapshot": {"kind": "text", "text": "all"}, "custom": {"a": n},
                       "stream.close": {"end_reason": 2}, "stream.error": {"error": "broken"}, "stream.finish": {}}[form]
            body = {"channel_id": channel, "channel_type": kind, "client_msg_no": number, "from_uid": uid, "event_id": f"e{n}", "event_type": form, "payload": payload}
            if w.chance(0.2):
                body["event_key"] = "tool"
            key = body.get("event_key", "main")
            if form == "stream.delta" and (ended & {key, "__finish__"}):
                continue
            ended |= {"stream.close": {key}, "stream.error": {key}, "stream.finish": {"__finish__"}}.get(form, set())
            events.append(Call("POST /message/event", "POST", "/message/event", body, stream=True))
        sync = Call("POST /message/eventsync", "POST", "/message/eventsync", {"channel_id": channel, "channel_type": kind, "from_uid": uid, "client_msg_no": number}, is_read=True)
        page = Call("POST /channel/messagesync", "POST", "/channel/messagesync", {"login_uid": uid, "channel_id": channel, "channel_type": kind, "limit": 3}, is_read=True)
        self.queue = [*events, sync, page]
        return send

    # -- channels

    def flags(self):
        return {f: int(self.w.chance(p)) for f, p in (("large", 0.2), ("ban", 0.06), ("disband", 0.04), ("send_ban", 0.1), ("allow_stranger", 0.2))}

    def channel(self):
        w = self.w
        channel, kind = w.one(w.groups)
        w.created.add(channel)
        body = {"channel_id": channel, "channel_type": kind, "subscribers": w.some(w.users, 4), "reset": int(w.chance(0.2))} | self.flags()
        return Call("POST /channel", "POST", "/channel", body)

    def channel_info(self):
        w = self.w
        channel, kind = w.one(w.groups)
        return Call("POST /channel/info", "POST", "/channel/info", {"channel_id": channel, "channel_type": kind} | self.flags())

    def channel_delete(self):
        w = self.w
        channel, kind = w.one(w.groups)
        # Whether one that was never created is disbanded depends on v2.2.5's caches.
        if channel not in w.created:
            return None
        self.queue = [Call("POST /channel/info", "POST", "/channel/info", {"channel_id": channel, "channel_type": kind})] if w.chance(0.7) else []
        return Call("POST /channel/delete", "POST", "/channel/delete", {"channel_id": channel, "channel_type": kind})

    def members(self):
        w = self.w
        channel, kind = w.one(w.groups)
        if w.chance(0.65):
            body = {"channel_id": channel, "channel_type": kind, "subscribers": w.some(w.users, 4), "reset": int(w.chance(0.1))}
            return Call("POST /channel/subscriber_add", "POST", "/channel/subscriber_add", body)
        if w.chance(0.9):
            return Call("POST /channel/subscriber_remove", "POST", "/channel/subscriber_remove", {"channel_id": channel, "channel_type": kind, "subscribers": w.some(w.users, 2)})
        return Call("POST /channel/subscriber_remove_all", "POST", "/channel/subscriber_remove_all", {"channel_id": channel, "channel_type": kind})

    def list_change(self):
        w = self.w
        name = w.one(["blacklist", "blacklist", "whitelist"])
        how = w.one(["add", "set", "remove", "remove_all"])
        channel, kind = w.one(w.groups) if name == "whitelist" or w.chance(0.5) else (w.one(w.users), PERSON)
        if name == "whitelist":
            how = w.one(["add", "set", "remove_all", "remove_all"])
        body = {"channel_id": channel, "channel_type": kind}
        if how != "remove_all":
            body["uids"] = w.some(w.users, 3)
        path = f"/channel/{name}_{how}"
        return Call("POST " + path, "POST", path, body)

    def allow_list(self):
        w = self.w
        channel, kind = w.one(w.groups)

        class Read(Call):
            def shape(self, answer):
                status, body = answer
                return status, sorted(m["uid"] for m in body) if isinstance(body, list) else body
        return Read("GET /channel/whitelist", "GET", "/channel/whitelist", query={"channel_id": channel, "channel_type": kind}, is_read=True)

    def member_reads(self):
        w = self.w
        channel, kind = w.one(w.groups)
        what = w.one(["subscribers", "denylist", "allowlist"])

        class Read(Call):
            def shape(self, answer):
                status, body = answer
                uids = body if isinstance(body, list) else []
                return status, sorted(m["uid"] if isinstance(m, dict) else m for m in uids) if isinstance(body, list) else body
        return Read(f"GET /cluster/channels/…/{what}", "GET", f"/cluster/channels/{urllib.parse.quote(channel, safe='')}/{kind}/{what}", is_read=True)

    # -- users and conversations

    def token(self):
        w = self.w
        return Call("POST /user/token", "POST", "/user/token", {"uid": w.one(w.users), "token": "t", "device_flag": w.one([3, 4]), "device_level": w.one([0, 1])})

    def quit(self):
        w = self.w
        return Call("POST /user/device_quit", "POST", "/user/device_quit", {"uid": w.one(w.users), "device_flag": w.one([3, 4])})

    def online(self):
        w = self.w
        return Call("POST /user/onlinestatus", "POST", "/user/onlinestatus", w.some(w.users, 4), is_read=True, sort=True)

    def system_accounts(self):
        w = self.w
        uid = f"sys{w.seed}x{w.random.randrange(3)}"
        if w.chance(0.4):
            return Call("GET /user/systemuids", "GET", "/user/systemuids", is_read=True, sort=True)
        path = w.one(["/user/systemuids_add", "/user/systemuids_remove"])
        return Call("POST " + path, "POST", path, {"uids": [uid]})

    def conversations(self):
        w = self.w
        uid = w.one(w.users)
        body = {"uid": uid, "version": w.one([0, 0, 0, 1]), "msg_count": w.one([1, 2, 5, 20]), "last_msg_seqs": ""}
        if w.chance(0.2):
            parts = []
            for _ in range(2):
                channel, kind = self.target(uid)
                parts.append(f"{channel}:{kind}:{w.random.randint(0, 6)}")
            body["last_msg_seqs"] = "|".join(parts)
        if w.chance(0.15):
            body["only_unread"] = 1
        if w.chance(0.1):
            body["exclude_channel_types"] = [w.one([1, 2, 3])]
        return Call("POST /conversation/sync", "POST", "/conversation/sync", body, is_read=True, sort=True)

    def by_channels(self):
        w = self.w
        uid = w.one(w.users)
        channels = [dict(zip(("channel_id", "channel_type"), self.target(uid))) for _ in range(3)]
        body = {"uid": uid, "channels": channels, "msg_count": w.one([0, 1, 3])}
        return Call("POST /conversation/syncByChannels", "POST", "/conversation/syncByChannels", body, is_read=True)

    def conversation_change(self):
        w = self.w
        uid = w.one(w.users)
        channel, kind = self.target(uid)
        what = w.one(["clearUnread", "setUnread", "delete"])
        body = {"uid": uid, "channel_id": channel, "channel_type": kind}
        if what == "setUnread":
            body["unread"] = w.one([0, 1, 2, 50])
        if what == "delete":
            w.deleted.add((uid, channel))
        call = Call(f"POST /conversations/{what}", "POST", f"/conversations/{what}", body, pair=(uid, channel))
        if body.get("unread"):
            call.probe_before = self.probe(uid, channel, kind)
        return call

    def conversation_channels(self):
        w = self.w
        return Call("POST /conversation/channels", "POST", "/conversation/channels", {"uid": w.one(w.users)}, is_read=True, sort=True)

    # -- what is refused

    def refused(self):
        w = self.w
        uid, (channel, kind) = w.one(w.users), w.one(w.groups)
        text = encoded("x")
        path, body = w.one([
            ("/message/send", {"channel_id": channel, "channel_type": kind}),
            ("/message/send", {"channel_id": "a#b", "channel_type": 2, "payload": text}),
            ("/message/send", {"payload": text}),
            ("/message/send", {"payload": text, "subscribers": [uid]}),
            ("/message/send", {"payload": "%%%", "channel_id": channel, "channel_type": kind}),
            ("/message/send", {"payload": text, "channel_id": channel, "channel_type": "2"}),
            ("/message/sendbatch", {"subscribers": [uid], "payload": text}),
            ("/message/sendbatch", {"from_uid": uid, "payload": text}),
            ("/channel", {"channel_id": "", "channel_type": 2}), ("/channel", {"channel_id": channel, "channel_type": 0}),
            ("/channel", {"channel_id": "a@b", "channel_type": 2}), ("/channel", {"channel_id": uid, "channel_type": 1, "subscribers": [uid]}),
            ("/channel", {"channel_id": 5, "channel_type": 2}), ("/channel", {"channel_id": channel, "channel_type": 300}),
            ("/channel/delete", {"channel_id": uid, "channel_type": 1}),
            ("/channel/subscriber_add", {"channel_id": channel, "channel_type": kind}),
            ("/channel/subscriber_add", {"channel_id": channel, "channel_type": kind, "subscribers": [uid], "temp_subscriber": 1}),
            ("/channel/subscriber_add", {"channel_id": uid, "channel_type": 1, "subscribers": [uid]}),
            ("/channel/subscriber_remove", {"channel_id": "a&b", "channel_type": 2, "subscribers": [uid]}),
            ("/channel/subscriber_remove_all", {"channel_id": channel, "channel_type": 0}),
            ("/channel/blacklist_add", {"channel_id": channel, "channel_type": 0, "uids": [uid]}),
            ("/channel/blacklist_add", {"channel_id": channel, "channel_type": kind, "uids": []}),
            ("/channel/whitelist_add", {"channel_id": "a@b", "channel_type": 2, "uids": [uid]}),
            ("/channel/whitelist_set", {"channel_id": " ", "channel_type": 2, "uids": [uid]}),
            ("/user/token", {"uid": "", "token": "t"}), ("/user/token", {"uid": "a@b", "token": "t"}), ("/user/token", {"uid": uid, "token": ""}),
            ("/user/token", {"uid": "____system", "token": "t"}), ("/user/onlinestatus", []), ("/user/onlinestatus", {"a": 1}),
            ("/channel/messagesync", {"channel_id": channel, "channel_type": kind}), ("/channel/messagesync", {"login_uid": uid}),
            ("/conversations/clearUnread", {"uid": ""}), ("/conversations/setUnread", {"uid": uid}), ("/conversations/delete", {"channel_id": channel, "channel_type": kind}),
            ("/conversation/syncByChannels", {"uid": "", "channels": []}), ("/conversation/syncByChannels", {"uid": uid}),
            ("/message", {"channel_id": "", "channel_type": 1}), ("/message", {"channel_id": channel}), ("/message", {"channel_id": uid, "channel_type": 1}),
            ("/messages", {"channel_type": 2}), ("/message/sync", {"uid": ""}), ("/message/sync", {"uid": uid, "limit": -1}),
            ("/message/syncack", {"uid": ""}), ("/message/syncack", {"uid": uid}),
            ("/message/event", {"channel_id": ""}), ("/message/event", {"channel_id": channel, "channel_type": kind}),
            ("/message/event", {"channel_id": channel, "channel_type": kind, "client_msg_no": "x"}),
            ("/message/eventsync", {"channel_id": channel}), ("/message/eventsync", {"channel_id": channel, "client_msg_no": "x", "limit": -1}),
            ("/conn/kick", {"uid": uid}), ("/conn/remove", {"uid": uid, "conn_id": 0}), ("/route/batch", {"a": 1}), ("/nope", {})])
        return Call("refused " + path, "POST", path, body)
