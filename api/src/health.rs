//! Whether this node serves: /health (http-api.md §3.1), /healthz, /readyz (operations.md §2.1).

use http::StatusCode;
use jindou_core::{id::SlotId, shard::CLUSTER_SLOT};
use serde::Serialize;

use crate::{
    answer::{Answer, value},
    api::Api,
    figures::{ClusterFigures, GroupFigures, PeerFigures},
    http::HttpResponse,
    json::to_json,
    node::{Check, Node},
};

/// Slots that a check names; of more it tells the number.
const SLOTS_NAMED_MAX: usize = 8;

#[derive(Serialize)]
struct Good {
    status: &'static str,
}

#[derive(Serialize)]
struct Bad {
    message: String,
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    checks: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// GET /health: 200, or 500 with what this node itself can't do.
pub(crate) fn health<N: Node>(api: &Api<N>) -> Answer {
    let health = api.node.health();
    let Some(fault) = health.fault else {
        return Ok(value(&Good { status: "ok" }));
    };
    let message = match health.waiting {
        Some(waiting) => format!("{fault}: {waiting}"),
        None => fault.to_string(),
    };
    let body = to_json(&Bad { message, status: "error" });
    Ok(HttpResponse::json(StatusCode::INTERNAL_SERVER_ERROR, body))
}

/// GET /healthz: the process answers.
pub(crate) fn alive() -> Answer {
    Ok(value(&Good { status: "ok" }))
}

/// GET /readyz: 200 when everything is as it should be, else 503; the details in both cases.
pub(crate) async fn ready<N: Node>(api: &Api<N>) -> Answer {
    let mut health = api.node.health();
    health.checks.extend(match api.node.figures().await {
        Ok(figures) => vec![peers(&figures.peers), replicas(&figures)],
        Err(text) => vec![Check { name: "peers", ok: false, detail: text }],
    });
    let is_ready = health.fault.is_none() && health.checks.iter().all(|check| check.ok);
    let body = Ready {
        status: if is_ready { "ok" } else { "error" },
        message: health.fault.map(|fault| fault.to_string()),
        checks: health
            .checks
            .into_iter()
            .map(|check| Line { name: check.name, ok: check.ok, detail: check.detail })
            .collect(),
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(HttpResponse::json(status, to_json(&body)))
}

/// Whether every other node is reached, by each shard; else which are not, and why.
fn peers(peers: &[PeerFigures]) -> Check {
    let away: Vec<String> = peers.iter().filter(|peer| !peer.is_up).map(not_reached).collect();
    let (reached, all) = (peers.len() - away.len(), peers.len());
    let detail = match (all, away.as_slice()) {
        (0, _) => "there are no other nodes".to_owned(),
        (_, []) => format!("{reached} of {all} other nodes are reached"),
        (_, away) => format!("{reached} of {all} other nodes are reached; {}", away.join("; ")),
    };
    Check { name: "peers", ok: away.is_empty(), detail }
}

fn not_reached(peer: &PeerFigures) -> String {
    let PeerFigures { node, address, .. } = peer;
    if let Some(refusal) = &peer.refusal {
        return format!("node {} at {address} refuses this node: {refusal}", node.0);
    }
    let since = peer.down_ms.map(|ms| format!(" since {} s", ms / 1_000)).unwrap_or_default();
    let why = peer.trouble.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    format!("node {} at {address} is not reached{since}{why}", node.0)
}

/// Whether each group that is led here has the voters that it is to have, alive, and whether the
/// replicas here are of use to the leaders of theirs.
fn replicas(figures: &ClusterFigures) -> Check {
    let GroupFigures { leading, voters_wanted, short, muted, failed, lag_max, .. } =
        &figures.groups;
    let mut texts = vec![if short.is_empty() {
        format!("each of {leading} groups led here has the {voters_wanted} live voters wanted")
    } else {
        format!(
            "{} of {leading} groups led here have fewer live voters than the {voters_wanted} \
             wanted: {}",
            short.len(),
            named(short)
        )
    }];
    if *muted > 0 {
        texts.push(format!("{muted} replicas here began with nothing and may not vote yet"));
    }
    if *failed > 0 {
        texts.push(format!("{failed} replicas here have stopped, the log says why"));
    }
    if *lag_max > 0 {
        let behind = figures.peers.iter().filter(|peer| peer.lag == Some(*lag_max));
        let behind: Vec<String> = behind.map(|peer| format!("node {}", peer.node.0)).collect();
        let place =
            if behind.is_empty() { String::new() } else { format!(" on {}", behind.join(", ")) };
        texts.push(format!("the follower furthest behind{place} lacks {lag_max} entries"));
    }
    let ok = short.is_empty() && *muted == 0 && *failed == 0;
    Check { name: "replicas", ok, detail: texts.join("; ") }
}

/// The first slots by their numbers, and how many more there are.
fn named(slots: &[SlotId]) -> String {
    let name = |slot: &SlotId| match *slot {
        CLUSTER_SLOT => "group 0".to_owned(),
        SlotId(slot) => format!("slot {slot}"),
    };
    let names: Vec<String> = slots.iter().take(SLOTS_NAMED_MAX).map(name).collect();
    let text = names.join(", ");
    match slots.len().saturating_sub(SLOTS_NAMED_MAX) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
