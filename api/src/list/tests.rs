use jindou_core::request::Failure;

use super::*;
use crate::testing::{Fixture, err, fine};

#[test]
fn members_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let special = "频道ID不能包含特殊字符！";
    for route in ["/channel/subscriber_add", "/channel/subscriber_remove"] {
        for (body, text) in [
            ("", "数据格式有误！: EOF"),
            ("{", "数据格式有误！: unexpected EOF"),
            ("{}", "频道ID不能为空！"),
            (r#"{"channel_id":" ","subscribers":["a"]}"#, "频道ID不能为空！"),
            (r#"{"channel_id":"g"}"#, "订阅者不能为空！"),
            (r#"{"channel_id":"g","channel_type":2,"subscribers":[""," "]}"#, "订阅者不能为空！"),
            (r#"{"channel_id":"g","channel_type":2,"subscribers":null}"#, "订阅者不能为空！"),
            (r#"{"channel_id":"g@1","channel_type":2,"subscribers":["a"]}"#, special),
            (r##"{"channel_id":"#","channel_type":2,"subscribers":["a"]}"##, special),
            (
                r#"{"channel_id":"g","channel_type":1,"subscribers":["a"]}"#,
                "个人频道不支持添加订阅者！",
            ),
        ] {
            assert_eq!(fixture.post(route, body), err(text), "{route} {body}");
        }
        let (status, text) = fixture.post(route, r#"{"subscribers":"a"}"#);
        assert!(status == 400 && text.contains("数据格式有误！: json"), "{text}");
    }
    let temporary =
        r#"{"channel_id":"g","channel_type":2,"temp_subscriber":1,"subscribers":["a"]}"#;
    let text = "新版本临时订阅者已不支持！";
    assert_eq!(fixture.post("/channel/subscriber_add", temporary), err(text));
    for (body, text) in [
        ("", "数据格式有误！: EOF"),
        ("{}", "channel_id不能为空！"),
        (r#"{"channel_id":"g"}"#, "频道类型不能为0！"),
        (r#"{"channel_id":"g","channel_type":1}"#, "个人频道不支持此操作！"),
    ] {
        assert_eq!(fixture.post("/channel/subscriber_remove_all", body), err(text), "{body}");
    }
}

#[test]
fn members_come_and_go() {
    let fixture = Fixture::agreeable();
    let check = |route: &str, body: &str, asked: &str| {
        assert_eq!(fixture.post(route, body), fine());
        assert_eq!(fixture.last_asked(), (Target::Id("g".into()), asked.to_owned()));
    };
    check(
        "/channel/subscriber_add",
        r#"{"channel_id":"g","reset":1,"subscribers":["a","","b"]}"#,
        r#"WriteChannel { channel: ChannelId { id: "g", kind: 2 }, info: None, reset: true, members: ["a", "b"] }"#,
    );
    // 0 is not taken for 2 here.
    check(
        "/channel/subscriber_remove",
        r#"{"channel_id":"g","temp_subscriber":1,"subscribers":["a",""]}"#,
        r#"ChangeList { channel: ChannelId { id: "g", kind: 0 }, list: Members, change: Remove, uids: ["a"] }"#,
    );
    check(
        "/channel/subscriber_remove_all",
        r#"{"channel_id":"g","channel_type":9}"#,
        r#"ChangeList { channel: ChannelId { id: "g", kind: 9 }, list: Members, change: Clear, uids: [] }"#,
    );
}

#[test]
fn lists_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let check = |route: &str, body: &str, text: &str| {
        assert_eq!(fixture.post(route, body), err(text), "{route} {body}");
    };
    for list in ["blacklist", "whitelist"] {
        for how in ["add", "remove", "set", "remove_all"] {
            let route = format!("/channel/{list}_{how}");
            check(&route, "", "EOF");
            check(&route, "{", "unexpected EOF");
            let empty =
                if how == "set" { "频道ID不能为空！" } else { "channel_id不能为空！" };
            check(&route, "{}", empty);
            if how == "set" {
                check(&route, r#"{"channel_id":" "}"#, empty);
            } else {
                check(&route, r#"{"channel_id":"b"}"#, "频道类型不能为0！");
            }
            if how != "remove_all" {
                let bad = r#"{"channel_id":"g","channel_type":2,"uids":"a"}"#;
                assert_eq!(fixture.post(&route, bad).0, 400);
            }
        }
        for how in ["add", "remove"] {
            let route = format!("/channel/{list}_{how}");
            for uids in ["[]", "null", r#"[""," "]"#] {
                let body = format!(r#"{{"channel_id":"g","channel_type":2,"uids":{uids}}}"#);
                check(&route, &body, "uids不能为空！");
            }
        }
    }
    let special = r#"{"channel_id":"g@1","channel_type":2,"uids":["u"]}"#;
    check("/channel/whitelist_add", special, "频道ID不能包含特殊字符！");
    check("/channel/whitelist_remove", special, "频道ID不能包含特殊字符！");
}

#[test]
fn lists_change_and_blank_uids_are_dropped() {
    let fixture = Fixture::agreeable();
    for (list, name) in [("blacklist", "Deny"), ("whitelist", "Allow")] {
        for (how, change, uids) in [
            ("add", "Add", r#"["c"]"#),
            ("remove", "Remove", r#"["c"]"#),
            ("set", "Set", r#"["c"]"#),
            ("remove_all", "Clear", "[]"),
        ] {
            let route = format!("/channel/{list}_{how}");
            let body = r#"{"channel_id":"g","channel_type":2,"uids":["c",""]}"#;
            assert_eq!(fixture.post(&route, body), fine());
            let asked = format!(
                r#"ChangeList {{ channel: ChannelId {{ id: "g", kind: 2 }}, list: {name}, change: {change}, uids: {uids} }}"#
            );
            assert_eq!(fixture.last_asked(), (Target::Id("g".into()), asked));
        }
        let empty = r#"{"channel_id":"g@1","channel_type":2,"uids":[]}"#;
        assert_eq!(fixture.post(&format!("/channel/{list}_set"), empty), fine());
    }
    for how in ["add", "remove", "remove_all"] {
        let special = r#"{"channel_id":"g@1","channel_type":2,"uids":["u@1"]}"#;
        assert_eq!(fixture.post(&format!("/channel/blacklist_{how}"), special), fine());
    }
    let special = r#"{"channel_id":"g@1","channel_type":2}"#;
    assert_eq!(fixture.post("/channel/whitelist_remove_all", special), fine());
    assert_eq!(fixture.post("/channel/subscriber_remove_all", special), fine());
}

#[test]
fn a_failed_store_has_a_text_where_v2_has_one() {
    for (route, text) in [
        ("/channel/subscriber_remove_all", "移除所有订阅者失败！"),
        ("/channel/blacklist_remove_all", "移除所有黑名单失败！"),
        ("/channel/whitelist_remove_all", "移除所有白名单失败！"),
        ("/channel/blacklist_set", "storage error"),
    ] {
        let fixture = Fixture::replies([Reply::Failed(Failure::Storage)]);
        assert_eq!(fixture.post(route, r#"{"channel_id":"g","channel_type":2}"#), err(text));
    }
}

#[test]
fn the_allow_list_is_read_as_objects() {
    let fixture = Fixture::replies([
        Reply::List(vec![("u2".into(), 1_735_689_600_000)]),
        Reply::List(Vec::new()),
    ]);
    let get = || fixture.get("/channel/whitelist?channel_id=g&channel_type=2");
    assert_eq!(
        get(),
        (
            200,
            format!(
                r#"[{{"id":{},"uid":"u2","created_at":"2025-01-01T00:00:00Z","updated_at":"2025-01-01T00:00:00Z"}}]"#,
                fnv1a_64(b"u2")
            )
        )
    );
    assert_eq!(get(), (200, "[]".to_owned()));
    let asked = r#"ReadList { channel: ChannelId { id: "g", kind: 2 }, list: Allow }"#;
    assert_eq!(fixture.last_asked(), (Target::Id("g".into()), asked.to_owned()));
}

#[test]
fn a_request_names_no_more_uids_than_allowed() {
    let fixture = Fixture::configured(
        |_, _| Reply::Done,
        |_, settings| {
            settings.uids_per_request_max = 2;
        },
    );
    let group = |list: &str, count: usize| {
        let uids = vec![r#""u""#; count].join(",");
        format!(r#"{{"channel_id":"g","channel_type":2,"{list}":[{uids}]}}"#)
    };
    for (route, list, what) in [
        ("/channel", "subscribers", "subscriber"),
        ("/channel/subscriber_add", "subscribers", "subscriber"),
        ("/channel/subscriber_remove", "subscribers", "subscriber"),
        ("/channel/blacklist_set", "uids", "uid"),
        ("/channel/whitelist_add", "uids", "uid"),
    ] {
        assert_eq!(fixture.post(route, &group(list, 2)), fine(), "{route}");
        let asked = fixture.asked().len();
        let text = format!("more than 2 of {what} in one request");
        assert_eq!(fixture.post(route, &group(list, 3)), err(&text), "{route}");
        assert_eq!(fixture.asked().len(), asked, "nobody is asked");
    }
    let send = r#"{"from_uid":"a","payload":"aGk=","subscribers":["u1","u2","u3"]}"#;
    let text = "more than 2 of subscribers in one request";
    assert_eq!(fixture.post("/message/sendbatch", send), err(text));
    let command = r#"{"header":{"sync_once":1},"payload":"aGk=","subscribers":["1","2","3"]}"#;
    let text = "more than 2 of subscriber in one request";
    assert_eq!(fixture.post("/message/send", command), err(text));
    assert_eq!(
        fixture.post("/user/onlinestatus", r#"["1","2","3"]"#),
        err("more than 2 of uid in one request")
    );
}
