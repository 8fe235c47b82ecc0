#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::*;
use crate::config::tests::config;

/// Answers as many requests as it has answers, one connection each, and gives them back: head and
/// body as they came.
fn scripted(answers: Vec<(u16, String)>) -> (Server, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let answer = |(status, body): (u16, String)| {
            let (mut socket, _) = listener.accept().unwrap();
            let request = read(&mut socket);
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            socket.write_all((head + &body).as_bytes()).unwrap();
            request
        };
        answers.into_iter().map(answer).collect()
    });
    (Server { url, token: Some("sec-ret".to_owned()) }, served)
}

fn read(socket: &mut TcpStream) -> String {
    let mut request = String::new();
    let mut bytes = [0; 4096];
    loop {
        let size = socket.read(&mut bytes).unwrap();
        request.push_str(std::str::from_utf8(&bytes[..size]).unwrap());
        if let Some((head, body)) = request.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
                return request;
            }
        }
        assert_ne!(size, 0, "cut off: {request}");
    }
}

/// What a command writes, or why it fails, and the requests that it made.
fn play(
    command: &ClusterCommand,
    answers: impl IntoIterator<Item = (u16, String)>,
) -> (String, Result<(), String>, Vec<String>) {
    let (server, served) = scripted(answers.into_iter().collect());
    let mut out = Vec::new();
    let outcome = server.carry_out(command, &mut out, Duration::from_millis(1));
    let outcome = outcome.map_err(|error| format!("{error:#}"));
    (String::from_utf8(out).unwrap(), outcome, served.join().unwrap())
}

fn ok() -> (u16, String) {
    (200, r#"{"status":200}"#.to_owned())
}

fn refused(text: &str) -> (u16, String) {
    (400, format!(r#"{{"msg":"{text}","status":400}}"#))
}

/// A cluster of 1001, 1002 and 1003, with node 1002 in this status, or gone.
fn info(status_of_1002: Option<u8>, slots: &str) -> (u16, String) {
    let node = |id: u64, status: u8| {
        format!(
            r#"{{"id":{id},"clusterAddr":"10.0.0.{}:11110","online":true,"allowVote":true,"status":{status}}}"#,
            id - 1000
        )
    };
    let mut nodes = vec![node(1001, 3), node(1003, 3)];
    nodes.extend(status_of_1002.map(|status| node(1002, status)));
    let nodes = nodes.join(",");
    (
        200,
        format!(
            r#"{{"version":9,"slotCount":3,"slotReplicaCount":3,"term":2,"nodes":[{nodes}],"slots":[{slots}]}}"#
        ),
    )
}

const LED: &str = r#"{"leader":1001,"term":1,"replicas":[1001,1002,1003]},
    {"id":1,"leader":1002,"replicas":[1002,1001,1003]},{"id":2,"leader":1003,"replicas":[1003,1001,1002]}"#;

#[test]
fn status_is_a_table_and_a_summary() {
    let (out, outcome, asked) = play(&ClusterCommand::Status, [info(Some(3), LED)]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(
        out,
        "\
NODE  ADDRESS         ONLINE  STATUS   SLOTS  LEADS
1001  10.0.0.1:11110  yes     joined       3      1
1003  10.0.0.3:11110  yes     joined       3      1
1002  10.0.0.2:11110  yes     joined       3      1

3 slots: 3 have a leader, 0 under-replicated (fewer than 3 copies on nodes that answer), 0 moving
"
    );
    let (head, body) = asked[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("GET /cluster/info HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\ntoken: sec-ret"), "{head}");
    assert_eq!(body, "");
}

#[test]
fn a_slot_without_a_leader_makes_status_fail() {
    let body = r#"{"slotReplicaCount":3,
        "nodes":[{"id":1001,"clusterAddr":"a\u001b[2J:1","online":true,"allowVote":true,"status":3},
            {"id":1002,"allowVote":true,"status":4,"online":true},{"id":1003,"allowVote":true,"status":2},
            {"id":1004,"online":true,"status":3},{"id":1005,"status":9,"new":[]}],
        "slots":[{"replicas":[1001,1003]},{"id":1,"leader":1001,"replicas":[1001,1002],"learners":[1003]},
            {"id":2,"leader":1002,"replicas":[1002],"changing":true}],"unknown":1}"#;
    let (out, outcome, _) = play(&ClusterCommand::Status, [(200, body.to_owned())]);
    assert_eq!(outcome, Err("slots without a leader (1): 0".to_owned()));
    assert_eq!(
        out,
        "\
NODE  ADDRESS       ONLINE  STATUS   SLOTS  LEADS
1001  a\\u{1b}[2J:1  yes     joined       2      1
1002  -             yes     leaving      2      1
1003  -             no      joining      2      0
1004  -             yes     joined       0      0
1005  -             no      unknown      0      0

3 slots: 2 have a leader, 2 under-replicated (fewer than 2 copies on nodes that answer), 2 moving
"
    );
    let slots: Vec<_> = (0..30).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
    let (_, outcome, _) = play(&ClusterCommand::Status, [info(Some(3), &slots.join(","))]);
    let text = outcome.unwrap_err();
    assert!(
        text.starts_with("slots without a leader (30): 0, 1,") && text.ends_with("19, …"),
        "{text}"
    );
}

#[test]
fn changes_are_posted() {
    for (command, line, body) in [
        (
            ClusterCommand::Move { slot: 5, from: 1001, to: 1002 },
            "POST /cluster/slots/5/migrate HTTP/1.1",
            r#"{"migrate_from":1001,"migrate_to":1002}"#,
        ),
        (
            ClusterCommand::Remove { node: 1002, no_wait: true },
            "POST /cluster/nodes/1002/remove HTTP/1.1",
            "{}",
        ),
        (ClusterCommand::Keep { node: 1002 }, "POST /cluster/nodes/1002/keep HTTP/1.1", "{}"),
        (
            ClusterCommand::Replace { node: 1003, addr: "\"h:1".to_owned() },
            "POST /cluster/nodes/1003/replace HTTP/1.1",
            r#"{"addr":"\"h:1"}"#,
        ),
    ] {
        let (out, outcome, asked) = play(&command, [ok()]);
        assert_eq!(outcome, Ok(()), "{command:?}");
        assert_eq!(out.lines().count(), 1, "{out}");
        let (head, sent) = asked[0].split_once("\r\n\r\n").unwrap();
        assert_eq!((head.lines().next(), sent), (Some(line), body));
        assert!(head.contains("\r\ntoken: sec-ret"), "{head}");

        let (out, outcome, _) = play(&command, [refused("slot \\u001b not found")]);
        assert_eq!(
            (out.as_str(), outcome),
            ("", Err("refused: slot \\u{1b} not found".to_owned()))
        );
    }
}

#[test]
fn a_removal_is_watched_until_the_node_is_gone() {
    let command = ClusterCommand::Remove { node: 1002, no_wait: false };
    let fewer = r#"{"leader":1001,"replicas":[1001,1003]},{"id":1,"leader":1001,"replicas":[1001,1003]},
        {"id":2,"leader":1003,"replicas":[1003,1001,1002]}"#;
    let down = || (502, "gone".to_owned());
    let answers = [
        ok(),
        // The node that is asked need not know at once.
        info(Some(3), LED),
        info(Some(4), LED),
        down(),
        info(Some(4), fewer),
        info(Some(4), fewer),
        info(None, fewer),
    ];
    let (out, outcome, asked) = play(&command, answers);
    assert_eq!(outcome, Ok(()));
    let lines: Vec<_> = out.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "node 1002 still holds 3 slots, leads 1",
            "node 1002 still holds 1 slots, leads 0",
            "node 1002 is removed: it can be stopped",
        ]
    );
    assert_eq!(asked.len(), 7);

    let (out, outcome, _) = play(&command, [ok(), info(Some(4), LED), info(Some(3), LED)]);
    assert_eq!(outcome, Err("node 1002 stays: somebody took its removal back".to_owned()));
    assert!(out.contains("keep 1002"), "{out}");

    let answers = std::iter::once(ok()).chain((0..=FAILURES_MAX).map(|_| down()));
    let (_, outcome, _) = play(&command, answers);
    let text = outcome.unwrap_err();
    assert!(text.starts_with("the removal goes on") && text.ends_with("answered 502"), "{text}");

    let (out, outcome, _) = play(&command, [refused("node not found")]);
    assert_eq!((out.as_str(), outcome), ("", Err("refused: node not found".to_owned())));
}

#[test]
fn other_answers_are_explained() {
    for (status, body, wanted) in [
        (401, "", "the server wants its manager token"),
        (403, r#"{"msg":"没有权限","status":403}"#, "its own machine"),
        (404, "404 page not found", "has no /cluster/info"),
        (501, r#"{"msg":"not implemented yet","status":501}"#, "refused: not implemented yet"),
        (500, "", "GET /cluster/info answered 500"),
        (200, "<html>", "not what was expected"),
        (200, "[1,[{}]]", "no nodes or no slots"),
        (200, "{}", "no nodes or no slots"),
        (200, r#"{"nodes":[{"id":1}]}"#, "no nodes or no slots"),
    ] {
        let (out, outcome, _) = play(&ClusterCommand::Status, [(status, body.to_owned())]);
        let text = outcome.unwrap_err();
        assert!(text.contains(wanted), "{status}: {text}");
        assert_eq!(out, "");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server { url: format!("127.0.0.1:{port}"), token: None };
    let outcome = server.carry_out(&ClusterCommand::Status, &mut Vec::new(), Duration::ZERO);
    let text = format!("{:#}", outcome.unwrap_err());
    assert!(text.contains("--server") && text.contains("refused"), "{text}");
}

#[test]
fn the_server_is_the_one_of_the_settings() {
    let args = |server: Option<&str>, token: Option<&str>| ClusterArgs {
        server: server.map(str::to_owned),
        token: token.map(str::to_owned),
        command: ClusterCommand::Status,
    };
    let with = |file: &'static str, token: Option<&str>, variable: Option<&str>| {
        let variable = variable.map(str::to_owned);
        let server = Server::find(&args(None, token), variable, || Ok(config(file, &[]))).unwrap();
        (server.url, server.token)
    };
    let found = |url: &str, token: Option<&str>| (url.to_owned(), token.map(str::to_owned));
    assert_eq!(with("", None, None), found("http://127.0.0.1:5001", None));
    let file = "{httpAddr: '0.0.0.0:15001', managerToken: own}";
    assert_eq!(with(file, None, None), found("http://127.0.0.1:15001", Some("own")));
    assert_eq!(with(file, None, Some("env")), found("http://127.0.0.1:15001", Some("env")));
    assert_eq!(with(file, Some("arg"), Some("env")), found("http://127.0.0.1:15001", Some("arg")));
    assert_eq!(with(file, None, Some(" ")), found("http://127.0.0.1:15001", Some("own")));
    assert_eq!(with("httpAddr: 10.0.0.1:80", None, None), found("http://10.0.0.1:80", None));
    assert_eq!(with("httpAddr: '[::]:81'", None, None), found("http://[::1]:81", None));

    let unread = || bail!("nobody reads settings for a server that is named");
    let server = Server::find(&args(Some("http://far:1"), None), None, unread).unwrap();
    assert_eq!(server, Server { url: "http://far:1".to_owned(), token: None });
    let error = Server::find(&args(None, None), None, || bail!("broken")).unwrap_err();
    assert!(format!("{error:#}").contains("--server") && format!("{error:#}").contains("broken"));
}

#[test]
fn help_says_what_to_type() {
    use clap::Parser as _;

    for (line, wanted) in [
        (
            &["cluster", "--help"][..],
            &["status", "replace", "--server", "--token", "Examples:"][..],
        ),
        (&["cluster", "remove", "--help"], &["--no-wait", "keep"]),
        (&["cluster", "move", "--help"], &["SLOT", "FROM", "TO"]),
        (&["cluster", "replace", "--help"], &["HOST:PORT"]),
    ] {
        let args = std::iter::once("jindou").chain(line.iter().copied());
        let text = crate::cli::Cli::try_parse_from(args).unwrap_err().to_string();
        for word in wanted {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
