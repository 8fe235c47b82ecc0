//! What a node link brings, before anybody knows who is at the other end.
#![no_main]

use bytes::Bytes;
use jindou_net::link::{
    frame::{Frame, FrameError, FrameReader},
    hello::{Challenge, Hello},
};
use libfuzzer_sys::fuzz_target;

const SIZE_MAX: usize = 300;

fn frames(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut reader = FrameReader::new(SIZE_MAX);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(reader.held_size() < 4 + SIZE_MAX);
    }
    (frames, None)
}

fn check(frame: &Frame) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let again = Frame::decode(Bytes::copy_from_slice(&bytes[4..])).expect("ours");
    match (frame, &again) {
        // The text is cleaned and cut.
        (Frame::Refusal(one), Frame::Refusal(other)) => assert_eq!(one.code, other.code),
        (one, other) => assert_eq!(one, other),
    }
    match frame {
        Frame::Hello(body) => {
            if let Some(hello) = Hello::decode(body) {
                assert!(body.starts_with(&hello.encode()));
            }
        }
        Frame::Challenge(body) => {
            if let Some(challenge) = Challenge::decode(body) {
                assert_eq!(Challenge::decode(&challenge.encode()), Some(challenge));
            }
        }
        _ => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else {
        return;
    };
    let whole = frames(bytes, bytes.len());
    assert_eq!(frames(bytes, usize::from(piece)), whole);
    assert_eq!(frames(bytes, 1), whole);
    whole.0.iter().for_each(check);
});
