"""What differs between two servers by nature (ids, times) taken out of their answers."""
import base64, re, time

IDS = {"message_id", "message_idstr", "conn_id", "id"}
TIMES = {"timestamp", "version", "created_at", "updated_at", "occurred_at", "created_at_format", "updated_at_format"}
GENERATED = re.compile(r"[0-9a-f]{32}0")


def plain(frame):
    """A pushed frame without its id, time and keys; its payload as text."""
    out = {k: v for k, v in frame.items() if k not in ("message_id", "timestamp", "msg_key", "wire_payload", "frame_flags", "stream_id", "dup")}
    if isinstance(out.get("payload"), bytes):
        out["payload"] = base64.b64encode(out["payload"]).decode()
    if GENERATED.fullmatch(str(out.get("client_msg_no", ""))):
        out["client_msg_no"] = "<number>"
    if isinstance(out.get("data"), (bytes, dict)):
        out["data"] = out["data"].decode("utf-8", "replace") if isinstance(out["data"], bytes) else out["data"]
    if isinstance(out.get("data"), str):
        out["data"] = re.sub(r'"message_id":\d+', '"message_id":"<id>"', out["data"])
    return out


class Names:
    """The ids that one server gave, by client number."""

    def __init__(self):
        self.ids = {}

    def learn(self, call, answer):
        if call.number and isinstance(answer, dict) and isinstance(answer.get("data"), dict) and "message_id" in answer["data"]:
            self.ids[call.number] = answer["data"]["message_id"]

    def fill(self, value):
        """`{"$id": number}` becomes the id of the message with this client number; 1 when there is none."""
        if isinstance(value, dict):
            if "$id" in value:
                return self.ids.get(value["$id"], 1)
            return {k: self.fill(v) for k, v in value.items()}
        return [self.fill(v) for v in value] if isinstance(value, list) else value

    def normal(self, answer):
        """Ids become the number of their message, plausible times `<time>`."""
        by_id = {v: k for k, v in self.ids.items()}

        def walk(value, key=""):
            if isinstance(value, tuple):
                return tuple(walk(v) for v in value)
            if isinstance(value, dict):
                return {k: walk(v, k) for k, v in value.items()}
            if isinstance(value, list):
                return [walk(v, key) for v in value]
            if key in IDS and value not in (0, "", "0"):
                number = int(value) if isinstance(value, str) and value.isdigit() else value
                return f"<id {by_id[number]}>" if number in by_id else "<id>"
            if key in TIMES and isinstance(value, (int, str)) and value not in (0, ""):
                return "<time>" if is_time(value) else value
            if key in ("client_msg_no", "last_client_msg_no") and isinstance(value, str) and GENERATED.fullmatch(value):
                return "<number>"
            return value
        return walk(answer)


def is_time(value):
    if isinstance(value, str):
        return bool(re.match(r"\d{4}[-/]\d{2}[-/]\d{2}|\d{2}-\d{2} ", value))
    return any(abs(value / unit - time.time()) < 3600 for unit in (1, 1e3, 1e6, 1e9))
