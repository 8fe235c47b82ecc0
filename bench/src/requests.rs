//! HTTP requests of a back end: a number of connections, each with one request under way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::args::{Common, RequestsArgs, Route};
use crate::http::{Api, authority_of};
use crate::latency::Latency;
use crate::process::Usage;
use crate::report::{self, Report, Requested};
use crate::setup::{prepare, run_number, spread};

/// The largest answer, in bytes.
const ANSWER_SIZE_MAX: usize = 64 << 20;
/// How long the server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Stored messages of each channel that histories are read of.
const HISTORY_COUNT: usize = 60;
/// Messages of a page.
const PAGE_COUNT: usize = 50;
/// Members in one request when a group is made.
const MEMBERS_AT_A_TIME: usize = 5_000;

/// One connection that stays.
struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
}

/// What one connection asks over and over.
struct Question {
    path: &'static str,
    /// The body up to a number that must differ each time, and after it.
    body: (String, String),
    /// What a right answer holds.
    wanted: &'static str,
}

/// Runs the workload.
pub(crate) fn requests(args: &RequestsArgs) -> anyhow::Result<Report> {
    let RequestsArgs { common, route, connections, channels, size, warmup, duration } = args;
    prepare(common)?;
    let run = run_number(common.seed);
    let questions = match route {
        Route::Sync => conversations(common, *connections, *channels, *size, run)?,
        Route::History => histories(common, *connections, *size, run)?,
        Route::Send => sends(common, *connections, *size, run),
    };
    let authority = authority_of(&common.http)?;
    let token = common.manager_token.as_deref();
    let start = OnceLock::new();
    let before = OnceLock::new();
    let after = OnceLock::new();
    let meet = Barrier::new(questions.len());
    let work: Vec<(usize, Question)> = questions.into_iter().enumerate().collect();
    let parts = spread(&work, |_, (place, question)| -> anyhow::Result<(Latency, u64)> {
        let connected = Connection::open(&authority);
        meet.wait();
        let mut connection = connected?;
        let start: Instant = *start.get_or_init(Instant::now);
        let (begin, end) = (start + *warmup, start + *warmup + *duration);
        let (mut latency, mut bytes) = (Latency::new()?, 0u64);
        for number in 0u64.. {
            let asked = Instant::now();
            if asked >= end {
                break;
            }
            if asked >= begin {
                before.get_or_init(|| (asked, Usage::read(&common.pid)));
            }
            let (head, tail) = &question.body;
            let body = format!("{head}{run:x}-{place}-{number}{tail}");
            let answer = connection.ask(&authority, question.path, &body, token)?;
            ensure!(
                answer
                    .windows(question.wanted.len())
                    .any(|part| part == question.wanted.as_bytes()),
                "{} answered {}",
                question.path,
                String::from_utf8_lossy(answer.get(..200).unwrap_or(&answer)),
            );
            if asked >= begin {
                latency.record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
                bytes += u64::try_from(answer.len()).unwrap_or(0);
            }
        }
        after.get_or_init(|| (Instant::now(), Usage::read(&common.pid)));
        Ok((latency, bytes))
    })?;
    let (began, before) = before.get().cloned().context("nothing was measured")?;
    let (ended, after) = after.get().cloned().context("nothing was measured")?;
    let mut latency = Latency::new()?;
    let mut bytes = 0;
    for part in parts {
        latency.merge(&part.0)?;
        bytes += part.1;
    }
    let title = format!(
        "requests   {} on {}, {connections} connections, one under way each",
        route.words(),
        common.http
    );
    let settings = json!({
        "workload": "requests",
        "route": route.words(),
        "target": common.http,
        "connections": connections,
        "channels": channels,
        "size": size,
        "warmup_s": warmup.as_secs_f64(),
        "duration_s": duration.as_secs_f64(),
    });
    let elapsed = ended.saturating_duration_since(began);
    let requested = Requested { latency: latency.summary(), bytes, elapsed, before, after };
    Ok(report::requests(title, settings, common, &requested))
}

/// Users with so many conversations each, one message in each.
fn conversations(
    common: &Common,
    connections: usize,
    channels: usize,
    size: usize,
    run: u64,
) -> anyhow::Result<Vec<Question>> {
    let api = Api::new(&common.http, common.manager_token.as_deref());
    let uids: Vec<String> =
        (0..connections).map(|i| format!("{}-s{run:x}-{i}", common.prefix)).collect();
    for place in 0..channels {
        let group = format!("{}-s{run:x}-g{place}", common.prefix);
        make_group(&api, &group, &uids)?;
        send(&api, &group, "somebody", size)?;
    }
    let question = |uid: String| Question {
        path: "/conversation/sync",
        body: (
            format!(r#"{{"uid":"{uid}","version":0,"last_msg_seqs":"","msg_count":1,"x":""#),
            r#""}"#.to_owned(),
        ),
        wanted: "\"recents\":[{",
    };
    Ok(uids.into_iter().map(question).collect())
}

/// Channels with so many messages, of which a page is read.
fn histories(
    common: &Common,
    connections: usize,
    size: usize,
    run: u64,
) -> anyhow::Result<Vec<Question>> {
    let api = Api::new(&common.http, common.manager_token.as_deref());
    let groups: Vec<String> =
        (0..connections).map(|i| format!("{}-h{run:x}-{i}", common.prefix)).collect();
    for group in &groups {
        for _ in 0..HISTORY_COUNT {
            send(&api, group, "somebody", size)?;
        }
    }
    let question = |group: String| Question {
        path: "/channel/messagesync",
        body: (
            format!(
                r#"{{"login_uid":"u","channel_id":"{group}","channel_type":2,"limit":{PAGE_COUNT},"x":""#
            ),
            r#""}"#.to_owned(),
        ),
        wanted: "\"message_seq\":60,",
    };
    Ok(groups.into_iter().map(question).collect())
}

/// Messages from one person to another.
fn sends(common: &Common, connections: usize, size: usize, run: u64) -> Vec<Question> {
    let payload = payload(size);
    let question = |i: usize| {
        let uid = format!("{}-p{run:x}-{i}", common.prefix);
        Question {
            path: "/message/send",
            body: (
                format!(
                    r#"{{"header":{{"red_dot":1}},"from_uid":"{uid}","channel_id":"{uid}-peer","channel_type":1,"payload":"{payload}","client_msg_no":""#
                ),
                r#""}"#.to_owned(),
            ),
            wanted: "\"message_id\":",
        }
    };
    (0..connections).map(question).collect()
}

fn make_group(api: &Api<'_>, group: &str, uids: &[String]) -> anyhow::Result<()> {
    for (place, part) in uids.chunks(MEMBERS_AT_A_TIME).enumerate() {
        let path = if place == 0 { "/channel" } else { "/channel/subscriber_add" };
        let body = json!({ "channel_id": group, "channel_type": 2, "subscribers": part });
        api.post(path, &body).context("make the group")?;
    }
    Ok(())
}

fn send(api: &Api<'_>, group: &str, from: &str, size: usize) -> anyhow::Result<()> {
    let body: Value = json!({
        "header": { "red_dot": 1 },
        "from_uid": from,
        "channel_id": group,
        "channel_type": 2,
        "payload": payload(size),
    });
    api.post("/message/send", &body).context("store a message")
}

/// Base64 of about so many bytes.
fn payload(size: usize) -> String {
    "eHh4".repeat(size.div_ceil(3).max(1))
}

impl Connection {
    fn open(authority: &str) -> anyhow::Result<Self> {
        let socket = crate::http::connect(authority)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        Ok(Self { socket, received: Vec::new() })
    }

    /// The body of an answer with status 200.
    fn ask(
        &mut self,
        authority: &str,
        path: &str,
        body: &str,
        token: Option<&str>,
    ) -> anyhow::Result<Vec<u8>> {
        let token = token.map(|token| format!("token: {token}\r\n")).unwrap_or_default();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
             {token}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.write_all(request.as_bytes())?;
        self.received.clear();
        let mut chunk = [0; 65_536];
        loop {
            if let Some((status, start, size)) = head_of(&self.received)? {
                if status != 200 {
                    bail!("{path} answered {status}");
                }
                if let Some(body) = self.received.get(start..start + size) {
                    return Ok(body.to_vec());
                }
            }
            let count = self.socket.read(&mut chunk).context("the server is silent")?;
            ensure!(count > 0, "the server closed the connection");
            self.received.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }
}

/// Status, place and size of the body, if the head is whole.
fn head_of(received: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(place) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(received.get(..place).unwrap_or_default());
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let size = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let size: usize = size.context("an answer without Content-Length")?;
    ensure!(size <= ANSWER_SIZE_MAX, "an answer of {size} bytes");
    Ok(Some((status.context("no HTTP status")?, place + 4, size)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_head() {
        assert_eq!(head_of(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        let whole = b"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(head_of(whole).unwrap(), Some((200, 46 - 2, 2)));
        assert!(head_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let large = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert!(head_of(large).is_err());
    }

    #[test]
    fn payloads_are_base64_of_about_the_wanted_size() {
        assert_eq!(payload(0), "eHh4");
        assert_eq!(payload(128).len(), 43 * 4);
    }
}
