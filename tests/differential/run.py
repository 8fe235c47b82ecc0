#!/usr/bin/env python3
"""Sends the same random operations to Jindou and to a WuKongIM v2.2.5 and compares what both answer (see README.md).

    run.py --ours BIN --theirs BIN [--operations N] [--seed S] [--without KIND…] [--keep] [--stop-at N]

Starts both on free ports of 127.0.0.1 with empty directories. Prints each difference that `known.py` does not explain,
and at the end how often each explained one was met. Exits 0 when nothing is left unexplained.
Needs what the conformance runner needs.
"""
import argparse, asyncio, collections, json, logging, pathlib, shutil, sys, time, urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
import run as conformance  # noqa: E402
import known  # noqa: E402
from normal import Names, plain  # noqa: E402
from operations import Call, Operations, World  # noqa: E402

# Operations between two looks at what was pushed.
LOOK_EVERY = 20
# How long v2.2.5 may need to show what it has answered.
LATE_S = 4.0
# How long after its answer v2.2.5 decides who gets an event.
EVENTS_LATE_S = 0.5
# After so many operations both begin anew: v2.2.5 remembers its defects.
GENERATION = 400


def keyed(value):
    """A list of conversations by channel: a missing one must not shift the others."""
    if isinstance(value, list) and value and all(isinstance(v, dict) and "channel_id" in v and "message_id" not in v for v in value):
        return {v["channel_id"]: v for v in value}
    return value


def differences(a, b, place=""):
    """(place, ours, theirs) of all values that differ."""
    if isinstance(a, list) and isinstance(b, list) and len(a) != len(b):
        a, b = keyed(a), keyed(b)
    if isinstance(a, dict) and isinstance(b, dict):
        for k in a.keys() | b.keys():
            yield from differences(a.get(k, "<absent>"), b.get(k, "<absent>"), f"{place}.{k}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{place}[{i}]")
    elif a != b:
        yield place, a, b


class Breakdown(Exception):
    """v2.2.5 does not answer for one of its slots any more."""


class Side:
    """One of the two servers, its clients, and the ids that it gave."""

    def __init__(self, name, args, binary):
        self.name, self.names = name, Names()
        nodes = argparse.Namespace(bin=binary, nodes=1, seed=1)
        self.nodes = nodes
        self.cluster = self.play = None

    async def start(self):
        """A new server without any data."""
        # v2.2.5 keeps new conversations in memory until this interval is over, and shows them differently until then.
        config = {"WK_LOGGER_LEVEL": "2", "WK_CONVERSATION_SYNCINTERVAL": "200ms", "WK_CONVERSATION_SYNCONCE": "10000"}
        self.cluster = conformance.Cluster(self.nodes, config, conformance.Listener())
        await self.cluster.start()
        # It repeats a CONNECT for v2.2.5, which never answers one in a hundred.
        self.play = conformance.Play({"name": "differential", "steps": []}, self.cluster, self.name == "theirs")
        self.play.run = "d"

    async def stop(self, keep=False):
        if self.cluster:
            await asyncio.gather(*(c.close() for c in self.play.conns.values()) if self.play else [])
            await self.cluster.stop()
            if keep:
                print(f"kept {self.cluster.dir}")
            else:
                shutil.rmtree(self.cluster.dir, ignore_errors=True)

    async def http(self, call):
        """(status, answer): of an operation as `operations.py` makes them."""
        body = None if call.body is None else json.dumps(self.names.fill(call.body), ensure_ascii=False).encode()
        port = self.cluster.nodes[0].ports[call.port]
        headers = {"Content-Type": "application/json"} if body is not None else {}
        status, _, raw = await asyncio.to_thread(conformance.http_request, port, call.method, call.path, body, headers)
        text = raw.decode("utf-8", "replace")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        if self.name == "theirs" and status == 400 and "deadline exceeded" in text:
            raise Breakdown(text)
        self.names.learn(call, answer)
        return status, answer

    async def connect(self, call):
        await self.play.do_connect({"connect": call.client, "uid": call.uid, "device_flag": call.flag, "transport": call.transport,
                                    "tries": 4})
        return "connected"

    async def disconnect(self, call):
        conn = self.play.conns.pop(call.client)
        await conn.close()
        return [plain(conformance.plain(f)) for f in conn.inbox if not conformance.is_pong(f)]

    async def send(self, call):
        step = {"send": call.client, "channel": call.channel, "type": call.kind, "payload": call.payload,
                "client_msg_no": call.number, "client_seq": call.client_seq, "ack": None} | call.extra
        await self.play.do_send(step)
        conn, ident = self.play.conns[call.client], f"send-{call.client_seq}"
        answers = lambda f: f.get("id") == ident if conn.json else f.get("frame") == "SENDACK" and f["client_seq"] == call.client_seq
        ack = conformance.plain(await conn.take(answers, 8000, "SENDACK", lambda f: True))
        self.names.ids[call.number] = ack["message_id"]
        if self.name == "theirs" and ack["reason"] == 15:
            raise Breakdown("system error")
        return {"reason": ack["reason"], "seq": ack["seq"]}

    def pushed(self):
        """What each client has been pushed since the last look, in an order of its own."""
        out = {}
        for name, conn in sorted(self.play.conns.items()):
            frames = [plain(conformance.plain(f)) for f in conn.inbox if not conformance.is_pong(f)]
            out[name] = sorted(frames, key=lambda f: json.dumps(f, sort_keys=True))
        return out

    async def acknowledge(self):
        for name, conn in self.play.conns.items():
            frames, conn.inbox = conn.inbox, []
            for f in frames:
                f = conformance.plain(f)
                if f.get("frame") == "RECV":
                    await self.play.do_recvack({"recvack": name}, f)


class Comparison:
    def __init__(self, args):
        self.args = args
        self.ours, self.theirs = Side("ours", args, args.ours), Side("theirs", args, args.theirs)
        self.explained, self.unexplained, self.count = collections.Counter(), 0, 0
        self.kinds, self.has_events = collections.Counter(), False
        self.trace = open(args.trace, "w") if args.trace else None

    async def both(self, what):
        return await asyncio.gather(what(self.ours), what(self.theirs))

    async def begin(self, world):
        """Servers, users and channels that nothing has happened to."""
        world.renew()
        await self.both(lambda side: side.stop())
        await self.both(lambda side: side.start())

    async def play(self):
        world = World(self.args.seed)
        operations = Operations(world, set(self.args.without))
        begun = time.monotonic()
        while self.count < self.args.operations:
            if self.count % GENERATION == 0:
                await self.begin(world)
                operations = Operations(world, set(self.args.without))
            call = operations.next()
            self.count += 1
            self.kinds[call.name] += 1
            if self.trace:
                print(self.count, call, file=self.trace, flush=True)
            try:
                await self.compare(call, world)
                if self.count % LOOK_EVERY == 0:
                    await self.look()
            except Breakdown:
                self.explained[known.BREAKDOWN] += 1
                await self.begin(world)
                operations = Operations(world, set(self.args.without))
            if self.count % 500 == 0:
                rate = self.count / (time.monotonic() - begun)
                print(f"… {self.count} operations, {rate:.0f}/s, {self.unexplained} unexplained", flush=True)
            if self.unexplained >= self.args.stop_at:
                print("enough differences: stopped")
                break

    async def compare(self, call, world):
        # v2.2.5 pushes to whoever is a member, and connected, when it comes to it.
        if call.name in ("connect", "disconnect") or call.name.startswith("POST /channel") and not call.is_read:
            if self.has_events:
                await asyncio.sleep(EVENTS_LATE_S)
                self.has_events = False
            await self.look()
        self.has_events |= call.name == "POST /message/event"
        if call.is_read:
            end = time.monotonic() + LATE_S
            while True:
                ours, theirs = await self.both(lambda side: side.http(call))
                a, b = self.normal(call, ours, self.ours), self.normal(call, theirs, self.theirs)
                alike, reasons = known.mend(call, a, b, world)
                if a == alike:
                    self.explained.update(reasons)
                    return
                if time.monotonic() > end:
                    return self.differs(call, a, alike)
                await asyncio.sleep(0.1)
        try:
            ours, theirs = await self.both(lambda side: call.perform(side))
        except TimeoutError as error:  # ours never does: it answers within 5 s
            raise Breakdown from error
        except (conformance.Mismatch, OSError) as error:
            return self.differs(call, "one did not answer", str(error))
        a, b = self.normal(call, ours, self.ours), self.normal(call, theirs, self.theirs)
        alike, reasons = known.mend(call, a, b, world)
        self.explained.update(reasons)
        if a != alike:
            self.differs(call, a, alike)
        await self.settle(call, world)

    async def settle(self, call, world):
        """v2.2.5 answers an API send before it has stored it: waits until both have as many messages."""
        end = time.monotonic() + LATE_S
        for probe in call.probes:
            while time.monotonic() < end:
                ours, theirs = await self.both(lambda side: side.http(probe))
                if known.mend(probe, ours, theirs, world)[0] == ours:
                    break
                await asyncio.sleep(0.01)
            else:
                if not await self.is_lost(probe):
                    self.differs(f"after {call}", ours, theirs)
                raise Breakdown(f"{call} was not stored")
        if hasattr(call, "probe_before"):
            _, answer = await self.ours.http(call.probe_before)
            world.note_last(call, answer.get("message_seq", 0))

    async def is_lost(self, probe):
        """Whether no rule of v2.2.5 stands against storing what it has taken from a back end: only a ban could."""
        channel = urllib.parse.parse_qs(probe.path.split("?")[1])
        where = {"channel_id": channel["channel_id"][0], "channel_type": channel["channel_type"][0]}
        _, flags = await self.theirs.http(Call("flags", "GET", "/cluster/channels", query=where))
        exempt = where["channel_type"] in ("3", "6", "10", "11")
        return exempt or not any(c.get("ban") or c.get("disband") for c in flags.get("data", []))

    async def look(self):
        """Compares what was pushed, when both have pushed the same or time is up."""
        end = time.monotonic() + LATE_S
        while True:
            a, b = self.ours.pushed(), self.theirs.pushed()
            if a == b:
                break
            if time.monotonic() > end:
                for client in a:
                    mine, yours = a[client], b.get(client, [])
                    only_a, only_b = [f for f in mine if f not in yours], [f for f in yours if f not in mine]
                    reasons = known.pushes(only_a, only_b)
                    self.explained.update(reasons)
                    if mine != yours and not reasons:
                        self.differs(f"pushed to {client}", only_a, only_b)
                break
            await asyncio.sleep(0.02)
        await self.both(lambda side: side.acknowledge())

    def normal(self, call, answer, side):
        return call.shape(side.names.normal(answer))

    def differs(self, call, a, b):
        self.unexplained += 1
        print(f"operation {self.count} of seed {self.args.seed}: {call}", flush=True)
        for place, mine, yours in list(differences(a, b))[:4]:
            print(f"  at {place or 'the top'}\n    ours   {conformance.short(mine, 400)}\n    theirs {conformance.short(yours, 400)}", flush=True)

    async def end(self):
        await self.both(lambda side: side.stop(self.args.keep))


async def main(args):
    comparison = Comparison(args)
    try:
        await comparison.play()
    finally:
        await comparison.end()
    for name, n in sorted(comparison.kinds.items()):
        print(f"{n:6} {name}")
    for reason, n in comparison.explained.most_common():
        print(f"explained {n:6}: {reason}")
    print(f"{comparison.count} operations, seed {args.seed}: {sum(comparison.explained.values())} explained differences, {comparison.unexplained} unexplained")
    return 1 if comparison.unexplained else 0


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", required=True, help="the binary of Jindou")
    p.add_argument("--theirs", required=True, help="the binary of WuKongIM v2.2.5")
    p.add_argument("--operations", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=1, help="another seed plays other operations")
    p.add_argument("--stop-at", type=int, default=20, metavar="N", help="stop at this many unexplained differences")
    p.add_argument("--without", nargs="*", default=[], metavar="KIND", help="leave out operations of this kind: the names of the methods of Operations")
    p.add_argument("--trace", metavar="FILE", help="write every operation to this file")
    p.add_argument("--keep", action="store_true", help="keep the servers' directories")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(main(p.parse_args())))
