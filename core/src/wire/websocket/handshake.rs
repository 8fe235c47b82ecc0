//! The HTTP upgrade (§6.1): any path and query, no subprotocol, no extension.

use std::net::{IpAddr, SocketAddr};

use httparse::{Header, Request, Response, Status};
use tungstenite::handshake::derive_accept_key;

/// Largest request head, in bytes.
pub const HEAD_SIZE_MAX: usize = 8_192;
const HEADER_COUNT_MAX: usize = 64;

/// Why a request is no upgrade. An HTTP answer was appended; close when it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Not HTTP at all.
    #[error("not an HTTP request")]
    Syntax,
    /// Above [`HEAD_SIZE_MAX`] or too many headers.
    #[error("request head is too long")]
    Oversized,
    /// Not `GET`, or older than HTTP/1.1.
    #[error("not a GET of HTTP/1.1")]
    Method,
    /// `Host`, `Upgrade`, `Connection` or the key is missing or wrong.
    #[error("header {0} is missing or wrong")]
    Header(&'static str),
    /// Not version 13.
    #[error("unsupported WebSocket version")]
    Version,
    /// The server did not accept (seen by clients only).
    #[error("upgrade was refused with status {0}")]
    Refused(u16),
}

impl UpgradeError {
    fn answer(self) -> &'static str {
        match self {
            Self::Oversized => {
                "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Version => {
                "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
            Self::Syntax | Self::Method | Self::Header(_) | Self::Refused(_) => {
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
        }
    }
}

/// An accepted upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Bytes of the request head; what follows are frames.
    pub size: usize,
    /// The client's address as a proxy in front told it (`X-Forwarded-For`, else `X-Real-IP`,
    /// with `X-Real-Port`; port 0 when it told none). To be ignored on TLS listeners (§6.1).
    pub peer: Option<SocketAddr>,
}

/// Reads the request at the front of `buf`; `None` while its head is incomplete. The answer,
/// good or bad, is appended to `out`.
///
/// # Errors
/// See [`UpgradeError`].
pub fn upgrade(buf: &[u8], out: &mut Vec<u8>) -> Result<Option<Upgrade>, UpgradeError> {
    let upgraded = read_request(buf, out);
    if let Err(error) = upgraded {
        out.extend_from_slice(error.answer().as_bytes());
    }
    upgraded
}

fn read_request(buf: &[u8], out: &mut Vec<u8>) -> Result<Option<Upgrade>, UpgradeError> {
    let head = buf.get(..HEAD_SIZE_MAX).unwrap_or(buf);
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT_MAX];
    let mut request = Request::new(&mut headers);
    let size = match request.parse(head) {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) if buf.len() < HEAD_SIZE_MAX => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(UpgradeError::Oversized);
        }
        Err(_) => return Err(UpgradeError::Syntax),
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(UpgradeError::Method);
    }
    let headers = &*request.headers;
    header(headers, "Host").ok_or(UpgradeError::Header("Host"))?;
    if !has_token(headers, "Upgrade", "websocket") {
        return Err(UpgradeError::Header("Upgrade"));
    }
    if !has_token(headers, "Connection", "upgrade") {
        return Err(UpgradeError::Header("Connection"));
    }
    if header(headers, "Sec-WebSocket-Version") != Some(b"13") {
        return Err(UpgradeError::Version);
    }
    let key = header(headers, "Sec-WebSocket-Key")
        .filter(|key| key.len() == 24)
        .ok_or(UpgradeError::Header("Sec-WebSocket-Key"))?;
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(derive_accept_key(key).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    Ok(Some(Upgrade { size, peer: peer(headers) }))
}

/// The address a proxy in front of us told, if it told one.
fn peer(headers: &[Header<'_>]) -> Option<SocketAddr> {
    let text = |name| {
        header(headers, name).and_then(|value| core::str::from_utf8(value).ok()).map(str::trim)
    };
    let ip: IpAddr = text("X-Forwarded-For")
        .and_then(|value| value.parse().ok())
        .or_else(|| text("X-Real-IP").and_then(|value| value.parse().ok()))?;
    let port = text("X-Real-Port").and_then(|value| value.parse().ok()).unwrap_or(0);
    Some(SocketAddr::new(ip, port))
}

fn header<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Whether one of the comma-separated values of all headers of this name is `token`.
fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name))
        .flat_map(|header| header.value.split(|&byte| byte == b','))
        .any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What a server answers to a client's `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Appends a client's request. `key` is base64 of 16 random bytes (24 characters).
pub fn client_request(out: &mut Vec<u8>, host: &str, path: &str, key: &str) {
    for part in [
        "GET ",
        path,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        key,
        "\r\n\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Reads a server's answer and gives its size; `None` while it is incomplete.
///
/// # Errors
/// See [`UpgradeError`].
pub fn client_response(buf: &[u8], accept: &str) -> Result<Option<usize>, UpgradeError> {
    let head = buf.get(..HEAD_SIZE_MAX).unwrap_or(buf);
    let mut headers = [httparse::EMPTY_HEADER; HEADER_COUNT_MAX];
    let mut response = Response::new(&mut headers);
    let size = match response.parse(head) {
        Ok(Status::Complete(size)) => size,
        Ok(Status::Partial) if buf.len() < HEAD_SIZE_MAX => return Ok(None),
        Ok(Status::Partial) => return Err(UpgradeError::Oversized),
        Err(_) => return Err(UpgradeError::Syntax),
    };
    match response.code {
        Some(101) => {}
        other => return Err(UpgradeError::Refused(other.unwrap_or(0))),
    }
    if header(response.headers, "Sec-WebSocket-Accept") != Some(accept.as_bytes()) {
        return Err(UpgradeError::Header("Sec-WebSocket-Accept"));
    }
    Ok(Some(size))
}
