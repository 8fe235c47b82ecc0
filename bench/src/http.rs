//! As much of an HTTP client as setting up a workload and asking an operator's question take:
//! blocking, HTTP/1.1, a connection per request, no TLS.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The largest answer, in bytes.
const ANSWER_SIZE_MAX: u64 = 64 << 20;
/// How long to wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The HTTP API of a server.
pub struct Api<'a> {
    base: &'a str,
    token: Option<&'a str>,
    login: Option<&'a str>,
}

impl<'a> Api<'a> {
    /// The API at `base` (`http://HOST:PORT`, with or without a path; `http://` and `:80` may be
    /// left out), which `token` opens (the header `token`).
    pub fn new(base: &'a str, token: Option<&'a str>) -> Api<'a> {
        Api { base, token, login: None }
    }

    /// The same API with the token of a manager's log-in.
    #[must_use]
    pub fn with_login(self, login: Option<&'a str>) -> Api<'a> {
        Api { login, ..self }
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

    /// Status and body of the answer to one request.
    ///
    /// # Errors
    /// The server can't be reached, is silent for a minute, or does not speak HTTP; what is asked
    /// can't be written as HTTP.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let rest = without_scheme(self.base)?;
        let (authority, root) = match rest.split_once('/') {
            Some((authority, root)) => (authority, format!("/{root}")),
            None => (rest, String::new()),
        };
        let token = self.token.map(|token| format!("token: {token}\r\n")).unwrap_or_default();
        let login = self.login.map(|login| format!("Authorization: Bearer {login}\r\n"));
        let login = login.unwrap_or_default();
        let head = format!(
            "{method} {root}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
             Content-Type: application/json\r\n{token}{login}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let lines = 6 + usize::from(self.token.is_some()) + usize::from(self.login.is_some());
        let is_one_head = head.bytes().filter(|byte| *byte == b'\n').count() == lines;
        ensure!(is_one_head, "the address or the token holds a line break");
        let mut socket = connect(authority)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        socket.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut answer = Vec::new();
        socket.take(ANSWER_SIZE_MAX).read_to_end(&mut answer)?;
        parse(&answer)
    }
}

/// An address without `http://` and slashes at its end.
fn without_scheme(base: &str) -> anyhow::Result<&str> {
    let rest = match base.split_once("://") {
        None => base,
        Some(("http", rest)) => rest,
        Some((scheme, _)) => bail!("{scheme}:// is not supported, only http://"),
    };
    Ok(rest.trim_end_matches('/'))
}

/// `HOST:PORT` of an address without a path.
pub(crate) fn authority_of(base: &str) -> anyhow::Result<String> {
    let rest = without_scheme(base)?;
    ensure!(!rest.contains('/'), "an address with a path can't be put under load");
    Ok(rest.to_owned())
}

/// Connects to the first address of `host:port` that takes it.
pub(crate) fn connect(authority: &str) -> anyhow::Result<TcpStream> {
    let has_port = authority.rsplit_once(']').map_or(authority, |(_, tail)| tail).contains(':');
    let host = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut last = None;
    for peer in host.to_socket_addrs().with_context(|| format!("resolve {host}"))? {
        match TcpStream::connect_timeout(&peer, CONNECT_TIME_MAX) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("connect to {host}")),
        None => bail!("{host} has no address"),
    }
}

/// Status and body.
fn parse(answer: &[u8]) -> anyhow::Result<(u16, String)> {
    let place = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) =
        place.and_then(|place| answer.split_at_checked(place)).context("no HTTP answer")?;
    let head = String::from_utf8_lossy(head);
    let body = body.get(4..).unwrap_or_default();
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let is_chunked = head.lines().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding")
                && value.trim().eq_ignore_ascii_case("chunked")
        })
    });
    let body = if is_chunked { joined(body).context("broken chunks")? } else { body.to_vec() };
    Ok((status.context("no HTTP status")?, String::from_utf8_lossy(&body).into_owned()))
}

/// The chunks of a body, joined. `None`: one is cut off or its size is no number.
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = line.split(';').next().unwrap_or(line).trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let after = rest.get(end.checked_add(2)?..)?;
        body.extend_from_slice(after.get(..size)?);
        rest = after.get(size.checked_add(2)?..)?;
    }
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

    #[test]
    fn chunks_are_joined() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding:  Chunked\r\n\r\n";
        let of = |body: &str| parse(format!("{head}{body}").as_bytes()).map(|(_, body)| body).ok();
        assert_eq!(of("3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n").unwrap(), "abc0123456789");
        assert_eq!(of("0\r\n\r\n").unwrap(), "");
        for broken in ["", "3\r\nab", "3\r\nabc", "x\r\n", "ffffffffffffffff\r\na", "-1\r\na\r\n"] {
            assert_eq!(of(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn what_is_no_http_is_refused_before_a_connection() {
        for (base, token) in [
            ("https://localhost:1", None),
            ("localhost:1\r\nX: y", None),
            ("localhost:1", Some("a\nb")),
        ] {
            let error = Api::new(base, token).ask("GET", "/", "").unwrap_err().to_string();
            assert!(error.contains("not supported") || error.contains("line break"), "{error}");
        }
    }
}
