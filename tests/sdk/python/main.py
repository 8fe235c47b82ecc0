"""The round trip of PyPI wukong-easy-sdk; see ../README.md."""
import asyncio
import base64
import json
import os
import sys
import time
import urllib.request

from wukong_easy_sdk import WKIM, AuthOptions, WKIMError, WKIMEvent, WKIMOptions

API, WS, RUN = os.environ["JINDOU_API"], os.environ["JINDOU_WS"], os.environ["JINDOU_RUN"]
ANN, BOB, CAT, GROUP_ID, STREAM = f"ann-{RUN}", f"bob-{RUN}", f"cat-{RUN}", f"group-{RUN}", f"stream-{RUN}"
PERSON, GROUP, DESKTOP = 1, 2, 2


def say(line):
    print(line, flush=True)


async def ask(what):
    say(f"ask: {what}")
    assert (await asyncio.to_thread(sys.stdin.readline)).strip() == "done"


async def post(path, body):
    def call():
        with urllib.request.urlopen(urllib.request.Request(API + path, json.dumps(body).encode(), method="POST"), timeout=20) as r:
            return json.load(r)
    return await asyncio.to_thread(call)


def content(text):
    return base64.b64encode(json.dumps({"type": 1, "content": text}).encode()).decode()


async def append(event_id, event_type, payload):
    """Appends to the stream; whose it is the node knows."""
    await post("/message/event", {"channel_id": GROUP_ID, "channel_type": GROUP, "client_msg_no": STREAM, "event_id": event_id, "event_type": event_type, "payload": payload})


class User:
    """One user with what the SDK told about it. `take` waits for something that was told and has not been taken yet."""

    def __init__(self, uid, token=None):
        # Pings often, so that the answer's form is tried too.
        options = WKIMOptions(ping_interval=0.5, reconnect_delay=0.2, max_reconnect_delay=2, max_reconnect_attempts=60)
        self.sdk, self.told, self.news = WKIM(WS, AuthOptions(uid, token or f"t-{uid}"), options), [], asyncio.Event()
        for event in WKIMEvent:
            self.sdk.on(event, lambda value, event=event: self.tell(event, value))

    def tell(self, event, value):
        self.told.append((event, value))
        self.news.set()

    async def take(self, what, wanted, seconds=20):
        end = time.monotonic() + seconds
        while True:
            for i, (event, value) in enumerate(self.told):
                if wanted(event, value):
                    return self.told.pop(i)[1]
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), end - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"{what} did not come; there were {self.told}") from None

    async def connect(self):
        await self.sdk.connect()
        await self.take("connection", lambda e, v: e == WKIMEvent.CONNECT)
        return self

    async def send(self, channel, kind, text):
        ack = await self.sdk.send(channel, kind, {"type": 1, "content": text})
        assert ack["reasonCode"] == 1, ack
        return text, ack["messageSeq"]

    async def gets(self, sender, channel, kind, sent):
        m = await self.take(f"message {sent}", lambda e, v: e == WKIMEvent.MESSAGE and v["payload"]["content"] == sent[0])
        assert (m["fromUid"], m["channelId"], m["channelType"], m["messageSeq"]) == (sender, channel, kind, sent[1]), m


async def history(login_uid, channel_id, kind):
    page = await post("/channel/messagesync", {"login_uid": login_uid, "channel_id": channel_id, "channel_type": kind, "limit": 1000})
    return [(json.loads(base64.b64decode(m["payload"]))["content"], m["message_seq"]) for m in page["messages"]]


async def main():
    for uid in (ANN, BOB):
        await post("/user/token", {"uid": uid, "token": f"t-{uid}", "device_flag": DESKTOP, "device_level": 1})
    await post("/channel", {"channel_id": GROUP_ID, "channel_type": GROUP, "subscribers": [ANN, BOB]})
    a, b, chat, talk = await User(ANN).connect(), await User(BOB).connect(), [], []

    chat.append(await a.send(BOB, PERSON, "hello Bob"))
    await b.gets(ANN, ANN, PERSON, chat[0])
    chat.append(await b.send(ANN, PERSON, "你好 Ann 🦀"))
    await a.gets(BOB, BOB, PERSON, chat[1])
    await asyncio.gather(*(a.sdk.ping() for _ in range(3)), b.sdk.ping())
    say("held: person chat")

    talk.append(await b.send(GROUP_ID, GROUP, "hello group"))
    await a.gets(BOB, GROUP_ID, GROUP, talk[0])
    say("held: group chat")

    await b.sdk.destroy()
    for i in range(3):
        chat.append(await a.send(BOB, PERSON, f"offline {i}"))
    b = await User(BOB).connect()
    (conversation,) = [c for c in await post("/conversation/sync", {"uid": BOB, "msg_count": 10}) if c["channel_id"] == ANN]
    assert (conversation["unread"], conversation["last_msg_seq"]) == (3, 5), conversation
    assert await history(BOB, ANN, PERSON) == chat
    say("held: offline, then sync")

    second = await User(BOB).connect()
    await b.take("kick", lambda e, v: e == WKIMEvent.DISCONNECT and v["reasonCode"] == 12)
    await b.sdk.destroy()
    b = second
    say("held: kicked by the same device")

    stranger = User(ANN, "wrong")
    try:
        await stranger.sdk.connect()
        raise AssertionError("a wrong token was accepted")
    except WKIMError as e:
        assert e.code == 2, e.code
    await stranger.sdk.destroy()
    say("held: token refused")

    body = {"header": {"red_dot": 1}, "is_stream": 1, "client_msg_no": STREAM, "from_uid": "bot", "channel_id": GROUP_ID, "channel_type": GROUP, "payload": content("stream")}
    message_id = (await post("/message/send", body))["data"]["message_id"]
    talk.append(("stream", 2))
    words = ["Hel", "lo ", "你好 🦀"]
    for i, word in enumerate(words):
        await append(f"e{i}", "stream.delta", {"kind": "text", "delta": word})
    await append("end", "stream.close", {"end_reason": 0})
    for u in (a, b):
        await u.gets("bot", GROUP_ID, GROUP, talk[-1])
        for i, word in enumerate(words):
            event = await u.take(f"event {i}", lambda e, v: e == WKIMEvent.CUSTOM_EVENT)
            data = event["data"]
            assert (event["id"], event["type"], data["message_id"], data["payload"]["delta"]) == (f"e{i}", "stream.delta", message_id, word), event
        event = await u.take("end of the stream", lambda e, v: e == WKIMEvent.CUSTOM_EVENT)
        assert (event["type"], event["data"]["stream_status"]) == ("stream.close", "closed"), event
    page = await post("/channel/messagesync", {"login_uid": BOB, "channel_id": GROUP_ID, "channel_type": GROUP, "limit": 10})
    assert base64.b64decode(page["messages"][-1]["stream_data"]).decode() == "".join(words)
    say("held: stream")

    await post("/user/token", {"uid": CAT, "token": f"t-{CAT}", "device_flag": DESKTOP, "device_level": 0})
    devices = [await User(CAT).connect() for _ in range(2)]
    sent = await a.send(CAT, PERSON, "to both")
    for device in devices:
        await device.gets(ANN, ANN, PERSON, sent)
    sent = await devices[0].send(ANN, PERSON, "from one")
    await a.gets(CAT, CAT, PERSON, sent)
    await devices[1].gets(CAT, ANN, PERSON, sent)
    for device in devices:
        await device.sdk.destroy()
    say("held: several devices")

    body = {"header": {"sync_once": 1, "red_dot": 1}, "from_uid": ANN, "channel_id": GROUP_ID, "channel_type": GROUP, "payload": content("refresh")}
    await post("/message/send", body)
    await b.gets(ANN, GROUP_ID, GROUP, ("refresh", 1))
    say("held: command")

    async def unread():
        return [c["unread"] for c in await post("/conversation/sync", {"uid": BOB, "msg_count": 1}) if c["channel_id"] == ANN]

    with_ann = {"uid": BOB, "channel_id": ANN, "channel_type": PERSON}
    chat.append(await a.send(BOB, PERSON, "unread"))
    await b.gets(ANN, ANN, PERSON, chat[-1])
    assert await unread() == [4]
    await post("/conversations/setUnread", {**with_ann, "unread": 2})
    assert await unread() == [2]
    await post("/conversations/clearUnread", with_ann)
    assert await unread() == [0]
    await post("/conversations/delete", with_ann)
    assert await unread() == []
    say("held: conversations")

    await ask("kill")
    for u in (a, b):
        await u.take("loss of connection", lambda e, v: e == WKIMEvent.DISCONNECT)
    await ask("start")
    for u in (a, b):
        await u.take("connection after the kill", lambda e, v: e == WKIMEvent.CONNECT, 60)
    chat.append(await a.send(BOB, PERSON, "after the kill"))
    await b.gets(ANN, ANN, PERSON, chat[-1])
    say("held: reconnected after the kill")

    assert await history(BOB, ANN, PERSON) == chat
    assert await history(ANN, GROUP_ID, GROUP) == talk
    say("held: nothing acknowledged is missing")
    await a.sdk.destroy()
    await b.sdk.destroy()


asyncio.run(main())
