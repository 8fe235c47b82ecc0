//! Frames that decode are written and read again as they were.
#![no_main]

use jindou_core::wire::frame::{Frame, decode, encode, setting, size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&version, bytes)) = data.split_first() else {
        return;
    };
    let version = version % 8;
    let Ok(Some((frame, taken))) = decode(bytes, version) else {
        return;
    };
    assert_eq!(size(bytes), Ok(Some(taken)));
    let mut out = Vec::new();
    encode(&frame, version, &mut out).expect("what was read can be written");
    // Trailing bytes and longer lengths are not kept, nothing else is lost.
    assert!(out.len() <= taken);
    let again = decode(&out, version).expect("ours").expect("whole");
    let mut expected = frame;
    if let Frame::Recv(recv) = &mut expected
        && version < 5
        && recv.stream.is_none()
    {
        recv.setting &= !setting::STREAM;
    }
    assert_eq!(again, (expected, out.len()));
});
