#![expect(clippy::wildcard_enum_match_arm, reason = "tests")]

use super::*;
use crate::testing::{Fixture, err, fine};

/// A node that takes every message.
fn sending() -> Fixture {
    Fixture::answers(|_, request| match request {
        Request::Send(_) => Reply::Sent { message_id: 77, seq: 5, code: Code::Success },
        Request::ClaimStream(_) => Reply::StreamClaim(Box::default()),
        other => unreachable!("{other:?}"),
    })
}

#[test]
fn sends_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let check = |body: &str, text: &str| {
        assert_eq!(fixture.post("/message/send", body), err(text), "{body}");
    };
    let (no_payload, unclear, bad_id) =
        ("payload不能为空！", "无法处理发送消息请求！", "频道ID不合法！");
    check(r#"{"channel_id":"g","channel_type":2}"#, no_payload);
    check(r#"{"channel_id":"g","channel_type":2,"payload":""}"#, no_payload);
    check(r#"{"channel_id":"g","channel_type":2,"payload":null}"#, no_payload);
    check("{}", no_payload);
    check("null", no_payload);
    check(r#"{"payload":"e30="}"#, unclear);
    check(r#"{"payload":"e30=","channel_id":"   ","channel_type":2}"#, unclear);
    check(r#"{"payload":"e30=","subscribers":["a"]}"#, unclear);
    check(r#"{"payload":"e30=","subscribers":["a"],"header":{"no_persist":1}}"#, unclear);
    check(r#"{"payload":"e30=","subscribers":["a"],"header":{"sync_once":2}}"#, unclear);
    check(r#"{"payload":"e30=","subscribers":[" "],"header":{"sync_once":1}}"#, unclear);
    let both =
        r#"{"payload":"e30=","subscribers":["a"],"channel_id":"g","header":{"sync_once":1}}"#;
    check(both, unclear);
    for id in ["g@1", "g#1", "g&1"] {
        check(&format!(r#"{{"payload":"e30=","channel_id":"{id}","channel_type":2}}"#), bad_id);
    }
    check(r#"{"payload":"***"}"#, "illegal base64 data at input byte 0");
    check(r#"{"payload":"e3*="}"#, "illegal base64 data at input byte 2");
    check(r#"{"payload":"e30"}"#, "illegal base64 data at input byte 0");
    let long = "u".repeat(4097);
    check(
        &format!(r#"{{"payload":"e30=","channel_id":"{long}","channel_type":1}}"#),
        "channel_id is longer than 4096 bytes",
    );
    check(
        &format!(r#"{{"payload":"e30=","channel_id":"g","from_uid":"{long}"}}"#),
        "from_uid is longer than 4096 bytes",
    );
}

#[test]
fn a_person_message_goes_to_the_stored_channel_and_tells_its_id() {
    let fixture = sending();
    let body = r#"{"header":{"red_dot":1},"from_uid":"u1","channel_id":"u2","channel_type":1,
        "client_msg_no":"n1","expire":9,"payload":"aGk="}"#;
    let answer = r#"{"data":{"client_msg_no":"n1","message_id":77},"status":200}"#;
    assert_eq!(fixture.post("/message/send", body), (200, answer.to_owned()));
    let (target, asked) = fixture.last_asked();
    assert_eq!(target, Target::Id("u2@u1".into()));
    assert_eq!(
        asked,
        r#"Send(ApiSend { channel: ChannelId { id: "u2@u1", kind: 1 }, shown: None, from: "u1", client_msg_no: "n1", flags: 2, setting: 0, expire: 9, recipients: None, payload: b"hi" })"#
    );
}

#[test]
fn what_is_left_out_is_filled_in() {
    let fixture = sending();
    let body = r#"{"channel_id":"g","channel_type":2,"payload":[109,51],"from_uid":"  ",
        "client_msg_no":" ","is_stream":1,"header":{"red_dot":7,"sync_once":2,"no_persist":-1}}"#;
    let answer = r#"{"data":{"client_msg_no":"00000000000000000000000000000abc0","message_id":77},"status":200}"#;
    assert_eq!(fixture.post("/message/send", body), (200, answer.to_owned()));
    let (_, asked) = fixture.last_asked();
    assert!(asked.contains(r#"from: "____system""#), "{asked}");
    assert!(asked.contains(r#"flags: 0, setting: 2, expire: 0"#), "{asked}");
    assert!(asked.contains(r#"payload: b"m3""#), "{asked}");
}

#[test]
fn commands_go_beside_the_channel_and_show_its_name() {
    let fixture = sending();
    for (body, stored, shown) in [
        (r#""channel_id":"g","channel_type":2"#, "g____cmd", "Some(\"g\")"),
        (r#""channel_id":"u2","channel_type":1"#, "u2@u1____cmd", "Some(\"u2\")"),
        (r#""channel_id":"bot","channel_type":11"#, "u1@bot____cmd", "Some(\"bot\")"),
        (r#""channel_id":"t","channel_type":8"#, "t", "None"),
        (r#""channel_id":"systemcmdonline","channel_type":2"#, "systemcmdonline", "None"),
    ] {
        let body =
            format!(r#"{{"header":{{"sync_once":1}},"from_uid":"u1",{body},"payload":"YQ=="}}"#);
        fixture.post("/message/send", &body);
        let (target, asked) = fixture.last_asked();
        assert_eq!(target, Target::Id(stored.into()));
        assert!(asked.contains(&format!("shown: {shown}, from")), "{asked}");
        assert!(asked.contains("flags: 4"), "{asked}");
    }
}

#[test]
fn lists_of_uids_get_commands() {
    let fixture = sending();
    let stored = r#"{"header":{"sync_once":1},"subscribers":["u1","u2"],"payload":"YQ==","client_msg_no":"mine"}"#;
    assert_eq!(fixture.post("/message/send", stored), fine());
    let (target, asked) = fixture.last_asked();
    assert_eq!(target, Target::Id("17922244540036557902____cmd".into()));
    assert!(asked.contains("kind: 8 }, shown: None, from: \"____system\""), "{asked}");
    assert!(asked.contains(r#"recipients: Some(["u1", "u2"])"#), "{asked}");
    assert!(!asked.contains("mine"), "the number is made up: {asked}");

    let online = r#"{"header":{"sync_once":1,"no_persist":1},"from_uid":"c","subscribers":["b","","b","a"],"payload":"YQ=="}"#;
    assert_eq!(fixture.post("/message/send", online), fine());
    let (target, asked) = fixture.last_asked();
    assert_eq!(target, Target::Id("systemcmdonline".into()));
    assert!(asked.contains(r#"from: "c""#) && asked.contains("flags: 5"), "{asked}");
    assert!(asked.contains(r#"recipients: Some(["b", "a"])"#), "{asked}");
}

#[test]
fn a_refused_message_has_an_id_and_a_failed_one_an_error() {
    let body = r#"{"channel_id":"g","channel_type":2,"client_msg_no":"n","payload":"YQ=="}"#;
    let sent = |code| Reply::Sent { message_id: 3, seq: 0, code };
    let answer = (200, r#"{"data":{"client_msg_no":"n","message_id":3},"status":200}"#.to_owned());
    for (reply, expected) in [
        (sent(Code::Ban), answer.clone()),
        (sent(Code::Disband), answer),
        (sent(Code::SystemError), err("server is busy")),
        (Reply::Failed(Failure::Timeout), err("context deadline exceeded")),
        (Reply::Failed(Failure::NoLeader), err("获取频道所在节点失败！")),
        (Reply::Failed(Failure::Storage), err("storage error")),
        (Reply::Done, err("internal error")),
    ] {
        assert_eq!(Fixture::replies([reply]).post("/message/send", body), expected);
    }
}

#[test]
fn batches_are_refused_in_order() {
    let fixture = Fixture::silent();
    let check = |body: &str, text: &str| {
        assert_eq!(fixture.post("/message/sendbatch", body), err(text), "{body}");
    };
    check("{}", "from_uid不能为空！");
    check(r#"{"from_uid":" "}"#, "from_uid不能为空！");
    check(r#"{"from_uid":"a"}"#, "subscribers不能为空！");
    check(r#"{"from_uid":"a","subscribers":[]}"#, "subscribers不能为空！");
    check(r#"{"from_uid":"a","subscribers":["b"]}"#, "payload不能为空！");
    check(r#"{"payload":"?"}"#, "illegal base64 data at input byte 0");
}

#[test]
fn a_batch_is_a_person_message_each_and_tells_who_got_none() {
    let fixture = Fixture::answers(|target, _| {
        if *target == Target::Id("d@a".into()) || *target == Target::Id("a@d".into()) {
            return Reply::Failed(Failure::Busy);
        }
        Reply::Sent { message_id: 1, seq: 1, code: Code::Success }
    });
    let body = r#"{"header":{"red_dot":1},"from_uid":"a","subscribers":["b","x@1","","c","y#1","d"],"payload":"aGVsbG8="}"#;
    let answer = r#"{"fail_uids":["x@1","y#1","d"],"reason":["频道ID不合法！","频道ID不合法！","server is busy"]}"#;
    assert_eq!(fixture.post("/message/sendbatch", body), (200, answer.to_owned()));
    assert_eq!(fixture.asked().len(), 3, "b, c and d");

    let many: Vec<String> = (0..200).map(|n| format!("\"u{n}\"")).collect();
    let body = format!(r#"{{"from_uid":"a","subscribers":[{}],"payload":"YQ=="}}"#, many.join(","));
    let empty = (200, r#"{"fail_uids":[],"reason":[]}"#.to_owned());
    assert_eq!(fixture.post("/message/sendbatch", &body), empty);
    assert_eq!(fixture.asked().len(), 203);
}
