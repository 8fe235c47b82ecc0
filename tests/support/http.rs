//! A minimal HTTP/1.1 client: one request per connection, so that a test sees exactly what a back
//! end of any language would.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;
use super::socket::dial;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}) in {:?}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request. An error means that the outcome is unknown.
pub fn request(address: &str, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
    request_within(PATIENCE, address, method, path, body)
}

/// One request that may take so long to connect, and so long between two pieces of its answer.
pub fn request_within(
    patience: Duration,
    address: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> io::Result<Reply> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    exchange(patience, address, &[head.as_bytes(), body].concat())
}

/// Writes bytes as they are and reads one answer up to the end of the connection.
pub fn exchange(patience: Duration, address: &str, bytes: &[u8]) -> io::Result<Reply> {
    let mut socket = dial(address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.write_all(bytes)?;
    let mut raw = Vec::new();
    socket.read_to_end(&mut raw)?;
    parse(&raw).ok_or_else(|| {
        let text = format!("no whole answer: {:?}", String::from_utf8_lossy(&raw));
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    })
}

/// Splits an answer; `None` when a part of it is missing.
fn parse(raw: &[u8]) -> Option<Reply> {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, rest) = (String::from_utf8_lossy(&raw[..end]), &raw[end + 4..]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim().to_owned())
    };
    let body = match header("content-length") {
        Some(size) => rest.get(..size.parse().ok()?)?.to_vec(),
        None if header("transfer-encoding").as_deref() == Some("chunked") => join_chunks(rest)?,
        None => rest.to_vec(),
    };
    Some(Reply { status, body })
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..line)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}

#[test]
fn an_answer_that_was_cut_is_no_answer() {
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(parse(whole).unwrap().body, b"ok");
    assert!(parse(&whole[..whole.len() - 1]).is_none());
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    assert_eq!(parse(chunks).unwrap().body, b"ok");
    assert!(parse(&chunks[..chunks.len() - 6]).is_none());
}
