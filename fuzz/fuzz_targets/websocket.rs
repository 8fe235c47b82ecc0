//! Frames of a client, read by us and by tungstenite.
#![no_main]

use std::io::{self, Cursor, Read, Write};

use jindou_core::wire::websocket::{Reader, Role, Step};
use libfuzzer_sys::fuzz_target;
use tungstenite::{Message, WebSocket};

/// Reads a byte string, drops what is written.
struct Wire<'a>(Cursor<&'a [u8]>);

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(Role::Server);
    let mut copy = data.to_vec();
    let (mut place, mut ours, mut out) = (0, Vec::new(), Vec::new());
    let failed = loop {
        match reader.step(&mut copy, &mut place, &mut out) {
            Ok(Step::Data(range)) => ours.extend_from_slice(&copy[range]),
            Ok(Step::Need | Step::Close) => break false,
            Err(_) => break true,
        }
    };
    let role = tungstenite::protocol::Role::Server;
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(data)), role, None);
    let mut theirs = Vec::new();
    let refused = loop {
        match socket.read() {
            Ok(Message::Binary(data)) => theirs.extend_from_slice(&data),
            Ok(Message::Text(text)) => theirs.extend_from_slice(text.as_bytes()),
            // Behind a close frame we read nothing.
            Ok(Message::Close(_)) => break false,
            Ok(_) => {}
            Err(_) => break true,
        }
    };
    assert!(ours.starts_with(&theirs));
    assert!(refused || !failed);
});
