//! G11: who is online.

use std::collections::BTreeMap;

use super::{Fault, Findings, History, Kind, Limits, Presence, Session};

pub(super) fn check(history: &History, limits: &Limits, found: &mut Findings) {
    let heal = limits.heal.as_nanos() as u64;
    let idle = heal.max(limits.idle.as_nanos() as u64);
    let mut users: BTreeMap<&str, Vec<&Session>> = BTreeMap::new();
    for session in &history.sessions {
        users.entry(&session.uid).or_default().push(session);
    }
    for seen in &history.presences {
        if !history.faults.iter().all(|fault| is_calm(fault, seen, heal)) {
            continue;
        }
        for uid in &seen.asked {
            let sessions = users.get(uid.as_str()).map_or(&[][..], Vec::as_slice);
            let since = seen.start.saturating_sub(heal);
            let lives = |session: &&Session| {
                session.open <= since && session.closed.is_none_or(|closed| closed > seen.end)
            };
            let forgotten = seen.start.saturating_sub(idle);
            let lived = |session: &&Session| {
                let over = session.closed.is_some_and(|closed| closed < forgotten);
                session.open <= seen.end && !over
            };
            let is_online = seen.online.contains(uid);
            let (node, at) = (seen.node, seen.start);
            if let Some(session) = sessions.iter().copied().find(lives).filter(|_| !is_online) {
                let (of, open) = (session.node, session.open);
                let text = format!(
                    "{node} calls {uid} offline at {at}, who is connected to {of} since {open}"
                );
                found.add("G11", text);
            }
            if is_online && !sessions.iter().any(lived) {
                found.add("G11", format!("{node} calls {uid} online at {at}, who is not"));
            }
        }
    }
}

/// Whether presence must be right at this moment and node, whatever this fault did.
fn is_calm(fault: &Fault, seen: &Presence, heal: u64) -> bool {
    let just = |moment: u64| seen.end >= moment && seen.start <= moment + heal;
    let during = seen.end >= fault.start && seen.start <= fault.end;
    let out_of_reach = during && (!fault.quorum || fault.nodes.contains(&seen.node));
    // Each cut of a flapping network is a fault that began a moment before.
    let flaps = during && fault.kind == Kind::Flap;
    !just(fault.start) && !just(fault.end) && !out_of_reach && !flaps
}
