use jindou_core::request::{Failure, Reply};

use super::*;
use crate::testing::{Fixture, err, fine};

#[test]
fn channels_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let special = "频道ID不能包含特殊字符！";
    for (body, text) in [
        ("", "数据格式有误！: EOF"),
        ("{", "数据格式有误！: unexpected EOF"),
        ("{}", "频道ID不能为空！"),
        (r#"{"channel_id":"  ","channel_type":2}"#, "频道ID不能为空！"),
        (r#"{"channel_id":"g"}"#, "频道类型错误！"),
        (r#"{"channel_id":"g@1","channel_type":2}"#, special),
        (r#"{"channel_id":"g#1","channel_type":2}"#, special),
        (r#"{"channel_id":"g&1","channel_type":2}"#, special),
        (
            r#"{"channel_id":"g","channel_type":1,"subscribers":["x"]}"#,
            "不支持个人频道添加订阅者！",
        ),
    ] {
        assert_eq!(fixture.post("/channel", body), err(text), "{body}");
    }
    for bad in [
        r#"{"channel_type":256}"#,
        r#"{"channel_type":"2"}"#,
        r#"{"channel_type":-1}"#,
        r#"{"large":true}"#,
        r#"{"subscribers":[1]}"#,
        r#"{"subscribers":"a"}"#,
        r#"{"channel_id":5}"#,
        "[]",
    ] {
        let (status, text) = fixture.post("/channel", bad);
        assert!(status == 400 && text.starts_with(r#"{"msg":"数据格式有误！: json"#), "{text}");
    }
    let no_info = err("数据格式有误！");
    for bad in ["", "{", r#"{"channel_type":"2"}"#, r#"{"ban":"1"}"#] {
        assert_eq!(fixture.post("/channel/info", bad), no_info, "{bad}");
    }
    let person = r#"{"channel_id":"g","channel_type":1}"#;
    assert_eq!(fixture.post("/channel/delete", person), err("个人频道不支持添加订阅者！"));
    assert_eq!(fixture.post("/channel/delete", ""), err("数据格式有误！: EOF"));
    let long = format!(r#"{{"channel_id":"{}","channel_type":2}}"#, "g".repeat(8193));
    for route in ["/channel", "/channel/info", "/channel/delete"] {
        assert_eq!(fixture.post(route, &long), err("channel_id is longer than 8192 bytes"));
    }
}

#[test]
fn a_channel_is_written_with_flags_and_members_in_one_request() {
    let fixture = Fixture::agreeable();
    let body = r#"{"channel_id":"群 组","channel_type":200,"large":1,"ban":2,"send_ban":1,
        "reset":1,"subscribers":["a",""," ","b"]}"#;
    assert_eq!(fixture.post("/channel", body), fine());
    assert_eq!(
        fixture.last_asked(),
        (
            Target::Id("群 组".into()),
            r#"WriteChannel { channel: ChannelId { id: "群 组", kind: 200 }, info: Some(ChannelInfo { large: true, ban: false, disband: false, send_ban: true, allow_stranger: false }), reset: true, members: ["a", "b"] }"#.to_owned()
        )
    );
    let personal = r#"{"channel_id":"u","channel_type":1,"subscribers":null}"#;
    assert_eq!(fixture.post("/channel", personal), fine());
}

#[test]
fn flags_are_written_for_any_id_and_leave_members_alone() {
    let fixture = Fixture::agreeable();
    let body =
        r#"{"channel_id":"","ban":1,"disband":1,"allow_stranger":1,"reset":1,"subscribers":7}"#;
    assert_eq!(fixture.post("/channel/info", body), fine());
    assert_eq!(
        fixture.last_asked().1,
        r#"WriteChannel { channel: ChannelId { id: "", kind: 0 }, info: Some(ChannelInfo { large: false, ban: true, disband: true, send_ban: false, allow_stranger: true }), reset: false, members: [] }"#
    );
}

#[test]
fn deleting_disbands() {
    let fixture = Fixture::agreeable();
    for body in [r#"{"channel_id":"g@1","channel_type":2}"#, "{}"] {
        assert_eq!(fixture.post("/channel/delete", body), fine());
    }
    let asked = r#"Disband { channel: ChannelId { id: "", kind: 0 } }"#;
    assert_eq!(fixture.last_asked(), (Target::Id("".into()), asked.to_owned()));
}

#[test]
fn a_failed_store_has_a_text_per_route() {
    for (route, text) in [
        ("/channel", "创建或更新频道失败"),
        ("/channel/info", "添加或更新频道信息失败！"),
        ("/channel/delete", "更新频道信息失败！"),
    ] {
        let body = r#"{"channel_id":"g","channel_type":2}"#;
        let post = |failure| Fixture::replies([Reply::Failed(failure)]).post(route, body);
        assert_eq!(post(Failure::Storage), err(text));
        assert_eq!(post(Failure::Timeout), err("context deadline exceeded"));
        assert_eq!(post(Failure::NoLeader), err("获取频道所在节点失败！"));
    }
}
