//! Changes of one channel that v2 makes to its Raft group (operations.md §3.14). A channel here has
//! none of its own: it lives, starts and moves with its slot.

use super::MigrateBody;
use crate::{
    answer::{Answer, Refusal, ok},
    api::Call,
    json::read,
};

/// Refuses a path whose type is no channel type.
fn check_channel(call: &Call) -> Result<(), Refusal> {
    let kind = call.params.text("type").parse::<u8>();
    kind.map(drop).map_err(|_| Refusal::Rule("channel_type: wanted a number from 0 to 255"))
}

/// POST /cluster/channels/:id/:type/start and /stop. v2's stop unloads a channel until it is used
/// again, which is what the bounded caches here do by themselves.
pub(super) fn start_or_stop(call: &Call) -> Answer {
    check_channel(call)?;
    Ok(ok())
}

/// POST /cluster/channels/:id/:type/migrate.
pub(super) fn migrate(call: &Call) -> Answer {
    check_channel(call)?;
    let body: MigrateBody = read(&call.body)?;
    if body.migrate_from == 0 || body.migrate_to == 0 {
        return Err(Refusal::Rule("migrateFrom or migrateTo is 0"));
    }
    if body.migrate_from == body.migrate_to {
        return Err(Refusal::Rule("migrateFrom is equal to migrateTo"));
    }
    Err(Refusal::Rule("a channel moves with its slot: POST /cluster/slots/:id/migrate"))
}
