//! As much of an HTTP client as setting up a workload takes.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// The HTTP API of the server under load.
pub(crate) struct Api<'a> {
    base: &'a str,
    token: Option<&'a str>,
}

impl<'a> Api<'a> {
    pub(crate) fn new(base: &'a str, token: Option<&'a str>) -> Api<'a> {
        Api { base, token }
    }

    /// POSTs JSON; any status but 200 is an error.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let (status, text) = self.ask("POST", path, &body.to_string())?;
        if status != 200 {
            bail!("POST {path} answered {status}: {}", text.trim());
        }
        Ok(())
    }

    /// Waits until GET /health answers 200.
    pub(crate) fn wait(&self, most: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.ask("GET", "/health", "");
            match answer {
                Ok((200, _)) => return Ok(()),
                _ if began.elapsed() < most => std::thread::sleep(Duration::from_millis(50)),
                Ok((status, text)) => bail!("/health still answers {status}: {}", text.trim()),
                Err(error) => return Err(error.context("/health does not answer")),
            }
        }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let rest = self.base.strip_prefix("http://").unwrap_or(self.base).trim_end_matches('/');
        let (authority, root) = match rest.split_once('/') {
            Some((authority, root)) => (authority, format!("/{root}")),
            None => (rest, String::new()),
        };
        let host =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let peer = host.to_socket_addrs().context("resolve")?.next().context("no address")?;
        let mut socket = TcpStream::connect_timeout(&peer, Duration::from_secs(5))
            .with_context(|| format!("connect to {host}"))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let token = self.token.map(|token| format!("token: {token}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {root}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Type: application/json\r\n{token}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        parse(&answer)
    }
}

/// Status and body (as it stands, chunk sizes and all: it is only shown).
fn parse(answer: &[u8]) -> anyhow::Result<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let (status, body) = parse(b"HTTP/1.1 400 Bad Request\r\nA: b\r\n\r\nno").unwrap();
        assert_eq!((status, body.as_str()), (400, "no"));
        assert!(parse(b"").is_err());
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
