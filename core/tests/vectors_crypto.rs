//! `vectors/crypto.json`: key agreement, payload encryption and message keys of real SDKs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use jindou_core::wire::crypto::{Cipher, ClientKey, KeyError, ServerKey, sealed_size};
use jindou_core::wire::frame::{Recv, Send};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/crypto.json")).unwrap()
}

fn str<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    core::array::from_fn(|place| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).unwrap())
}

fn cipher_of(vectors: &Value, agreement: &str) -> Cipher {
    let agreements = vectors["agreements"].as_array().unwrap();
    let found = agreements.iter().find(|entry| entry["name"] == agreement).unwrap();
    let key = str(found, "aes_key_ascii").as_bytes().try_into().unwrap();
    Cipher::from_parts(key, str(found, "aes_iv_ascii").as_bytes().try_into().unwrap())
}

#[test]
fn both_sides_agree_on_the_key_of_the_sdk() {
    let vectors = vectors();
    for entry in vectors["agreements"].as_array().unwrap() {
        let client = ClientKey::from_seed(bytes(str(entry, "client_private_hex")));
        let server = ServerKey::from_seed(bytes(str(entry, "server_private_hex")));
        assert_eq!(client.public_base64(), str(entry, "connect_clientKey"));
        assert_eq!(server.public_base64(), str(entry, "connack_serverKey"));
        let salt = str(entry, "connack_salt");
        let expected = cipher_of(&vectors, str(entry, "name"));
        let theirs = client.agree(server.public_base64(), salt).unwrap();
        let ours =
            server.agree(client.public_base64(), salt.as_bytes().try_into().unwrap()).unwrap();
        assert!(theirs == expected && ours == expected, "{}", entry["name"]);
    }
}

#[test]
fn payloads_are_sealed_and_opened_as_the_sdk_does() {
    let vectors = vectors();
    for entry in vectors["payload_encryption"].as_array().unwrap() {
        let cipher = cipher_of(&vectors, str(entry, "agreement"));
        let plain = str(entry, "plaintext_utf8").as_bytes();
        let wire = str(entry, "wire_payload_base64_ascii").as_bytes();
        let mut sealed = Vec::new();
        cipher.seal(plain, &mut sealed);
        assert_eq!(sealed, wire);
        assert_eq!(sealed.len(), sealed_size(plain.len()));
        let mut opened = b"kept".to_vec();
        cipher.open(wire, &mut opened).unwrap();
        assert_eq!(&opened[4..], plain);
    }
}

#[test]
fn message_keys_are_those_of_the_sdk() {
    let vectors = vectors();
    for entry in vectors["msg_keys"].as_array().unwrap() {
        let cipher = cipher_of(&vectors, str(entry, "agreement"));
        let key = str(entry, "msgKey");
        let number = |name: &str| entry[name].as_u64().unwrap();
        let signed = str(entry, "signed_string");
        assert_eq!(cipher.message_key([signed.as_bytes()]), key.as_bytes());
        let mut sealed = Vec::new();
        cipher.seal(signed.as_bytes(), &mut sealed);
        assert_eq!(sealed, str(entry, "aes_base64_of_signed_string").as_bytes());
        let payload = str(entry, "wire_payload").as_bytes();
        match str(entry, "kind") {
            "SEND" => {
                let send = Send {
                    client_seq: number("clientSeq").try_into().unwrap(),
                    client_msg_no: str(entry, "clientMsgNo"),
                    channel_id: str(entry, "channelId"),
                    channel_type: number("channelType").try_into().unwrap(),
                    msg_key: key,
                    payload,
                    ..Send::default()
                };
                assert_eq!(cipher.send_key(&send), key.as_bytes());
                assert!(cipher.verify_send(&send));
                assert!(!cipher.verify_send(&Send { msg_key: "", ..send }));
                assert!(!cipher.verify_send(&Send { client_msg_no: "other", ..send }));
            }
            "RECV" => {
                let recv = Recv {
                    message_id: str(entry, "messageId").parse().unwrap(),
                    message_seq: number("messageSeq").try_into().unwrap(),
                    client_msg_no: str(entry, "clientMsgNo"),
                    timestamp: number("timestamp").try_into().unwrap(),
                    from_uid: str(entry, "fromUid"),
                    channel_id: str(entry, "channelId"),
                    channel_type: number("channelType").try_into().unwrap(),
                    msg_key: key,
                    payload,
                    ..Recv::default()
                };
                assert!(cipher.verify_recv(&recv));
                assert!(!cipher.verify_recv(&Recv { from_uid: "other", ..recv }));
            }
            other => panic!("unknown kind {other}"),
        }
    }
}

#[test]
fn unusable_client_keys_are_told_apart() {
    let server = ServerKey::from_seed([7; 32]);
    let check = |key: &str| server.agree(key, *b"0123456789abcdef").err();
    assert_eq!(check(""), Some(KeyError::Short));
    assert_eq!(check("AAAA"), Some(KeyError::Short));
    assert_eq!(check("***"), Some(KeyError::Encoding));
    assert_eq!(check("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), Some(KeyError::Weak));
    // The point of order 2^0 with u = 1: everybody gets the secret 0.
    assert_eq!(check("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), Some(KeyError::Weak));
    let key = ClientKey::from_seed([9; 32]);
    assert_eq!(check(key.public_base64()), None);
    assert_eq!(key.agree(server.public_base64(), "short").err(), Some(KeyError::Salt));
    // More than 32 bytes: the first 32 count.
    let long = format!("{}{}", &key.public_base64()[..43], "A".repeat(200 - 43));
    assert_eq!(check(&long), None);
}
