#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jindou_core::request::Reply;
use serde_json::{Value, json};

use super::{ManagerUser, Right, client_ip};
use crate::{
    HttpRequest, Secret,
    testing::{Fixture, err, seen},
};

fn user(name: &str, rights: &[(&str, &str)]) -> ManagerUser {
    let right = |(resource, actions): &(&str, &str)| Right {
        resource: (*resource).to_owned(),
        actions: (*actions).to_owned(),
    };
    ManagerUser {
        name: name.to_owned(),
        password: Secret::new(format!("{name}-pw")),
        rights: rights.iter().map(right).collect(),
    }
}

/// guest reads, op may migrate slots and kick, admin may do everything; a stopped connection is the
/// only thing that the node is asked for.
fn fixture() -> Fixture {
    configured("")
}

fn configured(manager_token: &str) -> Fixture {
    let manager_token = manager_token.to_owned();
    Fixture::configured(
        |_, _| Reply::Done,
        |node, settings| {
            node.shards = 64;
            settings.manager_token = manager_token;
            settings.stress_on = true;
            settings.login.users = vec![
                user("guest", &[("*", "r")]),
                user("op", &[("slotMigrate", "rw"), ("connKick", "w"), ("*", "r")]),
                user("admin", &[("*", "*")]),
            ];
        },
    )
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn login(fixture: &Fixture, name: &str) -> Value {
    let body = json!({"username": name, "password": format!("{name}-pw")}).to_string();
    let response = fixture.call_manager_with("POST", "/manager/login", &body, HeaderMap::new());
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

fn bearer(fixture: &Fixture, name: &str) -> HeaderMap {
    let token = login(fixture, name)["token"].as_str().unwrap().to_owned();
    headers(&[("authorization", &format!("Bearer {token}"))])
}

const NO_RIGHT: &str = r#"{"msg":"没有权限","status":403}"#;

#[test]
fn a_login_gives_a_token_that_opens_the_manager_port() {
    let fixture = fixture();
    let answer = login(&fixture, "op");
    assert_eq!(answer["exp"], 1_735_689_600 + 30 * 86_400);
    assert_eq!(answer["permissions"], "slotMigrate:rw,connKick:w,*:r");
    assert_eq!(answer["username"], "op");
    let token = answer["token"].as_str().unwrap();
    let get = |target: &str, given: HeaderMap| {
        fixture.call_manager_with("GET", target, "", given).status.as_u16()
    };
    let with = |text: String| headers(&[("authorization", &text)]);
    assert_eq!(get("/varz/setting", with(format!("Bearer {token}"))), 200);
    assert_eq!(get("/varz/setting", with(token.to_owned())), 200);
    let none = HeaderMap::new;
    assert_eq!(get(&format!("/varz/setting?Authorization={token}"), none()), 200);
    assert_eq!(get(&format!("/varz/setting?Authorization=Bearer%20{token}"), none()), 200);
    assert_eq!(get("/nope", with(token.to_owned())), 404);
    for bad in ["", " ", "Bearer ", "Bearer x", "Bearer a.b.c", "Basic eDp5"] {
        assert_eq!(get("/varz/setting", with(bad.to_owned())), 401, "{bad}");
    }
    assert_eq!(get("/varz/setting", with(format!("Bearer {token}x"))), 401);
    assert_eq!(
        get("/varz/setting", headers(&[("token", "")])),
        401,
        "no manager token is set: nobody can show it"
    );
}

#[test]
fn a_token_ends_and_another_clusters_is_refused() {
    let ours = fixture();
    let token = bearer(&ours, "admin");
    for (change, error) in [
        (7_i64, "Invalid token: the token is expired"),
        (0, "Invalid token: the token's signature is invalid"),
    ] {
        let theirs = Fixture::configured(
            |_, _| Reply::Done,
            |node, _| {
                node.now_ms += change * 5 * 86_400_000;
                if change == 0 {
                    node.login_key = Ok(Secret::new("another"));
                }
            },
        );
        let response = theirs.call_manager_with("GET", "/varz/setting", "", token.clone());
        assert_eq!(seen(&response), (401, json!({"error": error}).to_string()));
    }
    let blind = Fixture::configured(
        |_, _| Reply::Done,
        |node, _| node.login_key = Err("no majority".to_owned()),
    );
    let response = blind.call_manager_with("GET", "/varz/setting", "", token);
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    let body = r#"{"username":"guest","password":"guest"}"#;
    assert_eq!(blind.post("/manager/login", body), err("没有配置jwt.secret"));
}

#[test]
fn the_manager_port_is_shut_but_for_its_doors() {
    let fixture = fixture();
    for path in ["/", "/varz", "/cluster/nodes", "/connz", "/user/token", "/nope", "/favicon.ico"]
        .into_iter()
        .chain(["/webx", "/metricsx", "/manager", "/manager/loginx"])
    {
        let response = fixture.call_manager("GET", path);
        let body = r#"{"error":"Authorization header is required"}"#.to_owned();
        assert_eq!(seen(&response), (401, body), "{path}");
        assert_eq!(response.headers["content-type"], "application/json; charset=utf-8");
        assert_eq!(response.headers["access-control-allow-origin"], "*");
    }
    for (path, status) in [
        ("/web", 301),
        ("/web/", 200),
        ("/web/login", 200),
        ("/web/none/such", 200),
        ("/web/index.html", 301),
        ("/metrics/app", 200),
        ("/metrics/nope", 404),
        ("/manager/login", 404),
    ] {
        assert_eq!(fixture.call_manager("GET", path).status.as_u16(), status, "{path}");
    }
    let page = fixture.call_manager("GET", "/web/cluster/nodes");
    assert!(page.body.starts_with(b"<!doctype html>"));
    assert_eq!(fixture.call_manager("GET", "/web").headers["location"], "/web/");
    let logo = fixture.call_manager("GET", "/web/logo.png");
    assert_eq!(logo.headers["content-type"], "image/png");
    assert_eq!(fixture.call("GET", "/web/", "").status, StatusCode::NOT_FOUND);
}

#[test]
fn guest_reads_and_does_nothing_else() {
    let fixture = fixture();
    let guest = bearer(&fixture, "guest");
    for (method, path) in [
        ("GET", "/plugins"),
        ("GET", "/varz/setting"),
        ("GET", "/cluster/devtools/checkLogConflict"),
    ] {
        let response = fixture.call_manager_with(method, path, "", guest.clone());
        assert_eq!(response.status, StatusCode::OK, "{path}");
    }
    for path in [
        "/cluster/slots/1/migrate",
        "/cluster/slots/1/election",
        "/cluster/nodes/1/remove",
        "/cluster/nodes/1/keep",
        "/cluster/nodes/1/replace",
        "/cluster/channels/g/2/migrate",
        "/cluster/channels/g/2/start",
        "/cluster/channels/g/2/stop",
        "/conn/kick",
        "/conn/remove",
        "/tag/remove",
        "/plugin/bind",
        "/plugin/unbind",
        "/plugin/uninstall",
        "/pluginconfig/p",
        "/stress/add",
        "/stress/remove",
        "/stress/start",
        "/stress/stop",
        "/plugins/p/x",
    ] {
        let refused = (403, NO_RIGHT.to_owned());
        for body in ["{}", "{", ""] {
            let response = fixture.call_manager_with("POST", path, body, guest.clone());
            assert_eq!(seen(&response), refused, "{path} on the manager port");
            // Who says who it is gets no more on the API port.
            let response = fixture.call_with("POST", path, body, guest.clone());
            assert_eq!(seen(&response), refused, "{path} on the API port");
        }
    }
    assert!(fixture.node.changes.borrow().is_empty() && fixture.asked().is_empty());
}

#[test]
fn rights_are_for_what_they_name() {
    let fixture = fixture();
    let op = bearer(&fixture, "op");
    let post = |path: &str, given: &HeaderMap| {
        seen(&fixture.call_manager_with("POST", path, "{}", given.clone()))
    };
    let refused = (403, NO_RIGHT.to_owned());
    assert_eq!(
        post("/cluster/slots/1/migrate", &op),
        err("migrateFrom or migrateTo is 0"),
        "let through to the rules of the route"
    );
    assert_eq!(post("/conn/kick", &op), err("conn_id is 0"));
    assert_eq!(post("/cluster/slots/1/election", &op), refused);
    assert_eq!(post("/conn/remove", &op), refused);
    let admin = bearer(&fixture, "admin");
    assert_eq!(post("/conn/remove", &admin), err("conn_id is 0"));
    assert_eq!(post("/stress/add", &admin).0, 501);
    assert_eq!(post("/message/send", &admin).0, 404, "it is not on this port");
}

#[test]
fn a_user_that_is_configured_no_more_reads_until_its_token_ends() {
    let before = fixture();
    let admin = bearer(&before, "admin");
    let after = Fixture::agreeable();
    let call = |method, path| after.call_manager_with(method, path, "{}", admin.clone());
    assert_eq!(call("GET", "/varz/setting").status, StatusCode::OK);
    assert_eq!(seen(&call("POST", "/conn/kick")), (403, NO_RIGHT.to_owned()));
}

#[test]
fn the_manager_token_may_do_everything() {
    let fixture = configured("sec-ret");
    let right = headers(&[("token", "sec-ret")]);
    let get = |given: &HeaderMap| {
        fixture.call_manager_with("GET", "/varz/setting", "", given.clone()).status.as_u16()
    };
    assert_eq!(get(&right), 200);
    assert_eq!(get(&headers(&[("token", "sec-reT")])), 401);
    assert_eq!(get(&headers(&[("token", "")])), 401);
    let post = |path| fixture.call_manager_with("POST", path, "{}", right.clone());
    assert_eq!(seen(&post("/conn/kick")), err("conn_id is 0"));
    assert_eq!(seen(&post("/cluster/slots/1/migrate")), err("migrateFrom or migrateTo is 0"));
    assert_eq!(fixture.post("/manager/login", "{}").0, 401, "the API port wants it for all");
}

#[test]
fn nobody_becomes_the_manager_by_a_login() {
    let fixture = Fixture::configured(
        |_, _| Reply::Done,
        |_, settings| settings.login.users.push(user("admin", &[("*", "*")])),
    );
    for name in ["____manager", "____system", ""] {
        for password in ["x", "guest", "____manager"] {
            let body = json!({"username": name, "password": password}).to_string();
            assert_eq!(fixture.post("/manager/login", &body).0, 400, "{name} {password}");
        }
    }
    // As v2: the manager uid in a token, however it came there, is no user with rights.
    let key = Secret::new("drawn");
    let claims = super::jwt::Claims {
        iss: String::new(),
        exp: i64::MAX,
        iat: 0,
        username: "____manager".to_owned(),
    };
    let token = super::jwt::sign(&claims, key.reveal()).unwrap();
    let given = headers(&[("authorization", &token)]);
    let response = fixture.call_manager_with("POST", "/conn/kick", "{}", given);
    assert_eq!(seen(&response), (403, NO_RIGHT.to_owned()));
}

#[test]
fn on_the_api_port_who_is_not_known_may_do_what_v2_leaves_open() {
    let fixture = fixture();
    let afar = |path| seen(&fixture.call_from_afar("POST", path, "{}"));
    assert_eq!(afar("/conn/kick"), err("conn_id is 0"));
    assert_eq!(afar("/conn/remove"), err("conn_id is 0"));
    assert_eq!(afar("/stress/add").0, 501);
    for path in ["/cluster/slots/1/migrate", "/plugin/bind", "/cluster/channels/g/2/stop"] {
        assert_eq!(afar(path), (403, NO_RIGHT.to_owned()), "{path}");
        let nearby = fixture.post(path, "{}");
        assert_ne!(nearby.0, 403, "{path} for a program of this machine");
        for name in ["origin", "forwarded", "x-forwarded-for", "x-real-ip"] {
            let given = headers(&[(name, "10.0.0.1")]);
            let response = fixture.call_with("POST", path, "{}", given);
            assert_eq!(response.status, StatusCode::FORBIDDEN, "{path} through {name}");
        }
    }
    let nonsense = headers(&[("authorization", "Bearer nonsense")]);
    assert_eq!(fixture.call_with("GET", "/varz/setting", "", nonsense).status, StatusCode::OK);
}

#[test]
fn refusals_of_a_login_are_v2s() {
    let fixture = fixture();
    for (body, text) in [
        ("{}", "密码不能为空"),
        (r#"{"username":"guest"}"#, "密码不能为空"),
        (r#"{"username":"","password":"x"}"#, "用户名不能为空"),
        (r#"{"username":"guest","password":"x"}"#, "用户名或密码错误"),
        (r#"{"username":"no","password":"guest-pw"}"#, "用户名或密码错误"),
        (r#"{"username":"guest","password":"guest-pw "}"#, "用户名或密码错误"),
        ("{", "unexpected EOF"),
        ("", "EOF"),
    ] {
        assert_eq!(fixture.post("/manager/login", body), err(text), "{body}");
    }
    for body in [r#"{"username":1,"password":"x"}"#, "[]", r#"{"password":{}}"#] {
        assert_eq!(fixture.post("/manager/login", body).0, 400, "{body}");
    }
}

#[test]
fn who_guesses_passwords_waits_and_nobody_else() {
    let fixture = fixture();
    let from = |address: &str, password: &str| {
        let body = json!({"username": "guest", "password": password}).to_string();
        let given = headers(&[("x-forwarded-for", address)]);
        fixture.call_manager_with("POST", "/manager/login", &body, given)
    };
    let mut limited = 0;
    for n in 0..30 {
        let response = from("203.0.113.9", &format!("guess-{n}"));
        if response.status == StatusCode::TOO_MANY_REQUESTS {
            limited += 1;
            assert_eq!(response.headers["retry-after"], "5");
        }
    }
    assert_eq!(limited, 10);
    let shut = from("203.0.113.9", "guest-pw");
    assert_eq!(shut.status, StatusCode::TOO_MANY_REQUESTS, "also for the right password");
    assert_eq!(from("203.0.113.10", "guest-pw").status, StatusCode::OK);
    for _ in 0..100 {
        assert_eq!(from("203.0.113.11", "guest-pw").status, StatusCode::OK, "that is no guess");
    }
    assert_eq!(fixture.api.settings.login.attempts.counts(), (20, 11));
}

#[test]
fn a_gateway_is_believed_when_it_is_ours() {
    let trusted = ["10.0.0.0/8", "127.0.0.1"].map(|block| block.parse().unwrap());
    let trusted = trusted.into_iter().collect();
    let seen = RefCell::new(HttpRequest {
        method: Method::GET,
        path: "/".to_owned(),
        query: String::new(),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
        peer: ([10, 0, 0, 1], 1).into(),
    });
    let ip = |peer: &str, pairs: &[(&'static str, &str)]| {
        let mut request = seen.borrow_mut();
        request.peer = format!("{peer}:1").parse().unwrap();
        request.headers = headers(pairs);
        client_ip(&request, &trusted).to_string()
    };
    const FORWARDED: &str = "x-forwarded-for";
    assert_eq!(ip("198.51.100.1", &[(FORWARDED, "203.0.113.1")]), "198.51.100.1");
    assert_eq!(ip("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(ip("[::ffff:10.0.0.1]", &[(FORWARDED, "203.0.113.1")]), "203.0.113.1");
    // A client may put anything in front; the gateway's own word stands last.
    assert_eq!(ip("10.0.0.1", &[(FORWARDED, "1.1.1.1, 203.0.113.1, 10.0.0.2")]), "203.0.113.1");
    assert_eq!(ip("10.0.0.1", &[(FORWARDED, "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
    assert_eq!(ip("127.0.0.1", &[("x-real-ip", "203.0.113.2")]), "203.0.113.2");
    assert_eq!(ip("127.0.0.1", &[(FORWARDED, "nonsense"), ("x-real-ip", "?")]), "127.0.0.1");
}
