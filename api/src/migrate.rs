//! GET /migrate/result: the import from a v1 server (http-api.md §14).

use serde::Serialize;

use crate::answer::{Answer, value};

#[derive(Serialize)]
struct ResultJson {
    status: &'static str,
    step: &'static str,
    last_err: Option<()>,
    try_count: u64,
}

/// Nothing is imported: v2 says `running` then too.
pub(crate) fn result() -> Answer {
    Ok(value(&ResultJson { status: "running", step: "message", last_err: None, try_count: 0 }))
}
