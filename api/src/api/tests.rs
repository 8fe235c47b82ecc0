#![expect(clippy::unwrap_used, reason = "tests")]

use http::header::LOCATION;

use super::*;
use crate::{
    node::{Check, Fault, Health},
    testing::{Fixture, seen},
};

fn guarded() -> Fixture {
    Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |_, settings| settings.manager_token = "sec-ret".to_owned(),
    )
}

fn with_token(name: &'static str, value: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_static(value));
    headers
}

#[test]
fn unknown_paths_and_methods_are_404() {
    let fixture = Fixture::silent();
    let nothing = (404, "404 page not found".to_owned());
    for (method, path) in [
        ("GET", "/nope"),
        ("POST", "/health"),
        ("PUT", "/channel"),
        ("DELETE", "/channel"),
        ("GET", "//health"),
        ("GET", "/"),
        ("GET", "/message/send%00"),
        ("GET", "/..%2f..%2fsecret"),
        ("POST", "/metrics"),
        ("POST", "/v1/message/send"),
        ("GET", "/%ff%fe"),
    ] {
        let response = fixture.call(method, path, "{}");
        assert_eq!(seen(&response), nothing, "{method} {path}");
        assert_eq!(response.headers.get("content-type").unwrap(), "text/plain");
        assert_eq!(response.headers.get("access-control-allow-origin").unwrap(), "*");
    }
    assert_eq!(fixture.get("/%zz").0, 400);
    assert_eq!(fixture.get("/route%2Fbatch").0, 404, "it is POST");
    assert_eq!(fixture.get("/%72oute").0, 200);
}

#[test]
fn a_slash_too_many_redirects() {
    let fixture = Fixture::silent();
    let response = fixture.call("GET", "/health/?a=1", "");
    assert_eq!(response.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(response.headers.get(LOCATION).unwrap(), "/health?a=1");
    let response = fixture.call("POST", "/user/token/", "{}");
    assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers.get(LOCATION).unwrap(), "/user/token");
    let response = fixture.call("GET", "/health/?a=\u{1}\r\nx: y", "");
    assert_eq!(response.headers.get(LOCATION), None, "nothing is smuggled into a header");
}

#[test]
fn browsers_may_ask_first() {
    for path in ["/user/token", "/nope"] {
        let response = Fixture::silent().call("OPTIONS", path, "");
        assert_eq!(seen(&response), (204, String::new()));
        let header = |name: &str| response.headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("access-control-allow-origin"), "*");
        assert_eq!(header("access-control-allow-credentials"), "true");
        assert_eq!(header("access-control-allow-methods"), "POST, OPTIONS, GET, PUT,DELETE,PATCH");
        assert_eq!(
            header("access-control-allow-headers"),
            "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, token, accept, origin, Cache-Control, X-Requested-With, appid, noncestr, sign, timestamp"
        );
    }
}

#[test]
fn paths_of_later_work_say_so() {
    let later = (501, r#"{"msg":"not implemented yet","status":501}"#.to_owned());
    let fixture = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |_, settings| settings.stress_on = true,
    );
    assert_eq!(fixture.get("/stress/templates"), later);
    assert_eq!(fixture.call_manager("POST", "/metrics").status, 404);
    assert_eq!(fixture.call_manager("GET", "/%").status, 400);
    assert_eq!(fixture.call_manager("OPTIONS", "/nope").status, 204);
}

#[test]
fn series_are_empty_without_a_prometheus() {
    let fixture = Fixture::silent();
    for path in ["/metrics/app", "/metrics/cluster", "/metrics/system"] {
        assert_eq!(seen(&fixture.call_manager("GET", path)), (200, "[]".to_owned()));
    }
}

#[test]
fn the_manager_token_guards_everything_but_health() {
    let fixture = guarded();
    let none = HeaderMap::new();
    for (method, path, headers, status) in [
        ("GET", "/nope", none.clone(), 401),
        ("GET", "/route", none.clone(), 401),
        ("GET", "/route/", none.clone(), 401),
        ("OPTIONS", "/user/token", none.clone(), 401),
        ("POST", "/message/sync", none.clone(), 401),
        ("GET", "/route?token=sec-ret", none.clone(), 401),
        ("GET", "/route", with_token("token", "wrong"), 401),
        ("GET", "/route", with_token("token", "sec-reT"), 401),
        ("GET", "/route", with_token("token", " "), 401),
        ("GET", "/route", with_token("authorization", "Bearer sec-ret"), 401),
        ("GET", "/health", none.clone(), 200),
        ("GET", "/healthz", none.clone(), 200),
        ("GET", "/readyz", none, 200),
        ("GET", "/health", with_token("token", "wrong"), 200),
        ("GET", "/route", with_token("token", "sec-ret"), 200),
        ("GET", "/nope", with_token("token", "sec-ret"), 404),
        ("OPTIONS", "/user/token", with_token("token", "sec-ret"), 204),
    ] {
        let response = fixture.call_with(method, path, "", headers);
        assert_eq!(response.status.as_u16(), status, "{method} {path}");
        if status == 401 {
            assert!(response.body.is_empty() && response.headers.is_empty());
        }
    }
    let blank = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |_, settings| settings.manager_token = "  ".to_owned(),
    );
    assert_eq!(blank.get("/route").0, 200, "a blank token guards nothing");
}

#[test]
fn the_documentation_is_shut_in_release() {
    let release = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |_, settings| settings.release = true,
    );
    for path in ["/docs", "/docs/", "/docs/openapi.json"] {
        let (status, body) = release.get(path);
        assert_eq!(status, 403);
        assert!(body.contains(r#""mode":"release""#), "{body}");
    }
    let (status, body) = release.get("/docs/health");
    assert!(status == 200 && body.ends_with(r#""service":"docs","status":"disabled"}"#), "{body}");
    let open = Fixture::silent();
    assert!(open.get("/docs").1.contains("<code>POST /message/send</code>"));
    assert_eq!(open.call("GET", "/docs/", "").headers.get(LOCATION).unwrap(), "/docs");
    let json: serde_json::Value = serde_json::from_str(&open.get("/docs/openapi.json").1).unwrap();
    assert_eq!(json.get("openapi").unwrap(), "3.0.3");
    let slot = json.pointer("/paths/~1cluster~1slots~1{id}~1migrate/post/parameters/0/name");
    assert_eq!(slot.unwrap(), "id");
    assert!(open.get("/docs/health").1.ends_with(r#""service":"docs","status":"ok"}"#));
}

#[test]
fn nothing_is_imported() {
    let (status, body) = Fixture::silent().get("/migrate/result");
    let expected = r#"{"status":"running","step":"message","last_err":null,"try_count":0}"#;
    assert_eq!((status, body.as_str()), (200, expected));
}

#[test]
fn health_tells_what_this_node_cannot_do() {
    let with_health = |health: Health| {
        Fixture::configured(
            |_, request| unreachable!("{request:?}"),
            |node, _| node.health = health,
        )
    };
    let ok = (200, r#"{"status":"ok"}"#.to_owned());
    let well = Fixture::silent();
    assert_eq!(well.get("/health"), ok);
    assert_eq!(well.get("/healthz"), ok);
    // What this node knows of its cluster, here that it is alone, comes last: see `health`.
    let alone = r#"{"name":"peers","ok":true,"detail":"there are no other nodes"},{"name":"replicas","ok":true,"detail":"each of 0 groups led here has the 0 live voters wanted"}]}"#;
    let checks = format!(r#"{{"status":"ok","checks":[{alone}"#);
    assert_eq!(well.get("/readyz"), (200, checks));
    for (fault, text) in [
        (Fault::NoSlots, "no slots"),
        (Fault::SlotCount, "slot count not match"),
        (Fault::NoLeader, "slot leader not found"),
        (Fault::NotReady, "slot not ready"),
        (Fault::Draining, "draining"),
        (Fault::Storage, "storage error"),
    ] {
        let fixture = with_health(Health { fault: Some(fault), ..Health::default() });
        let body = format!(r#"{{"message":"{text}","status":"error"}}"#);
        assert_eq!(fixture.get("/health"), (500, body));
        assert_eq!(fixture.get("/healthz"), ok);
        let body = format!(r#"{{"status":"error","message":"{text}","checks":[{alone}"#);
        assert_eq!(fixture.get("/readyz"), (503, body));
    }
    let check = Check { name: "slots", ok: false, detail: "63 of 64".to_owned() };
    let fixture = with_health(Health { checks: vec![check], ..Health::default() });
    assert_eq!(fixture.get("/health"), ok);
    let slots = r#"{"name":"slots","ok":false,"detail":"63 of 64"}"#;
    let body = format!(r#"{{"status":"error","checks":[{slots},{alone}"#);
    assert_eq!(fixture.get("/readyz"), (503, body));
}

#[test]
fn addresses_are_told_to_clients() {
    let fixture = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |_, settings| {
            settings.addresses.tcp = "1.2.3.4:5100".to_owned();
            settings.addresses.ws = "ws://1.2.3.4:5200".to_owned();
            settings.addresses.intranet_tcp = "10.0.0.1:5100".to_owned();
        },
    );
    let outside = r#""tcp_addr":"1.2.3.4:5100","ws_addr":"ws://1.2.3.4:5200","wss_addr":"""#;
    let inside = r#""tcp_addr":"10.0.0.1:5100","ws_addr":"","wss_addr":"""#;
    for (query, addresses) in
        [("", outside), ("?uid=u", outside), ("?intranet=1", inside), ("?intranet=x", outside)]
    {
        assert_eq!(fixture.get(&format!("/route{query}")), (200, format!("{{{addresses}}}")));
    }
    for (query, body, addresses, uids) in [
        ("", r#"["a","b"]"#, outside, r#"["a","b"]"#),
        ("", "[]", outside, "[]"),
        ("", "null", outside, "null"),
        ("?intranet=1", r#"["a"]"#, inside, r#"["a"]"#),
    ] {
        let expected = (200, format!(r#"[{{{addresses},"uids":{uids}}}]"#));
        assert_eq!(fixture.post(&format!("/route/batch{query}"), body), expected);
    }
    let bad = (400, r#"{"msg":"数据格式有误！","status":400}"#.to_owned());
    for body in ["", "{}", "[1]", "{"] {
        assert_eq!(fixture.post("/route/batch", body), bad);
    }
}

#[test]
fn answers_are_json_of_v2s_type() {
    let fixture = Fixture::silent();
    for (method, path) in [("GET", "/health"), ("POST", "/message/send"), ("POST", "/message/sync")]
    {
        let response = fixture.call(method, path, "{");
        let kind = response.headers.get("content-type").unwrap();
        assert_eq!(kind, "application/json; charset=utf-8");
    }
}
