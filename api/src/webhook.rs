//! The bodies of webhooks (http-api.md §19.4–19.6).

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use jindou_core::{
    id::{Name, NodeId},
    message::{Message, SharedMessage},
};
use serde::Serialize;

use crate::{
    json::{Base64, to_json},
    message_json::MessageJson,
};

/// msg.notify: messages as history shows them.
pub fn notify_body(messages: &[SharedMessage]) -> Bytes {
    let messages: Vec<_> = messages.iter().map(|message| MessageJson::new(message)).collect();
    to_json(&messages)
}

/// user.onlinestatus: items as the core writes them.
pub fn status_body(items: &[Name]) -> Bytes {
    let items: Vec<&str> = items.iter().map(|item| &**item).collect();
    to_json(&items)
}

#[derive(Serialize)]
struct OfflineJson<'a> {
    #[serde(flatten)]
    message: MessageJson<'a>,
    to_uids: &'a [&'a str],
    #[serde(skip_serializing_if = "str::is_empty")]
    compress: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress_to_uids: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    source_id: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// msg.offline: the message as it was sent, and the recipients without a master session. With more
/// of them than `compress_above` they come as one gzip member.
pub fn offline_body(
    message: &Message,
    uids: &[Name],
    compress_above: Option<usize>,
    source: NodeId,
) -> Bytes {
    let uids: Vec<&str> = uids.iter().map(|uid| &**uid).collect();
    let compressed = match compress_above {
        Some(count) if uids.len() > count => gzip(&to_json(&uids)),
        Some(_) | None => None,
    };
    to_json(&OfflineJson {
        message: MessageJson::as_sent(message),
        to_uids: if compressed.is_some() { &[] } else { &uids },
        compress: if compressed.is_some() { "gzip" } else { "" },
        compress_to_uids: compressed.as_deref().map(Base64),
        source_id: source.0,
    })
}

/// A complete gzip member; `None` if there is no memory for it.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::io::Read as _;

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use flate2::read::GzDecoder;
    use jindou_core::message::flag;
    use serde_json::Value;

    use super::*;
    use crate::testing::message;

    fn parsed(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn offline_says_whom_and_shows_what_was_sent() {
        let mut sent = message(5, "b@a____cmd", 1);
        (sent.from, sent.flags) = ("a".into(), flag::SYNC_ONCE);
        let body = parsed(&offline_body(&sent, &["b".into()], None, NodeId(1001)));
        assert_eq!(body["channel_id"], "b");
        assert_eq!(body["to_uids"], serde_json::json!(["b"]));
        assert_eq!(body["source_id"], 1001);
        assert_eq!(body.get("compress"), None);
        sent.from = "____system".into();
        sent.shown = Some("b".into());
        let body = parsed(&offline_body(&sent, &["b".into()], Some(1), NodeId(0)));
        assert_eq!((&body["from_uid"], &body["channel_id"]), (&"____system".into(), &"b".into()));
        assert_eq!(body.get("source_id"), None);
    }

    #[test]
    fn many_uids_come_as_a_whole_gzip_member() {
        let body = offline_body(&message(5, "g", 2), &["x".into(), "y".into()], Some(1), NodeId(1));
        let body = parsed(&body);
        assert_eq!((&body["to_uids"], &body["compress"]), (&serde_json::json!([]), &"gzip".into()));
        let packed = STANDARD.decode(body["compress_to_uids"].as_str().unwrap()).unwrap();
        let mut text = String::new();
        GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"["x","y"]"#);
    }

    #[test]
    fn batches_are_arrays() {
        let body = parsed(&notify_body(&[message(1, "g", 2).into(), message(2, "g", 2).into()]));
        assert_eq!(body.as_array().unwrap().len(), 2);
        assert_eq!(&*status_body(&["u-0-1-3-1-1".into()]), br#"["u-0-1-3-1-1"]"#);
    }
}
