//! Text of a client: found by the scanner, read or refused.
#![no_main]

use jindou_core::wire::jsonrpc::{Scan, Scanner, decode, decode_reply, encode_error};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut scanner = Scanner::default();
    let mut rest = data;
    loop {
        let (object, end) = match scanner.scan(rest) {
            Scan::Blank | Scan::Part { .. } => break,
            Scan::Garbage { skip, error } => {
                assert!(!error.message.is_empty());
                (None, skip)
            }
            Scan::Whole { skip, end } => (rest.get(skip..end), end),
        };
        assert!(end > 0);
        rest = rest.get(end..).expect("within the slice");
        let Some(object) = object else {
            continue;
        };
        let _ = decode_reply(object);
        if let Err(error) = decode(object) {
            assert!(!error.message.is_empty());
            let mut reply = Vec::new();
            encode_error(&mut reply, error.id.as_deref(), 0, &error.message);
            // Our answer is one whole object that can be read.
            let whole = Scan::Whole { skip: 0, end: reply.len() };
            assert_eq!(Scanner::default().scan(&reply), whole);
            decode_reply(&reply).expect("ours");
        }
    }
    let _ = decode(data);
});
