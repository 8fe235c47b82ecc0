//! Bytes to and from a client port: TCP as it is, or WebSocket messages.

use std::io::{self, Cursor, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The half that writes. Whole messages of several threads do not mix.
pub struct Writer {
    socket: Mutex<TcpStream>,
    websocket: bool,
}

/// The half that reads.
pub struct Reader {
    socket: TcpStream,
    websocket: bool,
    /// What came and is not part of a returned piece.
    rest: Vec<u8>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some bytes of a TCP stream.
    Bytes(Vec<u8>),
    /// A whole binary WebSocket message.
    Binary(Vec<u8>),
    /// A whole text WebSocket message.
    Text(Vec<u8>),
}

/// Opens a socket to `HOST:PORT` with a numeric host. A host that swallows packets costs no more
/// than `patience`, now and at every later write.
pub fn dial(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let address = address.parse().map_err(io::Error::other)?;
    let socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(patience))?;
    Ok(socket)
}

/// Connects over TCP.
pub fn tcp(address: &str, patience: Duration) -> io::Result<(Writer, Reader)> {
    halves(dial(address, patience)?, false)
}

/// Connects and upgrades to WebSocket.
pub fn websocket(address: &str, patience: Duration) -> io::Result<(Writer, Reader)> {
    let mut socket = dial(address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes())?;
    // The server speaks next only after CONNECT, so nothing can stand behind the head.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let accepted = head.starts_with("HTTP/1.1 101 ")
        && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        && !head.to_ascii_lowercase().contains("sec-websocket-extensions");
    if !accepted {
        return Err(io::Error::other(format!("not upgraded: {head}")));
    }
    socket.set_read_timeout(None)?;
    halves(socket, true)
}

fn halves(socket: TcpStream, websocket: bool) -> io::Result<(Writer, Reader)> {
    let reader = Reader { socket: socket.try_clone()?, websocket, rest: Vec::new() };
    let socket = Mutex::new(socket);
    Ok((Writer { socket, websocket }, reader))
}

impl Writer {
    /// Writes messages at once: on WebSocket each becomes one frame of this kind.
    pub fn messages(&self, messages: &[Vec<u8>], text: bool) -> io::Result<()> {
        let opcode = OpCode::Data(if text { Data::Text } else { Data::Binary });
        let mut out = Vec::new();
        for message in messages {
            match self.websocket {
                true => frame(opcode, message, &mut out),
                false => out.extend_from_slice(message),
            }
        }
        self.raw(&out)
    }

    /// Writes bytes as they are.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.lock().unwrap().write_all(bytes)
    }

    /// Closes both directions.
    pub fn close(&self) {
        let _ = self.socket.lock().unwrap().shutdown(Shutdown::Both);
    }

    /// Closes the writing direction only.
    pub fn close_half(&self) {
        let _ = self.socket.lock().unwrap().shutdown(Shutdown::Write);
    }
}

/// Appends one masked frame, as a client sends it.
pub fn frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let mask = [0x5a, 0x01, 0xff, 0x37];
    let header = FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: Some(mask),
    };
    header.format(payload.len() as u64, out).unwrap();
    let masked = payload.iter().zip(mask.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

/// Whether the connection has ended, which says nothing about what was sent on it.
fn is_loss(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
    )
}

impl Reader {
    /// The next piece; `None` when the server closed the connection.
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.cut()? {
                return Ok(Some(piece));
            }
            let mut buffer = [0; 65_536];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(size) => self.rest.extend_from_slice(&buffer[..size]),
                Err(e) if is_loss(&e) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    fn cut(&mut self) -> io::Result<Option<Piece>> {
        if !self.websocket {
            let bytes = std::mem::take(&mut self.rest);
            return Ok((!bytes.is_empty()).then_some(Piece::Bytes(bytes)));
        }
        loop {
            let mut cursor = Cursor::new(&self.rest);
            let header = FrameHeader::parse(&mut cursor).map_err(io::Error::other)?;
            let Some((header, size)) = header else {
                return Ok(None);
            };
            let (start, size) = (cursor.position() as usize, size as usize);
            let Some(payload) = self.rest.get(start..start + size) else {
                return Ok(None);
            };
            let payload = payload.to_vec();
            self.rest.drain(..start + size);
            if !header.is_final || header.mask.is_some() {
                return Err(io::Error::other("a fragment or a masked frame of a server"));
            }
            match header.opcode {
                OpCode::Data(Data::Binary) => return Ok(Some(Piece::Binary(payload))),
                OpCode::Data(Data::Text) => return Ok(Some(Piece::Text(payload))),
                OpCode::Control(Control::Close | Control::Ping | Control::Pong) => {}
                other => return Err(io::Error::other(format!("unexpected {other}"))),
            }
        }
    }
}
