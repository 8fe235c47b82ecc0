use jindou_core::{
    code::Code,
    request::{Failure, OnlineItem},
};

use super::*;
use crate::testing::{Fixture, err, fine};

#[test]
fn tokens_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let (no_uid, no_token, special) = ("uid不能为空！", "token不能为空！", "uid不能包含特殊字符！");
    for (body, text) in [
        ("", "EOF"),
        ("{", "unexpected EOF"),
        ("null", no_uid),
        ("{}", no_uid),
        (r#"{"token":"t"}"#, no_uid),
        (r#"{"uid":null,"token":"t"}"#, no_uid),
        (r#"{"uid":"a@b"}"#, no_token),
        (r#"{"uid":"a"}"#, no_token),
        (r#"{"uid":"a@b","token":"t"}"#, special),
        (r#"{"uid":"a#b","token":"t"}"#, special),
        (r#"{"uid":"a&b","token":"t"}"#, special),
        (r#"{"uid":"____system","token":"t"}"#, "系统账号不允许更新token！"),
    ] {
        assert_eq!(fixture.post("/user/token", body), err(text), "{body}");
    }
    for bad in [
        "[]",
        r#"{"uid":1}"#,
        r#"{"token":5}"#,
        r#"{"device_flag":256}"#,
        r#"{"device_flag":-1}"#,
        r#"{"device_flag":1.5}"#,
        r#"{"device_flag":"1"}"#,
        r#"{"device_level":300}"#,
    ] {
        assert_eq!(fixture.post("/user/token", bad).0, 400, "{bad}");
    }
    let long = format!(r#"{{"uid":"{}","token":"t"}}"#, "u".repeat(4097));
    assert_eq!(fixture.post("/user/token", &long), err("uid is longer than 4096 bytes"));
    let long = format!(r#"{{"uid":"u","token":"{}"}}"#, "t".repeat(65_536));
    assert_eq!(fixture.post("/user/token", &long), err("token is longer than 65535 bytes"));
}

#[test]
fn a_token_is_set_unless_the_user_is_banned() {
    let body = r#"{"uid":"群 u/1","token":"t","device_flag":99,"device_level":1}"#;
    let fixture = Fixture::agreeable();
    assert_eq!(fixture.post("/user/token", body), fine());
    let asked = r#"SetToken { uid: "群 u/1", device_flag: 99, device_level: 1, token: "t" }"#;
    assert_eq!(fixture.last_asked(), (Target::Id("群 u/1".into()), asked.to_owned()));
    for (reply, expected) in [
        (Reply::Refused(Code::Ban), (200, r#"{"status":19}"#.to_owned())),
        (Reply::Refused(Code::Disband), (200, r#"{"status":24}"#.to_owned())),
        (Reply::Failed(Failure::NoLeader), err("获取频道所在节点失败！")),
        (Reply::Failed(Failure::Timeout), err("context deadline exceeded")),
    ] {
        assert_eq!(Fixture::replies([reply]).post("/user/token", body), expected);
    }
}

#[test]
fn devices_are_logged_out_by_flag() {
    let fixture = Fixture::agreeable();
    for (flag, flags) in [("0", "[0]"), ("-1", "[0, 1, 2]"), ("7", "[7]")] {
        let body = format!(r#"{{"uid":"a","device_flag":{flag}}}"#);
        assert_eq!(fixture.post("/user/device_quit", &body), fine());
        let asked = format!(r#"QuitDevices {{ uid: "a", device_flags: {flags} }}"#);
        assert_eq!(fixture.last_asked(), (Target::Id("a".into()), asked));
    }
    let silent = Fixture::silent();
    assert_eq!(silent.post("/user/device_quit", r#"{"uid":"a","device_flag":300}"#), fine());
    assert_eq!(silent.post("/user/device_quit", r#"{"uid":"a","device_flag":-2}"#), fine());
    assert_eq!(silent.post("/user/device_quit", "{}"), err("uid不能为空！"));
}

#[test]
fn presence_is_an_item_per_connection_in_the_order_of_the_question() {
    let fixture = Fixture::answers(|target, request| {
        let Request::Online { uids } = request else { unreachable!("{request:?}") };
        assert!(matches!(target, Target::Slot(_)));
        let online = [("a", 0), ("a", 1), ("b", 2)];
        let items = online
            .iter()
            .filter(|(uid, _)| uids.iter().any(|asked| **asked == **uid))
            .map(|(uid, flag)| OnlineItem { uid: (*uid).into(), device_flag: *flag })
            .collect();
        Reply::Online(items)
    });
    let item =
        |uid: &str, flag: u8| format!(r#"{{"uid":"{uid}","device_flag":{flag},"online":1}}"#);
    let list = |items: &[String]| (200, format!("[{}]", items.join(",")));
    let post = |body: &str| fixture.post("/user/onlinestatus", body);
    assert_eq!(post(r#"["b","c","","a"]"#), list(&[item("b", 2), item("a", 0), item("a", 1)]));
    let slots: std::collections::BTreeSet<_> =
        ["a", "b", "c"].iter().map(|uid| fixture.node.slot_of(uid)).collect();
    assert_eq!(fixture.asked().len(), slots.len(), "one question per slot");
    assert_eq!(post(r#"["b","b"]"#), list(&[item("b", 2), item("b", 2)]));
    assert_eq!(post(r#"["nobody"]"#), list(&[]));

    let silent = Fixture::silent();
    let post = |body: &str| silent.post("/user/onlinestatus", body);
    assert_eq!(post("[]"), fine());
    assert_eq!(post("null"), fine());
    assert_eq!(post(r#"[""," "]"#), list(&[]));
    assert_eq!(post(""), err("EOF"));
    assert_eq!(post("{"), err("unexpected EOF"));
    assert_eq!(post(r#"{"uids":["a"]}"#).0, 400);
    assert_eq!(post("[1]").0, 400);
    let failing = Fixture::answers(|_, _| Reply::Failed(Failure::Busy));
    assert_eq!(failing.post("/user/onlinestatus", r#"["a"]"#), err("server is busy"));
}
