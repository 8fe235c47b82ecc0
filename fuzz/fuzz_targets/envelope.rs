//! What another node sends over a link: any bytes, as a batch and as the archive of one record.
//! What is read is written again and read alike.
#![no_main]

use jindou_core::link;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    let mut record = vec![link::VERSION];
    record.extend_from_slice(&u32::try_from(data.len()).expect("small").to_le_bytes());
    record.extend_from_slice(data);
    check(&record);
});

fn check(bytes: &[u8]) {
    if let Ok(envelopes) = link::decode(&bytes.to_vec().into()) {
        let again = link::encode(&envelopes).expect("what was read can be written");
        assert_eq!(link::decode(&again.into()).expect("ours"), envelopes);
    }
}
