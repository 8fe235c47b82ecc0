//! Whether this node serves: /health (http-api.md §3.1), /healthz, /readyz (operations.md §2.1).

use http::StatusCode;
use serde::Serialize;

use crate::{
    answer::{Answer, value},
    api::Api,
    http::HttpResponse,
    json::to_json,
    node::Node,
};

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
pub(crate) fn ready<N: Node>(api: &Api<N>) -> Answer {
    let health = api.node.health();
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
