//! The PROXY header that a load balancer writes in front of a TCP connection (§6.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest version 1 line, line end included.
const LINE_SIZE_MAX: usize = 107;
/// Longest version 2 header: addresses and whatever extensions the balancer adds.
const V2_SIZE_MAX: usize = 2_048;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What stands at the front of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// Not a PROXY header; the bytes belong to the client.
    Absent,
    /// The bytes may become one.
    Need,
    /// A header of `size` bytes.
    Header {
        /// Bytes to drop.
        size: usize,
        /// The client's address; `None` for `UNKNOWN`, `LOCAL` and Unix sockets.
        peer: Option<SocketAddr>,
    },
}

/// The bytes begin like a PROXY header but are none. Close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed PROXY header")]
pub struct ProxyError;

/// Looks for a header at the front of `buf`.
///
/// # Errors
/// See [`ProxyError`].
pub fn parse(buf: &[u8]) -> Result<Proxy, ProxyError> {
    if starts_alike(buf, V1_START) {
        return if buf.len() < V1_START.len() { Ok(Proxy::Need) } else { parse_v1(buf) };
    }
    if starts_alike(buf, V2_START) {
        return parse_v2(buf);
    }
    Ok(Proxy::Absent)
}

/// Whether `buf` begins with `start`, as far as both go; an empty one does not.
fn starts_alike(buf: &[u8], start: &[u8]) -> bool {
    !buf.is_empty() && buf.iter().zip(start).all(|(a, b)| a == b)
}

fn parse_v1(buf: &[u8]) -> Result<Proxy, ProxyError> {
    let head = buf.get(..LINE_SIZE_MAX).unwrap_or(buf);
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if head.len() < LINE_SIZE_MAX { Ok(Proxy::Need) } else { Err(ProxyError) };
    };
    let line = core::str::from_utf8(head.get(..end).unwrap_or_default()).map_err(|_| ProxyError)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Proxy::Header { size: end + 2, peer: None });
    }
    let (Some(source), Some(_), Some(port), Some(_), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ProxyError);
    };
    let ip: IpAddr = source.parse().map_err(|_| ProxyError)?;
    match (family, ip) {
        (Some("TCP4"), IpAddr::V4(_)) | (Some("TCP6"), IpAddr::V6(_)) => {}
        _ => return Err(ProxyError),
    }
    let port = port.parse().map_err(|_| ProxyError)?;
    Ok(Proxy::Header { size: end + 2, peer: Some(SocketAddr::new(ip, port)) })
}

fn parse_v2(buf: &[u8]) -> Result<Proxy, ProxyError> {
    let Some(&[command, family, high, low]) = buf.get(12..16).and_then(|head| head.first_chunk())
    else {
        return Ok(Proxy::Need);
    };
    let size = 16 + usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 0x0f > 1 || size > V2_SIZE_MAX {
        return Err(ProxyError);
    }
    let Some(body) = buf.get(16..size) else {
        return Ok(Proxy::Need);
    };
    let local = command & 0x0f == 0;
    let peer = match family >> 4 {
        1 if !local => {
            let body: &[u8; 12] = body.first_chunk().ok_or(ProxyError)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *body;
            let ip = Ipv4Addr::new(a, b, c, d);
            Some(SocketAddr::new(ip.into(), u16::from_be_bytes([high, low])))
        }
        2 if !local => {
            let source: &[u8; 16] = body.first_chunk().ok_or(ProxyError)?;
            let port = body.get(32..36).and_then(|ports| ports.first_chunk()).ok_or(ProxyError)?;
            Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes(*port)))
        }
        0..=3 => None,
        _ => return Err(ProxyError),
    };
    Ok(Proxy::Header { size, peer })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn check(whole: &[u8], expected: Option<&str>) {
        for end in 0..whole.len() {
            let part = parse(&whole[..end]);
            assert!(matches!(part, Ok(Proxy::Need)) || end == 0, "{end}: {part:?}");
        }
        let peer = expected.map(|text| text.parse().unwrap());
        let header = Proxy::Header { size: whole.len(), peer };
        assert_eq!(parse(whole), Ok(header));
        assert_eq!(parse(&[whole, b"\x10more"].concat()), Ok(header));
    }

    #[test]
    fn a_line_names_the_client() {
        check(b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 5100\r\n", Some("10.1.2.3:4711"));
        check(b"PROXY TCP6 2001:db8::7 ::1 4711 5100\r\n", Some("[2001:db8::7]:4711"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let start = V2_START.as_slice();
        let v4 = [0x21, 0x11, 0, 12, 10, 1, 2, 3, 10, 0, 0, 1, 0x12, 0x67, 0x13, 0xec];
        check(&[start, &v4].concat(), Some("10.1.2.3:4711"));
        let mut v6 = vec![0x21, 0x21, 0, 40];
        v6.extend([0; 15]);
        v6.extend([1; 17]);
        v6.extend([0x12, 0x67, 0, 1, 0xee, 0, 1, 0]);
        check(&[start, &v6].concat(), Some("[::1]:4711"));
        check(&[start, &[0x20, 0, 0, 0]].concat(), None);
    }

    #[test]
    fn what_only_begins_alike_is_an_error_and_other_bytes_are_the_client_s() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat();
        for bad in [
            b"PROXY TCP4 10.1.2.3 10.0.0.1 4711\r\n".as_slice(),
            b"PROXY TCP4 ::1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 10.1.2.3 10.0.0.1 70000 2\r\n",
            b"PROXY UDP4 10.1.2.3 10.0.0.1 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
            &long,
        ] {
            assert_eq!(parse(bad), Err(ProxyError), "{bad:?}");
        }
        for other in [b"{\"method\"".as_slice(), b"\x10\x4d", b"P\x01", b"\r\n{", b""] {
            assert_eq!(parse(other), Ok(Proxy::Absent));
        }
    }
}
