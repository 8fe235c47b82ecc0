use jindou_core::request::Failure;

use super::*;
use crate::testing::{Fixture, err, fine};

fn asked(fixture: &Fixture) -> String {
    fixture.last_asked().1
}

#[test]
fn messages_are_written_with_their_places() {
    let fixture = Fixture::answers(|_, _| Reply::LastSeq(2));
    let body = r#"{"channel_id":"a@b","channel_type":1,"messages":[
        {"header":{"red_dot":1,"no_persist":1},"setting":8,"message_id":77,"client_msg_no":"n","message_seq":2,
         "from_uid":"","topic":"t","expire":3,"timestamp":5,"payload":"aGk="}]}"#;
    let answer = (200, r#"{"last_message_seq":2}"#.to_owned());
    assert_eq!(fixture.post("/migrate/messages", body), answer);
    let asked = asked(&fixture);
    for part in ["seq: 2", "id: 77", r#"from: "____system""#, "flags: 2", r#"payload: b"hi""#] {
        assert!(asked.contains(part), "{part} of {asked}");
    }
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let fixture = Fixture::silent();
    for (path, body) in [
        ("messages", r#"{"channel_id":"","messages":[]}"#),
        ("messages", r#"{"channel_id":"g","messages":[{"message_seq":1}]}"#),
        ("messages", r#"{"channel_id":"g","messages":[{"message_id":1}]}"#),
        ("messages", "{"),
        ("conversations", r#"{"conversations":[{"uid":"","channel_id":"g"}]}"#),
        ("conversations", r#"{"conversations":[{"uid":"u","channel_id":" "}]}"#),
        (
            "messages",
            r#"{"channel_id":"g","messages":[{"message_id":1,"message_seq":1,"timestamp":-1}]}"#,
        ),
        ("conversations", r#"{"conversations":[{"uid":"u","channel_id":"g","updated_at":-1}]}"#),
        (
            "conversations",
            r#"{"conversations":[{"uid":"u","channel_id":"g","readed_to_msg_seq":18446744073709551615}]}"#,
        ),
        ("conversations/read", r#"{"uids":[""]}"#),
        ("devices", r#"{"devices":[{"uid":""}]}"#),
        ("list", r#"{"channel_id":"g","channel_type":2,"list":"others","uids":["u"]}"#),
    ] {
        assert_eq!(fixture.post(&format!("/migrate/{path}"), body).0, 400, "{path} {body}");
    }
    let long = "u".repeat(5000);
    let body = format!(r#"{{"devices":[{{"uid":"{long}"}}]}}"#);
    assert_eq!(fixture.post("/migrate/devices", &body).0, 400);
}

#[test]
fn pieces_go_by_user_and_the_first_failure_is_told() {
    let fixture = Fixture::agreeable();
    let body = r#"{"conversations":[
        {"uid":"a","channel_id":"g","channel_type":2,"readed_to_msg_seq":4,"updated_at":9},
        {"uid":"b","channel_id":"g","channel_type":2},
        {"uid":"a","channel_id":"h","channel_type":2}]}"#;
    assert_eq!(fixture.post("/migrate/conversations", body), fine());
    assert_eq!(fixture.asked().len(), 2);
    let devices = r#"{"devices":[{"uid":"a","device_flag":1,"device_level":1,"token":"t"}]}"#;
    assert_eq!(fixture.post("/migrate/devices", devices), fine());
    let list = r#"{"channel_id":"g","channel_type":2,"list":"denylist","uids":["a",""]}"#;
    assert_eq!(fixture.post("/migrate/list", list), fine());
    assert!(asked(&fixture).contains(r#"list: Deny, uids: ["a"]"#));
    let fixture = Fixture::answers(|_, _| Reply::Failed(Failure::Busy));
    assert_eq!(fixture.post("/migrate/conversations", body), err("server is busy"));
}

#[test]
fn rows_are_read_back_as_they_stand() {
    let fixture = Fixture::replies([Reply::Conversations(Vec::new())]);
    let answer = fixture.post("/migrate/conversations/read", r#"{"uids":["a"]}"#);
    assert_eq!(answer, (200, "[]".to_owned()));
}

#[test]
fn strangers_and_guests_may_not() {
    let fixture = Fixture::silent();
    let routes = ["messages", "conversations", "conversations/read", "devices", "list"];
    for path in routes.map(|path| format!("/migrate/{path}")) {
        assert_eq!(fixture.call_from_afar("POST", &path, "{}").status.as_u16(), 403, "{path}");
        assert_eq!(fixture.call_manager("POST", &path).status.as_u16(), 401, "{path}");
    }
}
