#!/usr/bin/env python3
"""Writes holds.txt and later.txt: which scenarios the node must hold today, and what the others wait for.

    choose.py            rewrite both lists from the scenarios
    choose.py --check    exit 1 when a list is not what the scenarios say

A scenario is in holds.txt when each of its requests goes to a route in ROUTES and it needs nothing of NOT_YET. To open a
route, add it to ROUTES and run this file again; nothing is ever moved by hand.
"""
import json, pathlib, re, sys

HERE = pathlib.Path(__file__).resolve().parent

# Paths that v2.2.5 does not know either.
UNKNOWN = """/ /nope //health /health/ /user/token/ /conversations /message/revoke /message/search /stream/open /stream/close /streamv2/open
    /streamv2/close /event /streammessage/start /MESSAGE/send /message//send /v1/message/send /message/send/x /message/send%00 /metrics
    /..%2f..%2fsecret""".split()

# What the node serves: method and path on a port. Any method on these paths counts, refusals of a wrong method included.
ROUTES = {
    "api": """/health /route /route/batch /user/token /user/systemuids /user/systemuids_add /user/systemuids_remove
        /user/systemuids_add_to_cache /user/systemuids_remove_from_cache /user/device_quit /user/onlinestatus /channel /channel/info /channel/delete
        /channel/subscriber_add /channel/subscriber_remove /channel/blacklist_add /channel/blacklist_set /channel/blacklist_remove
        /channel/whitelist_add /channel/whitelist_set /channel/whitelist_remove /channel/whitelist /channel/subscriber_remove_all
        /channel/blacklist_remove_all /channel/whitelist_remove_all /channel/last_message /message/send /message/sync /message/syncack /message /messages /message/byclientmsgno /message/sendbatch /channel/messagesync
        /channel/max_message_seq /conversation/sync /conversations/clearUnread /conversations/setUnread /conversations/delete
        /conversation/channels /conversation/syncByChannels /connz /conn/kick /conn/remove /varz /varz/setting /cluster/nodes /cluster/node
        /cluster/channels/g-${run}/2/subscribers /cluster/channels/g-${run}/2/denylist /cluster/channels/b-${run}/1/denylist
        /cluster/channels/g-${run}/2/allowlist /cluster/channels/t-${run}/8/subscribers
        /cluster/simpleNodes /cluster/info /cluster/slots /cluster/allslot /cluster/slots/1/config /cluster/slots/1/replicas
        /cluster/slots/1/localReplica /cluster/devtools/checkLogConflict /manager/login /migrate/result /docs /docs/ /docs/openapi.json
        /docs/health /debug/pprof/ /stress/templates /stress/infoList /stress/add /web/ /plugins /plugin/bind /user/update_plugin_no
        /tag /tags /tag/remove /tmpchannel/subscriber_set /conversation/syncMessages /message/event
        /message/eventsync /cluster/message/eventsync
        /cluster/channels /cluster/users /cluster/devices /cluster/conversations /cluster/messages /cluster/channel/status""".split() + UNKNOWN,
    "manager": """/ /nope /favicon.ico /user/token /message/send /manager/login /metrics /metrics/app /metrics/cluster /metrics/system /web /web/
        /web/login /web/cluster/nodes /web/nope/deeper /web/index.html /web/logo.png /varz /varz/setting /connz /conn/kick /conn/remove
        /cluster/nodes /cluster/simpleNodes /cluster/node /cluster/slots /cluster/allslot /cluster/slots/1/config /cluster/slots/1/replicas
        /cluster/slots/1/localReplica /cluster/info /cluster/slots/1/migrate /cluster/slots/1/election /cluster/channels/g/2/start
        /cluster/channels/g/2/stop /cluster/channels/g/2/migrate /plugins /plugin/bind /plugin/unbind /plugin/uninstall /pluginconfig/p
        /tag/remove /tags /cluster/message/eventsync /cluster/channels /cluster/users /cluster/devices /cluster/conversations /cluster/messages""".split(),
    "demo": "/metrics /web/ / /login /chatdemo /chatdemo/ /chatdemo/none/such /favicon.ico /health /route".split(),
}


def wants(scenario):
    """What a scenario needs beside ROUTES, in the order of its steps; empty when it can be held today."""
    out = []
    for step in scenario["steps"]:
        if "http" not in step:
            continue
        method, path = step["http"].split(" ", 1)
        path, port = re.sub(r"\?.*", "", path), step.get("port", "api")
        if path not in ROUTES[port]:
            out.append(f"{method} {path}" + (f" on the {port} port" if port != "api" else ""))
    return list(dict.fromkeys(out))


def lists():
    holds, later = [], []
    for f in sorted((HERE / "scenarios").rglob("*.json")):
        name = f.relative_to(HERE / "scenarios").with_suffix("").as_posix()
        missing = wants(json.loads(f.read_text()))
        if missing:
            later.append(f"{name}: {', '.join(missing)}")
        else:
            holds.append(name)
    head = "# Written by choose.py. "
    return {"holds.txt": head + "Scenarios that the node must hold.\n" + "".join(x + "\n" for x in holds),
            "later.txt": head + "Scenarios that wait, and for what.\n" + "".join(x + "\n" for x in later)}


def main():
    stale = [n for n, text in lists().items() if not (HERE / n).exists() or (HERE / n).read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"{' and '.join(stale)} are not what the scenarios say: run choose.py")
        return
    for name, text in lists().items():
        (HERE / name).write_text(text)
        print(f"{name}: {text.count(chr(10)) - 1} scenarios")


if __name__ == "__main__":
    main()
