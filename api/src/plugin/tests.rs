#![expect(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use jindou_core::request::Failure;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Fixture, err, fine, seen};

type Keys = Rc<RefCell<BTreeMap<String, Bytes>>>;

/// A node that keeps the cluster's keys.
fn keeping(keys: &Keys) -> Fixture {
    let keys = keys.clone();
    Fixture::answers(move |to, request| {
        assert_eq!(*to, Target::Slot(CLUSTER_SLOT));
        let mut keys = keys.borrow_mut();
        match request {
            Request::ReadClusterKeys { prefix } => {
                let found = keys.iter().filter(|(key, _)| key.starts_with(prefix));
                Reply::ClusterKeys(found.map(|(k, v)| (k.clone(), v.clone())).collect())
            }
            Request::WriteClusterKeys { entries } => {
                for ClusterWrite { key, value, if_absent } in entries {
                    assert!(!if_absent);
                    if value.is_empty() {
                        keys.remove(key);
                    } else {
                        keys.insert(key.clone(), value.clone().into());
                    }
                }
                Reply::Done
            }
            other => panic!("{other:?}"),
        }
    })
}

fn list(fixture: &Fixture, query: &str) -> Vec<(String, String)> {
    let (status, body) = fixture.get(&format!("/plugin/bind{query}"));
    assert_eq!(status, 200, "{body}");
    let list: Vec<Value> = serde_json::from_str(&body).unwrap();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    list.iter().map(|item| (text(item, "uid"), text(item, "plugin_no"))).collect()
}

#[test]
fn users_are_bound_and_unbound() {
    let keys = Keys::default();
    let fixture = keeping(&keys);
    let post = |path: &str, uid: &str, plugin_no: &str| {
        fixture.post(path, &json!({"uid": uid, "plugin_no": plugin_no}).to_string())
    };
    assert_eq!(list(&fixture, ""), []);
    assert_eq!(post("/user/update_plugin_no", "a", "p"), fine());
    assert_eq!(post("/plugin/bind", "a\",b", "p"), fine());
    assert_eq!(post("/plugin/bind", "a", "q"), fine());
    assert_eq!(post("/plugin/bind", "a", "p"), fine());
    let pair = |uid: &str, plugin: &str| (uid.to_owned(), plugin.to_owned());
    assert_eq!(list(&fixture, "?uid=a"), [pair("a", "p"), pair("a", "q")]);
    assert_eq!(list(&fixture, "?plugin_no=p"), [pair("a", "p"), pair("a\",b", "p")]);
    assert_eq!(list(&fixture, "?uid=none"), []);
    assert_eq!(post("/plugin/unbind", "a", "p"), fine());
    assert_eq!(post("/plugin/unbind", "a", "p"), fine());
    assert_eq!(list(&fixture, "?uid=a"), [pair("a", "q")]);
    let (_, body) = fixture.get("/plugin/bind?uid=a");
    let time = 1_735_689_600_000_000_000_i64;
    let expected = json!([{"plugin_no": "q", "uid": "a", "created_at": time, "updated_at": time}]);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[test]
fn bindings_are_bounded() {
    let keys = Keys::default();
    let fixture = keeping(&keys);
    for n in 0..BINDINGS_MAX {
        let key = key_of(&format!("u{n}"), "p").unwrap();
        keys.borrow_mut().insert(key, Bytes::from_static(b"[1,1]"));
    }
    let body = |uid: &str| json!({"uid": uid, "plugin_no": "p"}).to_string();
    let full = err("there are too many users of plugins");
    assert_eq!(fixture.post("/plugin/bind", &body("one more")), full);
    assert_eq!(fixture.post("/plugin/bind", &body("u7")), fine(), "it is there");
    let long = body(&"\u{1}".repeat(100));
    assert_eq!(fixture.post("/plugin/bind", &long).0, 400, "escapes count");
}

#[test]
fn refusals_of_bindings() {
    let fixture = Fixture::replies([Reply::Failed(Failure::Timeout)]);
    let required = err("plugin_no and uid is required");
    for path in ["/plugin/bind", "/plugin/unbind", "/user/update_plugin_no"] {
        assert_eq!(fixture.post(path, "{}"), required);
        assert_eq!(fixture.post(path, r#"{"uid":"a"}"#), required);
        assert_eq!(fixture.post(path, r#"{"plugin_no":"a"}"#), required);
        assert_eq!(fixture.post(path, r#"{"plugin_no":1,"uid":"a"}"#).0, 400);
    }
    assert_eq!(fixture.get("/plugin/bind"), err("context deadline exceeded"));
}

#[test]
fn no_plugin_is_there() {
    let fixture = Fixture::silent();
    assert_eq!(fixture.get("/plugins?type=ai"), (200, "[]".to_owned()));
    let nothing = (400, r#"{"msg":"plugin not found","status":404}"#.to_owned());
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(seen(&fixture.call(method, "/plugins/wk.plugin.search/search", "{}")), nothing);
    }
    for (path, body, text) in [
        ("/plugin/uninstall", "{}", "plugin_no is required"),
        ("/plugin/uninstall", r#"{"plugin_no":"p"}"#, "plugin not found"),
        ("/plugin/uninstall", r#"{"plugin_no":"p","node_id":7}"#, "no cluster"),
        ("/pluginconfig/p", "{}", "node_id is required"),
        ("/pluginconfig/p", r#"{"node_id":1001}"#, "plugin not found"),
        ("/pluginconfig/p", r#"{"node_id":7}"#, "no cluster"),
    ] {
        assert_eq!(fixture.post(path, body), err(text), "{path} {body}");
    }
}
