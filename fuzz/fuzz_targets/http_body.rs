//! Bodies of HTTP requests: every reader, whatever the bytes.
#![no_main]

use jindou_api::fuzz_body;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz_body(data));
