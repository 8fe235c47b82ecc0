//! The result, for people and for programs.

use std::fmt::{self, Display};
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::{Common, Load};
use crate::client::Tally;
use crate::counts::Counts;
use crate::engine::Dialled;
use crate::latency::{Latency, Summary};
use crate::process::Usage;

/// A finished run: lines to print, the same as JSON, and what was wrong.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<String>,
    pub(crate) json: Value,
    /// Broken promises; none: the run passed.
    pub(crate) failures: Vec<String>,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED     {failure}")?;
        }
        Ok(())
    }
}

/// What a chat run has measured.
pub(crate) struct Measured {
    pub(crate) counts: Counts,
    pub(crate) tally: Tally,
    pub(crate) dialled: Dialled,
    /// Between the two usages.
    pub(crate) elapsed: Duration,
    pub(crate) before: Usage,
    pub(crate) after: Usage,
}

/// A label and what one unit of work is.
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    /// How many were done within the window.
    pub(crate) count: u64,
}

pub(crate) fn chat(
    title: String,
    settings: Value,
    common: &Common,
    load: &Load,
    unit: &Unit,
    measured: &Measured,
) -> Report {
    let Measured { counts, tally, dialled, elapsed, before, after } = measured;
    let mut lines = vec![title, connected(dialled)];
    let per_second = |n: u64| n as f64 / elapsed.as_secs_f64().max(1e-9);
    lines.push(format!(
        "acked      {} in {:.1} s = {}/s",
        thousands(counts.window_acked),
        elapsed.as_secs_f64(),
        thousands_f(per_second(counts.window_acked))
    ));
    lines.push(format!(
        "delivered  {} = {}/s",
        thousands(counts.window_delivered),
        thousands_f(per_second(counts.window_delivered))
    ));
    let (acks, recvs) = (counts.ack_latency.summary(), counts.recv_latency.summary());
    lines.extend(table(&[("SENDACK", acks), ("RECV", recvs)]));
    let mut processes = Vec::new();
    for (place, pid) in common.pid.iter().enumerate() {
        let (line, json) = process(*pid, place, unit, elapsed, before, after);
        lines.push(line);
        processes.push(json);
    }
    let own = after.own.saturating_sub(before.own);
    let own_cores = own.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
    lines.push(format!(
        "generator  {:.2} µs per {}, {own_cores:.2} cores",
        micros_per(own, unit.count),
        unit.name
    ));
    if own_cores > 0.9 * common.threads as f64 {
        lines.push(
            "           it was busy all the time: it may be what bounds this result".to_owned(),
        );
    }
    let rest = &counts.rest;
    let refused: u64 = counts.refused.values().sum();
    lines.push(format!(
        "check      sent {}, acked {}, delivered {}; refused {refused}{}, unanswered {}, undelivered {}",
        thousands(counts.sent),
        thousands(counts.acked),
        thousands(counts.delivered),
        reasons(counts),
        rest.unanswered,
        rest.undelivered,
    ));
    lines.push(format!(
        "           duplicates {}, out of order {}, foreign {}; {} keys checked, {} wrong",
        counts.duplicates,
        counts.disordered,
        counts.foreign,
        thousands(tally.verified),
        tally.wrong
    ));
    let json = json!({
        "settings": settings,
        "connect": connect_json(dialled),
        "seconds": elapsed.as_secs_f64(),
        "acked": counts.window_acked,
        "acked_per_s": per_second(counts.window_acked),
        "delivered": counts.window_delivered,
        "delivered_per_s": per_second(counts.window_delivered),
        "sendack": acks.json(),
        "recv": recvs.json(),
        "unit": unit.name,
        "processes": processes,
        "generator": {
            "cpu_us_per_unit": micros_per(own, unit.count),
            "cores": own_cores,
        },
        "check": {
            "sent": counts.sent,
            "acked": counts.acked,
            "delivered": counts.delivered,
            "refused": counts.refused.iter().map(|(k, v)| (k.to_string(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "unanswered": rest.unanswered,
            "undelivered": rest.undelivered,
            "phantoms": rest.phantoms,
            "duplicates": counts.duplicates,
            "out_of_order": counts.disordered,
            "misdelivered": counts.misdelivered,
            "foreign": counts.foreign,
            "connections_lost": counts.lost,
            "keys_checked": tally.verified,
            "keys_wrong": tally.wrong,
        },
    });
    Report { lines, json, failures: verdict(counts, tally, load.strict) }
}

/// What of a chat run breaks a promise.
fn verdict(counts: &Counts, tally: &Tally, strict: bool) -> Vec<String> {
    let rest = &counts.rest;
    let lost = format!(
        "connections were lost, the first because {}",
        counts.lost_why.as_deref().unwrap_or("?")
    );
    let checks = [
        (rest.undelivered, "messages were acknowledged and never delivered", true),
        (rest.phantoms, "messages were refused and delivered all the same", true),
        (counts.misdelivered, "RECVs went to connections they were not for", true),
        (tally.wrong, "RECVs had a wrong key or content", true),
        (counts.lost, lost.as_str(), true),
        (u64::from(counts.acked == 0), "run without any acknowledgement", true),
        (counts.duplicates, "RECVs or SENDACKs came again", strict),
        (counts.disordered, "RECVs were out of order", strict),
        (rest.unanswered, "SENDs were never answered", strict),
    ];
    checks
        .into_iter()
        .filter(|(n, _, counts)| *n > 0 && *counts)
        .map(|(n, words, _)| format!("{} {words}", thousands(n)))
        .collect()
}

/// What an idle run has measured.
pub(crate) struct Idled {
    pub(crate) dialled: Dialled,
    pub(crate) connections: usize,
    pub(crate) alive: usize,
    pub(crate) ponged: u64,
    pub(crate) held: Duration,
    /// Before dialling, after dialling, after holding.
    pub(crate) usage: [Usage; 3],
}

pub(crate) fn idle(title: String, settings: Value, common: &Common, idled: &Idled) -> Report {
    let Idled { dialled, connections, alive, ponged, held, usage } = idled;
    let [before, up, end] = usage;
    let n = *connections as f64;
    let mut lines = vec![title, connected(dialled)];
    lines.extend(table(&[("CONNACK", dialled.latency.summary())]));
    let mut processes = Vec::new();
    for (place, pid) in common.pid.iter().enumerate() {
        let resident = |usage: &Usage| usage.resident.get(place).copied().flatten().unwrap_or(0);
        let cpu = |usage: &Usage| usage.cpu.get(place).copied().flatten().unwrap_or_default();
        let grown = |to: &Usage| (resident(to) as f64 - resident(before) as f64) / n;
        let dial_cpu = cpu(up).saturating_sub(cpu(before));
        let hold_cpu = cpu(end).saturating_sub(cpu(up));
        lines.push(format!(
            "memory     pid {pid}: {:.1} MB before, {:.1} MB with them, {:.1} MB at the end: {:+.0} B each, {:+.0} B each at the end",
            resident(before) as f64 / 1e6,
            resident(up) as f64 / 1e6,
            resident(end) as f64 / 1e6,
            grown(up),
            grown(end),
        ));
        lines.push(format!(
            "cpu        pid {pid}: {:.1} µs per connect; {:.3} cores while they were idle",
            micros_per(dial_cpu, u64::try_from(*connections).unwrap_or(u64::MAX)),
            hold_cpu.as_secs_f64() / held.as_secs_f64().max(1e-9),
        ));
        processes.push(json!({
            "pid": pid,
            "resident_before": resident(before),
            "resident_connected": resident(up),
            "resident_end": resident(end),
            "bytes_per_connection": grown(up),
            "bytes_per_connection_end": grown(end),
            "cpu_us_per_connect": micros_per(dial_cpu, u64::try_from(*connections).unwrap_or(u64::MAX)),
            "idle_cores": hold_cpu.as_secs_f64() / held.as_secs_f64().max(1e-9),
        }));
    }
    let own =
        up.own.saturating_sub(before.own).as_secs_f64() / dialled.took.as_secs_f64().max(1e-9);
    lines.push(format!("generator  {own:.2} cores while dialling"));
    lines.push(format!(
        "check      {alive} of {connections} alive after {:.1} s, {ponged} answered the last PING",
        held.as_secs_f64()
    ));
    let mut failures = Vec::new();
    if alive < connections {
        failures.push(format!("{} connections were lost", connections - alive));
    }
    let silent = u64::try_from(*connections).unwrap_or(u64::MAX).saturating_sub(*ponged);
    if silent > 0 {
        failures.push(format!("{silent} connections did not answer a PING"));
    }
    let json = json!({
        "settings": settings,
        "connect": connect_json(dialled),
        "connack": dialled.latency.summary().json(),
        "held_s": held.as_secs_f64(),
        "alive": alive,
        "ponged": ponged,
        "processes": processes,
        "generator": { "cores_dialling": own },
    });
    Report { lines, json, failures }
}

/// What a run of HTTP requests has measured.
pub(crate) struct Requested {
    pub(crate) latency: Summary,
    /// Of the answers' bodies.
    pub(crate) bytes: u64,
    /// Between the two usages.
    pub(crate) elapsed: Duration,
    pub(crate) before: Usage,
    pub(crate) after: Usage,
}

pub(crate) fn requests(
    title: String,
    settings: Value,
    common: &Common,
    requested: &Requested,
) -> Report {
    let Requested { latency, bytes, elapsed, before, after } = requested;
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let rate = latency.count as f64 / seconds;
    let answer = *bytes as f64 / latency.count.max(1) as f64;
    let mut lines = vec![
        title,
        format!(
            "answered   {} in {seconds:.2} s = {}/s, {answer:.0} B each",
            thousands(latency.count),
            thousands_f(rate)
        ),
    ];
    lines.extend(table(&[("answer", *latency)]));
    let unit = Unit { name: "request", count: latency.count };
    let mut processes = Vec::new();
    for (place, pid) in common.pid.iter().enumerate() {
        let (line, json) = process(*pid, place, &unit, elapsed, before, after);
        lines.push(line);
        processes.push(json);
    }
    let own = after.own.saturating_sub(before.own).as_secs_f64() / seconds;
    lines.push(format!("generator  {own:.2} cores"));
    let json = json!({
        "settings": settings,
        "answered": latency.count,
        "per_s": rate,
        "bytes_per_answer": answer,
        "latency": latency.json(),
        "processes": processes,
        "generator": { "cores": own },
    });
    let failures = match latency.count {
        0 => vec!["nothing was answered".to_owned()],
        _ => Vec::new(),
    };
    Report { lines, json, failures }
}

fn process(
    pid: u32,
    place: usize,
    unit: &Unit,
    elapsed: &Duration,
    before: &Usage,
    after: &Usage,
) -> (String, Value) {
    let at = |usage: &Usage| usage.cpu.get(place).copied().flatten();
    let resident = after.resident.get(place).copied().flatten();
    let (Some(first), Some(last)) = (at(before), at(after)) else {
        return (format!("cpu        pid {pid}: not measured"), json!({ "pid": pid }));
    };
    let used = last.saturating_sub(first);
    let cores = used.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
    let per = micros_per(used, unit.count);
    let line = format!(
        "cpu        pid {pid}: {per:.2} µs per {}, {cores:.2} cores; {:.1} MB resident",
        unit.name,
        resident.unwrap_or(0) as f64 / 1e6
    );
    let json = json!({
        "pid": pid,
        "cpu_us_per_unit": per,
        "cpu_s": used.as_secs_f64(),
        "cores": cores,
        "resident": resident,
    });
    (line, json)
}

fn connected(dialled: &Dialled) -> String {
    let summary = dialled.latency.summary();
    format!(
        "connected  {} in {:.2} s = {}/s, {} dialled again",
        thousands(summary.count),
        dialled.took.as_secs_f64(),
        thousands_f(summary.count as f64 / dialled.took.as_secs_f64().max(1e-9)),
        dialled.again
    )
}

fn connect_json(dialled: &Dialled) -> Value {
    let summary = dialled.latency.summary();
    json!({
        "connections": summary.count,
        "seconds": dialled.took.as_secs_f64(),
        "per_s": summary.count as f64 / dialled.took.as_secs_f64().max(1e-9),
        "dialled_again": dialled.again,
    })
}

/// Adds up what the threads have dialled at the same time.
pub(crate) fn join_dialled(parts: &[Dialled]) -> anyhow::Result<Dialled> {
    let mut all = Dialled { took: Duration::ZERO, latency: Latency::new()?, again: 0 };
    for part in parts {
        all.took = all.took.max(part.took);
        all.latency.merge(&part.latency)?;
        all.again += part.again;
    }
    Ok(all)
}

fn table(rows: &[(&str, Summary)]) -> Vec<String> {
    let mut lines = vec![format!(
        "latency    {:>9}{:>10}{:>10}{:>10}{:>10}  ms",
        "p50", "p90", "p99", "p99.9", "max"
    )];
    for (name, s) in rows {
        let ms = |ns: u64| format!("{:.3}", ns as f64 / 1e6);
        lines.push(format!(
            "  {name:<9}{:>9}{:>10}{:>10}{:>10}{:>10}",
            ms(s.p50),
            ms(s.p90),
            ms(s.p99),
            ms(s.p999),
            ms(s.max)
        ));
    }
    lines
}

fn reasons(counts: &Counts) -> String {
    if counts.refused.is_empty() {
        return String::new();
    }
    let list: Vec<String> =
        counts.refused.iter().map(|(reason, n)| format!("{n} with reason {reason}")).collect();
    format!(" ({})", list.join(", "))
}

fn micros_per(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / (count.max(1)) as f64
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn thousands_f(n: f64) -> String {
    thousands(Duration::try_from_secs_f64(n.round()).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands_f(9_999.6), "10,000");
    }
}
