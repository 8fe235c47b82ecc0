//! The HTTP server on real sockets, on both drivers.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{Node, Plan, connect, drivers, echo, is_closed};

fn nodes() -> Vec<Node> {
    drivers().into_iter().map(|driver| Plan::new(driver, 1).start(|_| echo)).collect()
}

/// Reads one answer with a Content-Length: status line, body.
fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(common::read(stream, 1));
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let body = common::read(stream, length);
    (head.lines().next().unwrap().to_owned(), String::from_utf8(body).unwrap())
}

fn ask(stream: &mut TcpStream, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    for node in nodes() {
        let mut stream = connect(node.http);
        for _ in 0..3 {
            let (status, body) = ask(&mut stream, "GET /a/b%20c?x=1&y HTTP/1.1\r\nhost: t\r\n\r\n");
            assert_eq!(status, "http/1.1 200 ok");
            assert_eq!(body, "GET /a/b%20c x=1&y 0");
        }
        let (_, body) =
            ask(&mut stream, "POST /p HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello");
        assert_eq!(body, "POST /p  5");
        // Three at once.
        stream
            .write_all(
                b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n\
                  GET /ask HTTP/1.1\r\nhost: t\r\n\r\n\
                  GET /3 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
            )
            .unwrap();
        for path in ["/slow", "/ask", "/3"] {
            assert_eq!(answer(&mut stream).1, format!("GET {path}  0"));
        }
        assert!(is_closed(&mut stream));
        node.wait_for(7, |counters| counters.http_requests.get());
        node.wait_for(0, |counters| counters.http_open.get());
    }
}

#[test]
fn a_body_may_come_in_pieces() {
    for node in nodes() {
        let mut stream = connect(node.http);
        stream
            .write_all(b"POST /c HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        for _ in 0..10 {
            stream.write_all(b"3\r\nabc\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        assert_eq!(answer(&mut stream).1, "POST /c  30");
        let body = "x".repeat(1 << 20);
        let request =
            format!("POST /l HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(ask(&mut stream, &request).1, format!("POST /l  {}", 1 << 20));
    }
}

#[test]
fn too_large_a_body_is_refused_before_it_is_read() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1);
        plan.http.body_size_max = 1000;
        let node = plan.start(|_| echo);
        // Announced: nothing of it is sent at all.
        let mut stream = connect(node.http);
        let request = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 68719476736\r\n\r\n";
        assert_eq!(ask(&mut stream, request).0, "http/1.1 413 payload too large");
        assert!(is_closed(&mut stream));
        // In chunks: refused when the bound is passed.
        let mut stream = connect(node.http);
        let head = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("258\r\n{}\r\n", "y".repeat(600));
        let status = ask(&mut stream, &format!("{head}{chunk}{chunk}")).0;
        assert_eq!(status, "http/1.1 413 payload too large");
        // The bound itself is fine.
        let mut stream = connect(node.http);
        let request = format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\n{}",
            "z".repeat(1000)
        );
        assert_eq!(ask(&mut stream, &request).1, "POST /  1000");
    }
}

#[test]
fn bodies_share_a_bound() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1);
        plan.http.body_total_size_max = 1500;
        let node = plan.start(|_| echo);
        let half = format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1001\r\n\r\n{}",
            "h".repeat(1000)
        );
        let mut first = connect(node.http);
        first.write_all(half.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut second = connect(node.http);
        assert_eq!(ask(&mut second, &half).0, "http/1.1 503 service unavailable");
        assert_eq!(ask(&mut first, "h").1, "POST /  1001");
        let mut third = connect(node.http);
        assert_eq!(ask(&mut third, &format!("{half}h")).1, "POST /  1001");
    }
}

#[test]
fn what_is_not_http_is_refused_and_the_next_one_served() {
    for node in nodes() {
        let samples: [&[u8]; 5] = [
            b"\x10\x00\x00\x00garbage\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
        ];
        for sample in samples {
            let mut stream = connect(node.http);
            stream.write_all(sample).unwrap();
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got);
            assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 400"), "{got:?}");
            let mut stream = connect(node.http);
            assert_eq!(ask(&mut stream, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").1, "GET /  0");
        }
        let mut stream = connect(node.http);
        let header = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
        let _ = stream.write_all(header.as_bytes());
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 431"), "{got:?}");
    }
}

#[test]
fn slow_headers_and_slow_bodies_run_out_of_time() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1);
        plan.http.idle_ms = 150;
        plan.http.body_ms = 150;
        let node = plan.start(|_| echo);
        let mut silent = connect(node.http);
        let mut header = connect(node.http);
        header.write_all(b"GET / HTTP/1.1\r\nhos").unwrap();
        let mut body = connect(node.http);
        let begin = Instant::now();
        let request = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nonly";
        assert_eq!(ask(&mut body, request).0, "http/1.1 408 request timeout");
        for stream in [&mut silent, &mut header, &mut body] {
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got);
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
        node.wait_for(0, |counters| counters.http_open.get());
    }
}

#[test]
fn a_request_under_way_is_answered_in_a_drain() {
    for driver in drivers() {
        let mut node = Plan::new(driver, 2).start(|_| echo);
        let mut stream = connect(node.http);
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let shards = node.shards.take().unwrap();
        shards.stop().drain();
        assert_eq!(answer(&mut stream).1, "GET /slow  0");
        assert!(is_closed(&mut stream));
        shards.wait().unwrap();
    }
}

/// A client that keeps its connection for its next request looks for another node at once.
#[test]
fn connections_without_a_request_are_closed_in_a_drain() {
    for driver in drivers() {
        let mut node = Plan::new(driver, 2).start(|_| echo);
        let (mut idle, mut silent, mut busy) =
            (connect(node.http), connect(node.http), connect(node.http));
        assert_eq!(ask(&mut idle, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").1, "GET /  0");
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        node.wait_for(3, |counters| counters.http_accepted.get());
        std::thread::sleep(Duration::from_millis(100));
        let shards = node.shards.take().unwrap();
        shards.stop().drain();
        assert!(is_closed(&mut idle));
        assert!(is_closed(&mut silent));
        // The drain still waits for the one under way.
        busy.set_nonblocking(true).unwrap();
        assert_eq!(busy.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        busy.set_nonblocking(false).unwrap();
        assert_eq!(answer(&mut busy).1, "GET /slow  0");
        assert!(is_closed(&mut busy));
        shards.wait().unwrap();
    }
}

#[test]
fn a_client_that_goes_away_leaves_nothing() {
    for node in nodes() {
        for _ in 0..50 {
            let mut stream = connect(node.http);
            stream.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        }
        node.wait_for(50, |counters| counters.http_accepted.get());
        node.wait_for(0, |counters| counters.http_open.get());
    }
}
