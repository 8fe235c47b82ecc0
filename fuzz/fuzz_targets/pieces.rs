//! Shared by the connection targets: the same bytes in different pieces.

use jindou_core::wire::inbound::Inbound;

/// What a connection makes of `bytes`: packets in words, the error, the answers.
fn transcript(mut inbound: Inbound, bytes: &[u8], piece: usize) -> (Vec<String>, Vec<u8>) {
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        let mut piece = piece.to_vec();
        let mut feed = inbound.feed(&mut piece);
        loop {
            match feed.next(&mut out) {
                Ok(Some(incoming)) => seen.push(format!("{incoming:?}")),
                Ok(None) => break,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    drop(feed);
                    assert_eq!(inbound.held_size(), 0);
                    return (seen, out);
                }
            }
        }
        drop(feed);
        assert!(inbound.held_size() <= 4 * bytes.len() + 64);
    }
    (seen, out)
}

/// The same, with the reader dropped after every packet and the rest left in it.
fn held(mut inbound: Inbound, bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    let mut bytes = bytes.to_vec();
    let mut first = true;
    loop {
        let fed: &mut [u8] = if first { &mut bytes } else { &mut [] };
        first = false;
        match inbound.feed(fed).next(&mut out) {
            Ok(Some(incoming)) => seen.push(format!("{incoming:?}")),
            Ok(None) => return (seen, out),
            Err(error) => {
                seen.push(format!("{error:?}"));
                return (seen, out);
            }
        }
    }
}

/// Whole, byte by byte, in pieces of `piece`, and packet by packet it is the same.
pub fn check(inbound: Inbound, bytes: &[u8], piece: usize) {
    let whole = transcript(inbound.clone(), bytes, bytes.len());
    assert_eq!(transcript(inbound.clone(), bytes, 1), whole);
    assert_eq!(transcript(inbound.clone(), bytes, piece), whole);
    assert_eq!(held(inbound, bytes), whole);
}
