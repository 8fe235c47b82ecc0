"""Differences on purpose, each with its reason. What is not named here is a difference to look into."""
import copy

from operations import pair

HEADER = "v2 loses the header of the first message that a read visits (http-api.md 1.7)"
NEVER = "v2 answers 'not found' for a channel that was never used; ours 0, or 404 (http-api.md 8.9, 8.10)"
UNDERFLOW = "v2's setUnread underflows on an empty channel (http-api.md 10.2)"
STALE_TAG = "v2 keeps a command channel's recipients when its members are reset or all removed (http-api.md 7.6)"
FIRST_COMMAND = "v2 now and then does not push the first command of a person channel (seen; its reason is not known)"
COMMANDS = "v2 lists command channels, once it has written them, among the conversations of /conversation/channels"
NULL = "v2 answers null for an empty list of system accounts (http-api.md 5.5)"
BREAKDOWN = "v2 does not answer for a slot any more, or has lost what it took for a channel: both began anew"
DELETION = "v2's deletion of conversations: pending rows, cached rows, a bound of one less (semantics.md 8.7)"
USELESS = "v2's lists of personal channels make conversations of plain uids (http-api.md 7.8)"


def mend(call, ours, theirs, world):
    """`theirs` with every defect of v2.2.5 that is known replaced by what we do instead, and the reasons."""
    theirs, reasons = copy.deepcopy(theirs), set()
    for repair in REPAIRS:
        theirs = repair(call, ours, theirs, world, reasons)
    return theirs, reasons


def headers(call, ours, theirs, world, reasons):
    def walk(a, b):
        if isinstance(a, dict) and isinstance(b, dict):
            if "header" in a and "header" in b and a["header"] != b["header"] and not any(b["header"].values()):
                b["header"] = a["header"]
                reasons.add(HEADER)
            for k in a.keys() & b.keys():
                walk(a[k], b[k])
        elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
            for x, y in zip(a, b):
                walk(x, y)
    walk(ours, theirs)
    return theirs


def never_used(call, ours, theirs, world, reasons):
    path = getattr(call, "path", "").split("?")[0]
    if path in ("/channel/max_message_seq", "/channel/last_message") and theirs[0] == 400 and ours[1] in ({"message_seq": 0}, {"status": 404}):
        reasons.add(NEVER)
        return ours
    return theirs


def underflow(call, ours, theirs, world, reasons):
    path = getattr(call, "path", "")
    if not path.startswith("/conversation/") or not (isinstance(ours[1], list) and isinstance(theirs[1], list)):
        return theirs
    uid = call.body["uid"]
    spoilt = {channel for user, channel in world.underflown if user == uid}
    spoilt |= {pair(uid, channel) for channel in spoilt}
    if spoilt and any(i.get("channel_id") in spoilt for i in ours[1] + theirs[1]):
        reasons.add(UNDERFLOW)
        if path == "/conversation/syncByChannels":
            return theirs[0], [a if b["channel_id"] in spoilt else b for a, b in zip(ours[1], theirs[1])]
        mine = [i for i in ours[1] if i["channel_id"] in spoilt]
        return call.shape((theirs[0], mine + [i for i in theirs[1] if i["channel_id"] not in spoilt]))
    return theirs


def deletion(call, ours, theirs, world, reasons):
    """What was deleted is shown as we show it."""
    if getattr(call, "path", "") != "/conversation/sync" or not isinstance(theirs[1], list):
        return theirs
    deleted = {channel for user, channel in world.deleted if user == call.body["uid"]}
    mine = [i for i in ours[1] if i["channel_id"] in deleted]
    if mine == [i for i in theirs[1] if i["channel_id"] in deleted]:
        return theirs
    reasons.add(DELETION)
    return call.shape((theirs[0], mine + [i for i in theirs[1] if i["channel_id"] not in deleted]))


def useless_rows(call, ours, theirs, world, reasons):
    if getattr(call, "path", "") != "/conversation/channels":
        return theirs
    useful = [i for i in theirs[1] if i["channel_type"] != 1 or "@" in i["channel_id"]]
    if len(useful) < len(theirs[1]):
        reasons.add(USELESS)
    shown = [i for i in useful if not i["channel_id"].endswith("____cmd")]
    if len(shown) < len(useful):
        reasons.add(COMMANDS)
    return theirs[0], shown


def null(call, ours, theirs, world, reasons):
    if getattr(call, "path", "") == "/user/systemuids" and ours == (200, []) and theirs == (200, None):
        reasons.add(NULL)
        return ours
    return theirs


def pushes(only_ours, only_theirs):
    """The reasons why clients were pushed different frames, if they explain all of it."""
    different = only_ours + only_theirs
    if different and all(f.get("sync_once") and f.get("type") != 1 for f in different):
        return {STALE_TAG}
    if only_ours and not only_theirs and all(f.get("sync_once") and f.get("seq") == 1 for f in only_ours):
        return {FIRST_COMMAND}
    return set()


REPAIRS = [null, never_used, useless_rows, underflow, deletion, headers]
