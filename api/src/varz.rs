//! Counters and addresses of this node: /varz (http-api.md §3.2), /varz/setting (§3.3).

use std::cmp::Reverse;

use futures::future::join_all;
use jindou_core::{
    id::ShardId,
    request::{Reply, Request, Target, Vars},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    connection::{self, ConnectionJson},
    node::Node,
    time::duration,
};

#[derive(Serialize)]
struct VarzJson<'a> {
    server_id: String,
    server_name: &'static str,
    version: &'a str,
    connections: u64,
    user_handler_count: u64,
    user_handler_conn_count: u64,
    uptime: String,
    goroutine: u64,
    mem: u64,
    cpu: f64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    slow_clients: u64,
    retry_queue: u64,
    tcp_addr: &'a str,
    ws_addr: &'a str,
    wss_addr: &'a str,
    manager_addr: &'a str,
    manager_on: u8,
    commit: &'a str,
    commit_date: &'a str,
    tree_state: &'a str,
    api_url: &'a str,
    manager_uid: &'a str,
    manager_token_on: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conns: Vec<ConnectionJson>,
    conversation_cache_count: u64,
}

/// The counters of every shard, in order.
pub(crate) async fn of_shards<N: Node>(api: &Api<N>) -> Result<Vec<Vars>, Refusal> {
    let asked = (0..api.node.shards())
        .map(|shard| api.node.ask(Target::Shard(ShardId(shard)), Request::Vars));
    let mut shards = Vec::new();
    for reply in join_all(asked).await {
        let Reply::Vars(vars) = reply else {
            return Err(Refusal::by(&reply, ""));
        };
        shards.push(*vars);
    }
    Ok(shards)
}

/// GET /varz. `show=conn` adds connections past CONNECT, the most talkative first.
pub(crate) async fn varz<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    if !connection::is_here(api, call.query.unsigned("node_id")) {
        return Err(Refusal::Rule("node not found"));
    }
    let shards = of_shards(api).await?;
    let sum = |value: fn(&Vars) -> u64| shards.iter().map(value).sum::<u64>();
    let now_ms = api.node.now().unix_ms;
    let conns = if call.query.text("show") == "conn" {
        let mut live = connection::all(api, 0).await?;
        live.retain(|info| info.live);
        live.sort_by_key(|info| (Reverse(info.traffic.messages_in), info.opened_ms, info.conn));
        let limit = connection::limit(call.query.signed("conn_limit"));
        live.iter().take(limit).map(|info| ConnectionJson::new(api, info, now_ms)).collect()
    } else {
        Vec::new()
    };
    let process = api.node.process();
    let settings = &api.settings;
    Ok(value(&VarzJson {
        server_id: settings.node.0.to_string(),
        // What v2 says of itself: back ends and the manager's pages may look at it.
        server_name: "WuKongIM",
        version: &settings.version.version,
        connections: sum(|vars| vars.connections),
        user_handler_count: sum(|vars| vars.online_users),
        user_handler_conn_count: sum(|vars| vars.sessions),
        uptime: duration(now_ms.saturating_sub(process.started_ms)),
        // Tasks where they are counted, else threads: the closest to what v2 counts.
        goroutine: process.threads,
        mem: process.resident_size,
        cpu: process.cpu_percent,
        in_msgs: sum(|vars| vars.traffic.messages_in),
        out_msgs: sum(|vars| vars.traffic.messages_out),
        in_bytes: sum(|vars| vars.traffic.bytes_in),
        out_bytes: sum(|vars| vars.traffic.bytes_out),
        slow_clients: 0,
        retry_queue: sum(|vars| vars.unacked),
        tcp_addr: &settings.addresses.tcp,
        ws_addr: &settings.addresses.ws,
        wss_addr: &settings.addresses.wss,
        manager_addr: &settings.addresses.manager,
        manager_on: settings.manager_on.into(),
        commit: &settings.version.commit,
        commit_date: &settings.version.commit_date,
        tree_state: &settings.version.tree_state,
        api_url: &settings.addresses.api_url,
        manager_uid: &settings.manager_uid,
        manager_token_on: (!settings.manager_token.trim().is_empty()).into(),
        conns,
        conversation_cache_count: 0,
    }))
}

#[derive(Serialize)]
struct SettingJson {
    logger: LoggerJson,
    prometheus_on: u8,
    stress_on: u8,
}

#[derive(Serialize)]
struct LoggerJson {
    trace_on: u8,
    loki_on: u8,
}

/// GET /varz/setting: which pages of the manager have data.
pub(crate) fn setting<N: Node>(api: &Api<N>) -> Answer {
    let settings = &api.settings;
    Ok(value(&SettingJson {
        logger: LoggerJson { trace_on: settings.trace_on.into(), loki_on: settings.loki_on.into() },
        prometheus_on: settings.prometheus_on.into(),
        stress_on: settings.stress_on.into(),
    }))
}

#[cfg(test)]
mod tests;
