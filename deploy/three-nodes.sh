#!/usr/bin/env bash
# Three nodes on this machine, for trying things out: each gets nine variables and its own ports.
#   deploy/three-nodes.sh [DIRECTORY]     Ctrl-C stops all three; the directory is kept.
# Node n: API 500n, TCP 510n, WebSocket 520n, manager 530n, other nodes 1111n.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${JINDOU:-target/release/jindou}
root=${1:-three-nodes}
[ -x "$bin" ] || { echo "$bin is missing: cargo build --release" >&2; exit 1; }

nodes=()
for n in 1 2 3; do
  env \
    WK_MODE=release \
    WK_CLUSTER_NODEID="$n" \
    WK_CLUSTER_APIURL="http://127.0.0.1:500$n" \
    WK_CLUSTER_SERVERADDR="127.0.0.1:1111$n" \
    WK_CLUSTER_INITNODES="1@127.0.0.1:11111 2@127.0.0.1:11112 3@127.0.0.1:11113" \
    WK_EXTERNAL_TCPADDR="127.0.0.1:510$n" \
    WK_EXTERNAL_WSADDR="ws://127.0.0.1:520$n" \
    WK_INTRANET_TCPADDR="127.0.0.1:510$n" \
    WK_ROOTDIR="$root/node$n" \
    WK_ADDR="tcp://127.0.0.1:510$n" WK_WSADDR="ws://127.0.0.1:520$n" WK_HTTPADDR="127.0.0.1:500$n" \
    WK_MANAGER_ADDR="127.0.0.1:530$n" WK_DEMO_ADDR="127.0.0.1:517$n" WK_CLUSTER_ADDR="tcp://127.0.0.1:1111$n" \
    "$bin" &
  nodes+=($!)
done
trap 'kill -TERM "${nodes[@]}"' INT TERM
wait "${nodes[@]}" || wait
