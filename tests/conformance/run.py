#!/usr/bin/env python3
"""Plays conformance scenarios (see README.md) against a WuKongIM v2.2.5 compatible server.

    run.py --bin PATH [--list FILE] [--nodes 1|3|5] [--seed S] [--peer] [--keep] [--jobs N] [-v] [-k WORD] [FILE…]

Starts one server per configuration on free ports of 127.0.0.1, plays scenarios that share it side by side, prints the
first mismatch of each that fails. Exits 0 when all hold. With JINDOU_TEST_DRIVER the servers run on that I/O driver.
Needs: Python 3.11, cryptography, websockets.
"""
import argparse, asyncio, base64, fcntl, hashlib, http.client, http.server, itertools, json, logging, os, pathlib, random, re
import shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time, urllib.parse
import websockets
from websockets.asyncio.client import connect as ws_connect
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HERE = pathlib.Path(__file__).resolve().parent
FRAMES = {1: "CONNECT", 2: "CONNACK", 3: "SEND", 4: "SENDACK", 5: "RECV", 6: "RECVACK", 7: "PING", 8: "PONG",
          9: "DISCONNECT", 10: "SUB", 11: "SUBACK", 12: "EVENT"}
FLAGS = {"no_persist": 1, "red_dot": 2, "sync_once": 4, "dup": 8}
RPC_FLAGS = {"no_persist": "noPersist", "red_dot": "redDot", "sync_once": "syncOnce", "dup": "dup"}
RPC_SETTING = {"receipt": 0x80, "signal": 0x20, "topic": 0x08, "stream": 0x02}


class Mismatch(Exception):
    """A step that did not hold."""


# ---- patterns ---------------------------------------------------------------------------------------------------

def short(v, n=600):
    s = v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=repr)
    return s if len(s) <= n else s[:n] + f"… ({len(s)} characters)"


def holds(*args):
    try:
        match(*args)
        return True
    except Mismatch:
        return False


def match(want, got, env, at="", subset=False):
    """Raises Mismatch at the first place where `got` is not what the pattern `want` says."""
    def check(ok, text):
        if not ok:
            raise Mismatch(f"at {at or 'the top'}: {text}")
    op = next((k for k in want if k.startswith("$")), None) if isinstance(want, dict) else None
    if op:
        arg, wrong = want[op], f"expected {short(want)}, got {short(got)}"
        if op == "$subset":
            match(arg, got, env, at, True)
        elif op == "$len":
            check(hasattr(got, "__len__") and len(got) == arg, wrong)
        elif op == "$hex":
            check((got.encode() if isinstance(got, str) else got).hex() == arg, f"expected bytes {arg}, got {short(got)}")
        elif op == "$b64":
            try:
                text = base64.b64decode(got, validate=True).decode("utf-8", "replace")
            except (TypeError, ValueError):
                raise Mismatch(f"at {at}: expected base64, got {short(got)}") from None
            match(arg, as_pattern_type(arg, text), env, at + "(b64)")
        elif op == "$any_of":
            check(any(holds(w, got, env, at, subset) for w in arg), wrong)
        elif op == "$contains":
            check(isinstance(got, list) and any(holds(arg, g, env) for g in got), wrong)
        elif op == "$unordered":
            check(isinstance(got, list) and len(got) == len(arg), wrong)
            rest = list(got)
            for w in arg:
                i = next((i for i, g in enumerate(rest) if holds(w, g, env)), None)
                check(i is not None, f"no element like {short(w)} in {short(rest)}")
                del rest[i]
        else:
            raise Mismatch(f"unknown pattern {op}")
    elif isinstance(want, dict):
        check(isinstance(got, dict), f"expected an object {short(want)}, got {short(got)}")
        for k, w in want.items():
            if isinstance(w, dict) and w.get("$absent"):
                check(k not in got, f"unexpected key {k!r} = {short(got.get(k))}")
            else:
                check(k in got, f"missing key {k!r} in {short(got)}")
                match(w, as_pattern_type(w, got[k]) if k in ("payload", "data") else got[k], env, f"{at}.{k}", subset)
        extra = [k for k in got if k not in want]
        check(subset or not extra, f"unexpected keys {extra} in {short(got)}")
    elif isinstance(want, list):
        check(isinstance(got, list) and len(want) == len(got), f"expected {short(want)}, got {short(got)}")
        for i, (w, g) in enumerate(zip(want, got)):
            match(w, g, env, f"{at}[{i}]", subset)
    elif isinstance(want, str) and (m := re.fullmatch(r"<(any|int|int\+|str|str\+|ts|capture:(\w+)|re:(.*))>", want, re.S)):
        number = isinstance(got, int) and not isinstance(got, bool)
        check({"int": number, "int+": number and got > 0, "str": isinstance(got, str), "str+": isinstance(got, str) and got,
               "ts": number and any(abs(got / u - time.time()) < 60 for u in (1, 1e3, 1e6, 1e9))}.get(m[1], True), f"expected {want}, got {short(got)}")
        check(m[3] is None or re.search(m[3], got if isinstance(got, str) else json.dumps(got)), f"expected to match /{m[3]}/, got {short(got)}")
        if m[2]:
            env[m[2]] = got
    else:
        got = got.decode("utf-8", "replace") if isinstance(got, bytes) else got
        check(want == got and isinstance(want, bool) == isinstance(got, bool), f"expected {short(want)}, got {short(got)}")


def as_pattern_type(want, got):
    """A payload is text; it is compared as JSON when the pattern is an object or a list."""
    text = got.decode("utf-8", "replace") if isinstance(got, bytes) else got
    plain = isinstance(want, list) or isinstance(want, dict) and not any(k in want for k in ("$b64", "$hex"))
    if plain and isinstance(text, str):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return got


def fill(v, env):
    """Replaces ${name} in every string; a string that is just ${name} takes the captured value's own type."""
    if isinstance(v, str):
        if m := re.fullmatch(r"\$\{(\w+)\}", v):
            return env.get(m[1], v)
        return re.sub(r"\$\{(\w+)\}", lambda m: str(env.get(m[1], m[0])), v)
    if isinstance(v, dict):
        return {fill(k, env): fill(x, env) for k, x in v.items()}
    return [fill(x, env) for x in v] if isinstance(v, list) else v


# ---- WKProto ----------------------------------------------------------------------------------------------------

def pstr(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack(">H", len(b)) + b


def frame(kind, flags, body):
    out, n = bytearray([kind << 4 | flags]), len(body)
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out) + body


class Crypto:
    def __init__(self, secret, salt):
        self.key = hashlib.md5(base64.b64encode(secret)).hexdigest()[:16].encode()
        self.iv = salt.encode()[:16]

    def cipher(self):
        return Cipher(algorithms.AES(self.key), modes.CBC(self.iv))

    def seal(self, plain):
        pad, enc = padding.PKCS7(128).padder(), self.cipher().encryptor()
        return base64.b64encode(enc.update(pad.update(plain) + pad.finalize()) + enc.finalize())

    def open(self, text):
        unpad, dec = padding.PKCS7(128).unpadder(), self.cipher().decryptor()
        return unpad.update(dec.update(base64.b64decode(text)) + dec.finalize()) + unpad.finalize()

    def msg_key(self, *parts):
        return hashlib.md5(self.seal(b"".join(p if isinstance(p, bytes) else str(p).encode() for p in parts))).hexdigest()


LAYOUT = {  # of the frames that a server sends; B q I … as in struct, s a string, * the rest; which of those with ? are there: see decode
    2: "server_version:B? time_diff:q reason:B server_key:s salt:s node_id:Q?",
    4: "message_id:q client_seq:I seq:I reason:B",
    5: "setting:B msg_key:s from:s channel:s type:B expire:I? client_msg_no:s stream_flag:B? stream_no:s? stream_id:Q? "
       "message_id:q seq:I timestamp:i topic:s? wire_payload:*",
    8: "", 9: "reason:B text:s", 12: "id:s type:s timestamp:q data:*"}


def decode(kind, flags, body, version, crypto):
    f, p = {"frame": FRAMES.get(kind, str(kind))}, 0
    f |= {"has_server_version": bool(flags & 1)} if kind == 2 else {k: bool(flags & m) for k, m in FLAGS.items()}
    for name, fmt in (x.split(":") for x in LAYOUT.get(kind, "body:*").split()):
        there = {"server_version": flags & 1, "node_id": p < len(body), "expire": version >= 3, "topic": f.get("setting", 0) & 8}
        if fmt[1:] and not there.get(name, 2 <= version < 5 and f.get("setting", 0) & 2):
            continue
        if fmt[0] in "s*":
            n = len(body) - p if fmt == "*" else struct.unpack_from(">H", body, p)[0]
            p += 0 if fmt == "*" else 2
            if p + n > len(body):
                raise ValueError("string runs past the frame")
            f[name] = body[p:p + n] if name == "wire_payload" else body[p:p + n].decode("utf-8", "replace")
            p += n
        else:
            f[name], = struct.unpack_from(">" + fmt[0], body, p)
            p += struct.calcsize(">" + fmt[0])
    if p < len(body):
        f["extra"] = body[p:].hex()
    if kind == 5:
        f["payload"] = crypto.open(f["wire_payload"]) if crypto and f["wire_payload"] else f["wire_payload"]
        signed = [f[k] for k in ("message_id", "seq", "client_msg_no", "timestamp", "from", "channel", "type", "wire_payload")]
        if crypto and f["msg_key"] != crypto.msg_key(*signed):
            raise ValueError("the msgKey of this RECV does not match its fields")
    return f


class Conn:
    """One client connection: binary over TCP or WS, JSON-RPC over WS or TCP, or bytes as they come."""

    def __init__(self, name, transport):
        self.name, self.transport, self.json = name, transport, transport.startswith("json")
        self.inbox, self.news, self.closed, self.buf, self.held = [], asyncio.Event(), False, b"", b""
        self.version, self.crypto, self.ids = 5, None, itertools.count(1)
        self.ws = self.writer = self.task = self.private = self.node = None
        self.fresh = True  # no CONNECT was sent on it

    async def open(self, host, port, path="/", headers=None):
        if self.transport in ("ws", "json"):
            self.ws = await ws_connect(f"ws://{host}:{port}{path}", max_size=None, ping_interval=None, compression=None,
                                       proxy=None, close_timeout=0.2, additional_headers=headers)
        else:
            self.reader, self.writer = await asyncio.open_connection(host, port)
        self.task = asyncio.create_task(self.read())

    async def read(self):
        try:
            while True:
                if self.ws:
                    m = await self.ws.recv()
                    if self.json:
                        self.put(json.loads(m))
                        continue
                    if isinstance(m, str):
                        self.put({"frame": "text", "text": m})
                        continue
                else:
                    m = await self.reader.read(65536)
                    if not m:
                        break
                if self.transport == "bytes":
                    self.put({"frame": "bytes", "hex": m.hex(), "text": m.decode("utf-8", "replace")})
                    continue
                self.buf += m
                self.cut_json() if self.json else self.cut()
        except (websockets.ConnectionClosed, OSError, asyncio.IncompleteReadError):
            pass
        except Exception as e:
            self.put({"frame": "undecodable", "error": str(e)})
        self.closed = True
        self.news.set()

    def cut_json(self):
        while self.buf:
            try:
                v, n = json.JSONDecoder().raw_decode(self.buf.decode())
            except ValueError:
                return
            self.put(v)
            self.buf = self.buf.decode()[n:].lstrip().encode()

    def cut(self):
        while self.buf:
            kind, flags = self.buf[0] >> 4, self.buf[0] & 15
            p, n, shift = 1, 0, 0
            while kind not in (7, 8):
                if p >= len(self.buf):
                    return
                x = self.buf[p]
                n, shift, p = n | (x & 127) << shift, shift + 7, p + 1
                if not x & 128:
                    break
            if len(self.buf) < p + n:
                return
            body, self.buf = self.buf[p:p + n], self.buf[p + n:]
            f = decode(kind, flags, body, self.version, self.crypto)
            if kind == 2 and f["reason"] == 1 and f["server_key"] and self.private:
                self.crypto = Crypto(self.private.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(f["server_key"]))), f["salt"])
            self.put(f)

    def put(self, f):
        self.inbox.append(f)
        self.news.set()

    async def write(self, data, split=False, hold=False):
        if hold:
            self.held += data.encode() if isinstance(data, str) else data
            return
        if self.held:
            data, self.held = self.held + (data.encode() if isinstance(data, str) else data), b""
            data = data.decode() if self.json else data
        try:
            for piece in [data[i:i + 1] for i in range(len(data))] if split else [data]:
                if self.ws:
                    await self.ws.send(piece)
                else:
                    self.writer.write(piece.encode() if isinstance(piece, str) else piece)
                    await self.writer.drain()
                if split:
                    await asyncio.sleep(0.001)
        except (websockets.ConnectionClosed, OSError):
            pass

    async def take(self, pick, ms, what, passing=lambda f: False):
        """Removes and returns the first frame for which `pick` holds; frames it passes over must satisfy `passing`."""
        end = time.monotonic() + ms / 1000
        while True:
            for i, f in enumerate(self.inbox):
                if pick(f):
                    return self.inbox.pop(i)
                if not passing(f):
                    raise Mismatch(f"{self.name} expected {what}, got {short(f)}")
            left = end - time.monotonic()
            if self.closed or left <= 0:
                seen = f"; passed over {short(self.inbox)}" if self.inbox else ""
                raise Mismatch(f"{self.name} expected {what}, {'the server closed the connection' if self.closed else f'nothing came in {ms} ms'}{seen}")
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except TimeoutError:
                pass

    async def close(self):
        if self.ws:
            await self.ws.close()
        elif self.writer:
            self.writer.close()
        if self.task:
            self.task.cancel()


def is_pong(f):
    return f.get("frame") == "PONG"


def plain(f):
    """A JSON-RPC object as the fields that the binary frames have."""
    if "frame" in f or not isinstance(f, dict):
        return f
    p = f.get("params") or f.get("result") or {}
    p = p if isinstance(p, dict) else {}
    head = p.get("header") or {}
    out = {"frame": {"recv": "RECV", "disconnect": "DISCONNECT", "event": "EVENT"}.get(f.get("method"), "reply")}
    out |= {k: bool(head.get(v)) for k, v in RPC_FLAGS.items()}
    if out["frame"] == "RECV":
        out |= {"setting": sum(m for k, m in RPC_SETTING.items() if (p.get("setting") or {}).get(k)), "from": p.get("fromUid"), "channel": p.get("channelId"),
                "type": p.get("channelType"), "expire": p.get("expire", 0), "client_msg_no": p.get("clientMsgNo", ""), "message_id": int(p.get("messageId", 0)),
                "seq": p.get("messageSeq"), "timestamp": p.get("timestamp"), "payload": base64.b64decode(p.get("payload") or "")}
        out |= {"topic": p["topic"]} if "topic" in p else {}
    elif out["frame"] == "DISCONNECT":
        out |= {"reason": p.get("reasonCode"), "text": p.get("reason", "")}
    elif out["frame"] == "EVENT":
        out |= {k: p.get(k) for k in ("id", "type", "timestamp", "data")}
    elif "error" in f:
        out |= {"reason": f["error"].get("code"), "text": f["error"].get("message")}
    else:
        out |= {"reason": p.get("reasonCode"), "message_id": int(p.get("messageId", 0)), "seq": p.get("messageSeq"),
                "server_version": p.get("serverVersion", 0), "server_key": p.get("serverKey", ""), "salt": p.get("salt", ""),
                "time_diff": p.get("timeDiff", 0), "node_id": p.get("nodeId")}
    return out


# ---- the server and what listens for it -----------------------------------------------------------------------

class Listener:
    """Loopback HTTP: /hook takes webhooks, /data answers the datasource."""

    def __init__(self):
        self.hooks, self.asked, self.replies, self.fail = [], [], {}, 0
        own = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                raw, url = self.rfile.read(int(self.headers.get("content-length", 0))), urllib.parse.urlsplit(self.path)
                try:
                    body = json.loads(raw)
                except ValueError:
                    body = raw.decode("utf-8", "replace")
                status, out = 200, b""
                if url.path == "/hook":
                    status, own.fail = (500, own.fail - 1) if own.fail > 0 else (200, 0)
                    own.hooks.append((urllib.parse.parse_qs(url.query).get("event", [""])[0], body))
                else:
                    own.asked.append(body)
                    cmd = body.get("cmd") if isinstance(body, dict) else None
                    status, out = (200, json.dumps(own.replies[cmd]).encode()) if cmd in own.replies else (500, b"")
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def log_message(self, *args):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


PORTS = ("tcp", "ws", "api", "manager", "demo", "cluster")


def reserve_ports():
    """A block of free ports below the range of outgoing connections, locked against other runners and the Rust tests."""
    folder = pathlib.Path(tempfile.gettempdir(), "jindou-test-ports")
    folder.mkdir(exist_ok=True)
    for block in random.sample(range(2000), 2000):
        lock, first = open(folder / f"{block}.lock", "w"), 12000 + 8 * block
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for p in range(first, first + len(PORTS)):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
        except OSError:
            lock.close()
            continue
        return lock, dict(zip(PORTS, range(first, first + len(PORTS))))
    raise Mismatch("no free block of ports")


class Node:
    """One server process: the node with this place in the cluster, counted from 0."""

    def __init__(self, args, place, folder, config, blocks):
        init = [f"{1001 + i}@127.0.0.1:{b['cluster']}" for i, (_, b) in enumerate(blocks)]
        self.lock, self.ports = blocks[place]
        self.bin, self.name, self.dir, self.proc = os.path.abspath(args.bin), f"node {1001 + place}", f"{folder}/n{place + 1}", None
        at = {k: f"127.0.0.1:{p}" for k, p in self.ports.items()}
        several = {"WK_CLUSTER_INITNODES": " ".join(init), "WK_CLUSTER_SLOTREPLICACOUNT": str(args.nodes), "WK_CLUSTER_CHANNELREPLICACOUNT": str(args.nodes)}
        driver = {"WK_DRIVER": d} if (d := os.environ.get("JINDOU_TEST_DRIVER")) else {}
        self.env = driver | (several if args.nodes > 1 else {}) | {
            "WK_MODE": "release", "WK_ROOTDIR": self.dir, "WK_DATADIR": self.dir, "WK_LOGGER_DIR": self.dir + "/logs", "WK_LOGGER_LEVEL": "3",
            "WK_EXTERNAL_IP": "127.0.0.1", "WK_EXTERNAL_TCPADDR": at["tcp"], "WK_EXTERNAL_WSADDR": "ws://" + at["ws"],
            "WK_ADDR": "tcp://" + at["tcp"], "WK_HTTPADDR": at["api"], "WK_WSADDR": "ws://" + at["ws"], "WK_MANAGER_ADDR": at["manager"],
            "WK_DEMO_ADDR": at["demo"], "WK_CLUSTER_NODEID": str(1001 + place), "WK_CLUSTER_ADDR": "tcp://" + at["cluster"],
            "WK_PLUGIN_SOCKETPATH": self.dir + "/plugin.sock", "WK_CLUSTER_SERVERADDR": at["cluster"], "WK_CLUSTER_APIURL": "http://" + at["api"]} | config

    def launch(self):
        os.makedirs(self.dir, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith("WK_")} | self.env
        with open(self.dir + "/out.log", "ab") as out:
            self.proc = subprocess.Popen([self.bin], cwd=self.dir, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    async def wait(self, end):
        while time.monotonic() < end and self.alive():
            if await self.ready():
                return
            await asyncio.sleep(0.1)
        raise Mismatch(f"{self.name} did not become ready; its output is in {self.dir}/out.log")

    async def ready(self):
        """Answers /health, every slot has a leader and every node its API address (v2.2.5 answers before), and takes a CONNECT."""
        token = {"token": self.env["WK_MANAGERTOKEN"]} if "WK_MANAGERTOKEN" in self.env else {}
        try:
            if (await asyncio.to_thread(http_request, self.ports["api"], "GET", "/health", None, token))[0] != 200:
                return False
            for slot in range(64):
                status, _, raw = await asyncio.to_thread(http_request, self.ports["api"], "GET", f"/cluster/slots/{slot}/localReplica", None, token)
                if status == 400 or status == 200 and not json.loads(raw).get("leader_id"):
                    return False
            status, _, raw = await asyncio.to_thread(http_request, self.ports["api"], "GET", "/cluster/nodes", None, token)
            if status == 200 and not all(n.get("api_server_addr") for n in json.loads(raw)["data"]):
                return False
            c = Conn("probe", "tcp")
            await c.open("127.0.0.1", self.ports["tcp"])
            await c.write(connect_frame(c, {"uid": f"probe{self.ports['tcp']}___vstr", "device_id": "probe"}))
            try:
                await c.take(lambda f: f["frame"] == "CONNACK", 1500, "CONNACK")
            finally:
                await c.close()
            return True
        except (OSError, Mismatch, ValueError, http.client.HTTPException):
            return False

    def alive(self):
        return self.proc is not None and self.proc.poll() is None

    async def stop(self, sig):
        if self.alive():
            self.proc.send_signal(sig)
            try:
                await asyncio.to_thread(self.proc.wait, 20)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                await asyncio.to_thread(self.proc.wait)


class Cluster:
    """The nodes (one or several) that serve a configuration, and what they call."""

    def __init__(self, args, config, listener):
        self.dir, self.seed, self.listener = tempfile.mkdtemp(prefix="conformance-"), args.seed, listener
        blocks = [reserve_ports() for _ in range(args.nodes)]
        self.nodes = [Node(args, i, self.dir, config, blocks) for i in range(args.nodes)]

    def pick(self, *what):
        """A node for this step: spread over all of them, the same one for the same seed."""
        h = hashlib.sha256(repr((*what, self.seed)).encode()).digest()
        return self.nodes[int.from_bytes(h[:4]) % len(self.nodes)]

    async def start(self):
        await self.stop()
        for n in self.nodes:
            n.launch()
        end = time.monotonic() + (30 if len(self.nodes) == 1 else 90)
        await asyncio.gather(*(n.wait(end) for n in self.nodes))

    def alive(self):
        return all(n.alive() for n in self.nodes)

    def ended(self):
        """Which nodes are not running, and what they said of it."""
        dead = [(n.name, pathlib.Path(n.dir, "out.log").read_text(errors="replace")) for n in self.nodes if not n.alive()]
        last = [(name, re.findall(r"^(?:panic:|fatal error:|thread .* panicked).*$", out, re.M)[-1:]) for name, out in dead]
        return short("; ".join(f"the process of {name} ended {' '.join(words)}" for name, words in last))

    async def stop(self, sig=signal.SIGTERM):
        await asyncio.gather(*(n.stop(sig) for n in self.nodes))


def http_request(port, method, path, body, headers):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        c.request(method, path, body, headers)
        r = c.getresponse()
        return r.status, r.getheaders(), r.read()
    finally:
        c.close()


def connect_frame(c, s):
    c.version, c.private = s.get("version", 5), X25519PrivateKey.generate()
    key = s.get("client_key", base64.b64encode(c.private.public_key().public_bytes_raw()).decode())
    body = struct.pack(">BB", c.version, s.get("device_flag", 0)) + pstr(s.get("device_id", "d-" + c.name)) + pstr(s["uid"]) + pstr(s.get("token", ""))
    c.version = min(c.version, 5)
    return frame(1, 0, body + struct.pack(">q", int(time.time() * 1000)) + pstr(key))


# ---- playing a scenario ---------------------------------------------------------------------------------------

# What only reads, and so may be asked again: v2.2.5's nodes see one another's writes late.
READS = re.compile(r"GET |POST /(channel/messagesync|conversation/(sync|syncByChannels|syncMessages|channels)|message|messages|message/(sync|eventsync)|"
                   r"user/onlinestatus|cluster/channel/status|cluster/message/eventsync)$")


class Play:
    def __init__(self, scenario, server, peer):
        self.sc, self.server, self.peer, self.node = scenario, server, peer, server.nodes[0]
        self.run = "".join(random.choices("abcdefghijkmnpqrstuvwxyz23456789", k=6))
        ports = {f"{k}_port": "|".join(str(n.ports[k]) for n in server.nodes) for k in PORTS}
        self.env, self.conns, self.hooks_seen, self.sends = {"run": self.run} | ports, {}, set(), itertools.count(1)
        self.hook_from = len(server.listener.hooks)

    async def all(self):
        """None when every step holds, else what differs."""
        i, step = 0, {}
        try:
            for i, step in enumerate(self.sc["steps"], 1):
                own = {k: v for k, v in step.items() if k not in ("peer", "why")}
                s = fill(own | step.get("peer", {}) if self.peer else own, self.env)
                if s.get("skip"):
                    continue
                self.node = self.conns[s["at"]].node if "at" in s else self.server.pick(self.sc["name"], i)
                await getattr(self, "do_" + next(k for k in s if k != "skip"))(s)
                if not self.server.alive():
                    raise Mismatch(self.server.ended())
        except Exception as e:
            where = f" at {self.node.name}" if len(self.server.nodes) > 1 and step.keys() & {"http", "connect", "open"} else ""
            return f"step {i}{where} {short(step, 300)}\n    {'' if isinstance(e, Mismatch) else type(e).__name__ + ': '}{e}"
        finally:
            for c in self.conns.values():
                await c.close()

    # -- HTTP and what the server calls

    async def do_http(self, s):
        method, path = s["http"].split(" ", 1)
        if "query" in s:
            path += "?" + urllib.parse.urlencode(s["query"], doseq=True)
        body = json.dumps(s["json"], ensure_ascii=False).encode() if "json" in s else s["raw"].encode() if "raw" in s else None
        headers = ({"Content-Type": "application/json"} if "json" in s else {}) | s.get("headers", {})
        late = self.peer and len(self.server.nodes) > 1 and READS.match(s["http"])
        end = time.monotonic() + max(s.get("retry_ms", 0), 3000 if late else 0) / 1000
        while True:
            try:
                status, heads, raw = await asyncio.to_thread(http_request, self.node.ports[s.get("port", "api")], method, path, body, headers)
                text = raw.decode("utf-8", "replace")
                if status != s.get("status", 200):
                    raise Mismatch(f"expected HTTP {s.get('status', 200)}, got {status} {short(text)}")
                heads = {k.lower(): v for k, v in heads}
                if "content_type" in s:
                    match(s["content_type"], heads.get("content-type", ""), self.env, "content-type")
                for k, v in s.get("answer_headers", {}).items():
                    match(v, heads.get(k.lower()), self.env, k)
                if "body" in s:
                    try:
                        got = json.loads(text)
                    except ValueError:
                        got = text
                    match(s["body"], got, self.env, "body")
                return
            except Mismatch:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(0.1)

    def my_hooks(self, event):
        """(key, body) of the POSTs of this event that concern this scenario: those that hold its run id; of a list only such elements."""
        for i, (name, body) in enumerate(self.server.listener.hooks[self.hook_from:]):
            if name == event:
                mine = [x for x in body if self.run in json.dumps(x)] if isinstance(body, list) else body if self.run in json.dumps(body) else None
                if mine:
                    yield i, mine

    async def do_hook(self, s):
        end, ms = time.monotonic() + s.get("within_ms", 3000) / 1000, s.get("within_ms", 3000)
        while True:
            last = None
            for i, body in self.my_hooks(s["hook"]):
                for key, part in [((i, j), x) for j, x in enumerate(body)] if "item" in s and isinstance(body, list) else [((i, None), body)]:
                    if key in self.hooks_seen:
                        continue
                    try:
                        match(s.get("item", s.get("body", "<any>")), part, self.env, "hook")
                    except Mismatch as e:
                        last = last or e
                        continue
                    if s.get("absent"):
                        raise Mismatch(f"unexpected {s['hook']}: {short(part)}")
                    self.hooks_seen.add(key)
                    return
            left = end - time.monotonic()
            if left <= 0:
                if s.get("absent"):
                    return
                raise last or Mismatch(f"no {s['hook']} in {ms} ms")
            await asyncio.sleep(0.05)

    async def do_asked(self, s):
        end, last = time.monotonic() + s.get("within_ms", 3000) / 1000, None
        while time.monotonic() < end:
            for b in self.server.listener.asked:
                if isinstance(b, dict) and b.get("cmd") == s["asked"]:
                    try:
                        return match(s.get("body", "<any>"), b, self.env, "asked")
                    except Mismatch as e:
                        last = e
            await asyncio.sleep(0.05)
        raise last or Mismatch(f"the datasource was not asked for {s['asked']}")

    # -- connections

    async def do_open(self, s):
        name, transport = s.get("open") or s["connect"], s.get("transport", "tcp")
        if name in self.conns:
            await self.conns[name].close()
        c = self.conns[name] = Conn(name, transport)
        c.node = self.node
        await c.open("127.0.0.1", c.node.ports[s.get("port", "ws" if transport in ("ws", "json") else "tcp")], s.get("path", "/"), s.get("headers"))
        return c

    async def do_connect(self, s):
        c, own = self.conns.get(s["connect"]), False
        if c is None or not c.fresh:
            c, own = await self.do_open(s), True
        c.fresh = False
        if c.json:
            p = {"uid": s["uid"], "deviceId": s.get("device_id", "d-" + c.name), "deviceFlag": s.get("device_flag", 0), "clientTimestamp": int(time.time() * 1000)}
            data = json.dumps({"jsonrpc": "2.0", "method": "connect", "id": "connect", "params": p | {k: s[k] for k in ("token", "version") if k in s}})
        else:
            data = connect_frame(c, s)
        await c.write(data, s.get("split", False), s.get("hold", False))
        expect, ms = s.get("expect", {"reason": 1}), s.get("within_ms", 5000)
        if s.get("hold") or expect is None:
            return
        if expect == "closed":
            return await self.do_closed({"closed": s["connect"], "within_ms": s.get("within_ms", 8000)})
        again = self.peer and own and s.get("tries", 4) > 1  # v2.2.5 never answers one CONNECT in a hundred
        try:
            f = await c.take(lambda f: f.get("frame") == "CONNACK" or c.json and f.get("id") == "connect", 1500 if again else ms, "CONNACK")
        except Mismatch:
            if not again or c.inbox:
                raise
            c.fresh = False
            return await self.do_connect(s | {"tries": s.get("tries", 4) - 1})
        match(expect, plain(f), self.env, "CONNACK", True)

    async def do_send(self, s):
        c = self.conns[s["send"]]
        n = s.get("client_seq", next(self.sends))
        no = s.get("client_msg_no", f"{self.run}-{n}")
        payload = s.get("payload", "hello")
        payload = bytes.fromhex(payload["$hex"]) if isinstance(payload, dict) and "$hex" in payload \
            else payload.encode() if isinstance(payload, str) else json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
        setting = s.get("setting", 0) | (8 if "topic" in s else 0)
        flags = {k: s.get(k, k == "red_dot") for k in FLAGS}
        if c.json:
            p = {"channelId": s["channel"], "channelType": s.get("type", 1), "payload": base64.b64encode(payload).decode(), "clientMsgNo": no}
            p |= {"header": h} if (h := {v: True for k, v in RPC_FLAGS.items() if flags[k]}) else {}
            p |= {"setting": h} if (h := {k: True for k, m in RPC_SETTING.items() if setting & m}) else {}
            p |= {k: s[k] for k in ("topic", "expire") if k in s}
            ident = f"send-{n}"
            data, pick = json.dumps({"jsonrpc": "2.0", "method": "send", "id": ident, "params": p}), lambda f: f.get("id") == ident
        else:
            wire = c.crypto.seal(payload) if c.crypto else payload
            wire = s["wire_payload"].encode() if "wire_payload" in s else wire
            key = c.crypto.msg_key(n, no, s["channel"], s.get("type", 1), wire) if c.crypto else ""
            body = struct.pack(">BI", setting, n) + pstr(no)
            body += pstr(s.get("stream_no", "")) if 2 <= c.version < 5 and setting & 2 else b""
            body += pstr(s["channel"]) + bytes([s.get("type", 1)]) + (struct.pack(">I", s.get("expire", 0)) if c.version >= 3 else b"")
            body += pstr(s.get("msg_key", key)) + (pstr(s["topic"]) if "topic" in s else b"")
            data, pick = frame(3, sum(m for k, m in FLAGS.items() if flags[k]), body + wire), lambda f: f.get("frame") == "SENDACK" and f["client_seq"] == n
        await c.write(data, s.get("split", False), s.get("hold", False))
        ack = s.get("ack", {"reason": 1})
        if ack is None or s.get("hold"):
            return
        f = await c.take(pick, s.get("within_ms", 5000), f"SENDACK for client_seq {n}", lambda f: is_pong(f) or plain(f)["frame"] == "RECV")
        match(ack, plain(f), self.env, "SENDACK", True)

    async def next(self, s, name, kind, pattern, passing=is_pong):
        c = self.conns[name]
        f = await c.take(lambda f: plain(f)["frame"] == kind, s.get("within_ms", 2000), kind, passing)
        match(pattern, plain(f), self.env, kind, True)
        return c, f

    async def do_recv(self, s):
        c, ok = self.conns[s["recv"]], lambda f: True
        if s.get("any_order"):
            ok = lambda f: holds(s.get("match", {}), plain(f), dict(self.env), "", True)
        f = await c.take(lambda f: plain(f)["frame"] == "RECV" and ok(f), s.get("within_ms", 2000), f"RECV {short(s.get('match', {}))}" if s.get("any_order") else "RECV",
                         lambda f: is_pong(f) or s.get("any_order") and plain(f)["frame"] in ("RECV", "SENDACK"))
        match(s.get("match", {}), plain(f), self.env, "RECV", True)
        if s.get("ack", True):
            await self.do_recvack({"recvack": s["recv"]}, plain(f))

    async def do_recvack(self, s, f=None):
        c = self.conns[s["recvack"]]
        f = {k: bool((f or s).get(k)) for k in FLAGS} | {k: (f or s)[k] for k in ("message_id", "seq")}
        if c.json:
            h = {v: True for k, v in RPC_FLAGS.items() if f[k]}
            await c.write(json.dumps({"jsonrpc": "2.0", "method": "recvack", "params": {"header": h, "messageId": str(f["message_id"]), "messageSeq": f["seq"]}}))
        else:
            await c.write(frame(6, sum(m for k, m in FLAGS.items() if f[k]), struct.pack(">qI", f["message_id"], f["seq"])))

    async def do_ack(self, s):
        await self.next(s, s["ack"], "reply" if self.conns[s["ack"]].json else "SENDACK", s.get("match", {}), lambda f: is_pong(f) or plain(f)["frame"] == "RECV")

    async def do_event(self, s):
        await self.next(s, s["event"], "EVENT", s.get("match", {}))

    async def do_disconnect(self, s):
        await self.next(s, s["disconnect"], "DISCONNECT", s.get("match", {}))

    async def do_frame(self, s):
        """The next frame, whatever it is: binary fields as decoded, or the JSON-RPC object as it is."""
        f = await self.conns[s["frame"]].take(lambda f: True, s.get("within_ms", 2000), "a frame")
        match(s.get("match", {}), f, self.env, "frame", "frame" in f)

    async def do_none(self, s):
        c = self.conns[s["none"]]
        await asyncio.sleep(s.get("ms", 300) / 1000)
        if bad := [f for f in c.inbox if not is_pong(f)]:
            raise Mismatch(f"{c.name} expected nothing, got {short(bad)}")
        if c.closed and not s.get("closed_ok"):
            raise Mismatch(f"{c.name}: the server closed the connection")

    async def do_ping(self, s):
        c = self.conns[s["ping"]]
        if c.json:
            ident = f"ping-{next(c.ids)}"
            await c.write(json.dumps({"jsonrpc": "2.0", "method": "ping", "id": ident, "params": {}}))
            await c.take(lambda f: f.get("id") == ident and "error" not in f, s.get("within_ms", 2000), "a reply to ping", lambda f: True)
        else:
            await c.write(bytes([0x70]))
            await c.take(is_pong, s.get("within_ms", 2000), "PONG", lambda f: True)

    async def do_raw(self, s):
        data = s["text"] if "text" in s else bytes.fromhex(s["hex"].replace(" ", "")) * s.get("times", 1)
        if "ws" in s:  # one WebSocket frame made by hand, masked with zeros
            data, mask = data.encode() if isinstance(data, str) else data, 128 if s.get("mask", True) else 0
            size = bytes([mask | len(data)]) if len(data) < 126 else bytes([mask | 126]) + struct.pack(">H", len(data))
            data = bytes([s["ws"] | (128 if s.get("fin", True) else 0)]) + size + (bytes(4) if mask else b"") + data
        await self.conns[s["raw"]].write(data, s.get("split", False), s.get("hold", False))

    async def do_close(self, s):
        await self.conns[s["close"]].close()

    async def do_closed(self, s):
        c, end = self.conns[s["closed"]], time.monotonic() + s.get("within_ms", 2000) / 1000
        while not c.closed and time.monotonic() < end:
            await asyncio.sleep(0.02)
        if bad := [f for f in c.inbox if not is_pong(f)]:
            raise Mismatch(f"{c.name} expected the end of the connection, got {short(bad)}")
        if not c.closed:
            raise Mismatch(f"{c.name} is still open after {s.get('within_ms', 2000)} ms")

    async def do_rpc(self, s):
        c = self.conns[s["rpc"]]
        ident = s.get("id", f"rpc-{next(c.ids)}")
        await c.write(json.dumps({"jsonrpc": "2.0", "method": s["method"], "id": ident} | ({"params": s["params"]} if "params" in s else {})))
        f = await c.take(lambda f: f.get("id") == ident, s.get("within_ms", 3000), f"a reply with id {ident}", lambda f: "method" in f)
        for k in ("result", "error"):
            if k in s:
                match(s[k], f.get(k), self.env, k)
        if "reply" in s:
            match(s["reply"], f, self.env, "reply")

    async def do_notice(self, s):
        f = await self.conns[s["notice"]].take(lambda f: "method" in f, s.get("within_ms", 2000), f"notification {s['method']}")
        match(s["method"], f["method"], self.env, "method")
        match(s.get("params", "<any>"), f.get("params"), self.env, "params")

    async def do_sleep(self, s):
        await asyncio.sleep(s["sleep"] / 1000)

    async def do_restart(self, s):
        await self.server.stop(signal.SIGKILL if s["restart"] == "kill" else signal.SIGTERM)
        await self.server.start()


# ---- the run ------------------------------------------------------------------------------------------------------

def load(args):
    files = [pathlib.Path(f) for f in args.files]
    if args.list:
        names = [x.split(":")[0] for x in pathlib.Path(args.list).read_text().splitlines() if x and not x.startswith("#")]
        files += [HERE / "scenarios" / f"{x}.json" for x in names]
    files = files or [HERE / "scenarios"]
    files = sorted(g for f in files for g in (f.rglob("*.json") if f.is_dir() else [f]))
    for f in files:
        sc = json.loads(f.read_text())
        if args.k in f"{f.parent.name}/{f.stem} {sc.get('name', '')}":
            yield f, sc


def server_key(sc):
    """Scenarios with the same key may share a server."""
    own = id(sc) if "datasource" in sc or isinstance(sc.get("webhook"), dict) or sc.get("own_server") else 0
    return json.dumps([sc.get("config", {}), bool(sc.get("webhook")), own], sort_keys=True)


async def play_group(args, group, report):
    listener = Listener()
    first, hook = group[0][1], f"http://127.0.0.1:{listener.port}"
    config = dict(first.get("config", {})) | ({"WK_WEBHOOK_HTTPADDR": hook + "/hook"} if first.get("webhook") else {}) \
        | ({"WK_DATASOURCE_ADDR": hook + "/data"} if "datasource" in first else {})
    listener.fail = first["webhook"].get("fail", 0) if isinstance(first.get("webhook"), dict) else 0
    server = Cluster(args, config, listener)
    gate, again = asyncio.Semaphore(args.jobs), set()

    async def one(f, sc):
        async with gate:
            if not server.alive():
                return [(f, sc)]
            play = Play(sc, server, args.peer)
            listener.replies = fill(sc.get("datasource", {}), play.env) or listener.replies
            problem = await play.all()
            if problem and args.peer and f not in again:  # v2.2.5 loses a connection now and then
                again.add(f)
                return [(f, sc)]
            report(f, sc, problem)
            return []
    try:
        alone = [x for x in group if any("restart" in s for s in x[1]["steps"]) or x[1].get("alone")]
        for part in [[x for x in group if x not in alone]] + [[x] for x in alone]:
            while part:  # once more with those that were not played to the end
                if not server.alive():
                    await server.start()
                part = sum(await asyncio.gather(*(one(f, sc) for f, sc in part)), [])
    except Mismatch as e:
        for f, sc in group:
            report(f, sc, str(e))
    finally:
        await server.stop()
        if not args.keep:
            shutil.rmtree(server.dir, ignore_errors=True)
        else:
            print(f"kept {server.dir}")


async def main(args):
    groups, done, single, start = {}, {}, 0, time.monotonic()
    for f, sc in load(args):
        if args.nodes > 1 and sc.get("nodes") == 1:
            single += 1
            continue
        if args.peer and sc.get("peer_skip"):
            print(f"skip {f.parent.name}/{f.stem}: {sc['peer_skip']}")
            continue
        groups.setdefault(server_key(sc), []).append((f, sc))

    def report(f, sc, problem):
        if f not in done:
            done[f] = problem
            if problem or args.v:
                print(f"{'FAIL' if problem else 'ok  '} {f.parent.name}/{f.stem}" + (f"\n  {problem}" if problem else ""), flush=True)
    for group in groups.values():
        await play_group(args, group, report)
    failed = sum(1 for p in done.values() if p)
    print(f"{len(done) - failed} passed, {failed} failed" + (f", {single} of one node left out" if single else "") + f" ({time.monotonic() - start:.0f} s)")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True, help="the server")
    p.add_argument("--list", metavar="FILE", help="play the scenarios that this file names, one a line, without folder scenarios/ and .json")
    p.add_argument("--nodes", type=int, default=1, choices=(1, 3, 5), help="nodes per cluster; clients and requests are spread over them")
    p.add_argument("--seed", type=int, default=1, help="another seed spreads them differently")
    p.add_argument("--peer", action="store_true", help="play v2.2.5's own values where Jindou differs on purpose")
    p.add_argument("--keep", action="store_true", help="keep the servers' directories")
    p.add_argument("--jobs", type=int, default=4, help="scenarios at once")
    p.add_argument("-v", action="store_true", help="name the scenarios that hold, too")
    p.add_argument("-k", default="", metavar="WORD", help="only scenarios whose name holds WORD")
    p.add_argument("files", nargs="*", metavar="FILE", help="scenario files or folders")
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # writes to connections that the server has closed
    args = p.parse_args()
    sys.exit(asyncio.run(main(args)))
