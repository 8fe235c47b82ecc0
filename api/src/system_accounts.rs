//! System accounts: who passes the sender checks, and may always be written to (http-api.md
//! §5.4–5.6). The list is the cluster's: a change is answered when every node goes by it.

use jindou_core::{
    request::{Reply, Request, Target},
    shard::{CLUSTER_SLOT, SYSTEM_UID_PREFIX},
};

use crate::{
    answer::{Answer, Refusal, done, ok, value},
    api::{Api, Call},
    ids::without_blanks,
    json::{body, read},
    node::Node,
};

body! {
    /// POST /user/systemuids_add, _remove, _add_to_cache and _remove_from_cache.
    UidsBody { uids: Vec<String>, }
}

/// POST /user/systemuids_add and _remove. Adding twice and removing strangers is harmless.
pub(crate) async fn change<N: Node>(api: &Api<N>, call: &Call, add: bool) -> Answer {
    let body: UidsBody = read(&call.body)?;
    api.settings.check_uids("uid", &body.uids)?;
    let uids = without_blanks(&body.uids);
    let reply = api.node.ask(Target::Slot(CLUSTER_SLOT), Request::ChangeSystems { add, uids });
    let storage = if add { "添加系统账号失败！" } else { "移除系统账号失败！" };
    done(&reply.await, storage)
}

/// POST /user/systemuids_add_to_cache and _remove_from_cache: how nodes of v2 tell each other of a
/// change. Ours know of it when it is answered, so there is nothing left to do.
pub(crate) fn change_cache<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: UidsBody = read(&call.body)?;
    api.settings.check_uids("uid", &body.uids)?;
    Ok(ok())
}

/// GET /user/systemuids: those that were added, sorted.
pub(crate) async fn list<N: Node>(api: &Api<N>) -> Answer {
    let request = Request::ReadClusterKeys { prefix: SYSTEM_UID_PREFIX.to_owned() };
    let reply = api.node.ask(Target::Slot(CLUSTER_SLOT), request).await;
    let Reply::ClusterKeys(keys) = reply else {
        return Err(Refusal::by(&reply, "获取系统账号失败！"));
    };
    let uids = keys.iter().filter_map(|(key, _)| key.strip_prefix(SYSTEM_UID_PREFIX));
    Ok(value(&uids.collect::<Vec<&str>>()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jindou_core::request::Failure;

    use super::*;
    use crate::testing::{Fixture, err, fine};

    #[test]
    fn a_change_goes_to_the_clusters_own_state() {
        let fixture = Fixture::agreeable();
        let body = r#"{"uids":["a","","b"]}"#;
        assert_eq!(fixture.post("/user/systemuids_add", body), fine());
        let asked = r#"ChangeSystems { add: true, uids: ["a", "b"] }"#.to_owned();
        assert_eq!(fixture.last_asked(), (Target::Slot(CLUSTER_SLOT), asked));
        assert_eq!(fixture.post("/user/systemuids_remove", body), fine());
        let asked = r#"ChangeSystems { add: false, uids: ["a", "b"] }"#.to_owned();
        assert_eq!(fixture.last_asked(), (Target::Slot(CLUSTER_SLOT), asked));
    }

    #[test]
    fn failures_have_the_recorded_texts() {
        for (path, text) in [
            ("/user/systemuids_add", "添加系统账号失败！"),
            ("/user/systemuids_remove", "移除系统账号失败！"),
        ] {
            let fixture = Fixture::answers(|_, _| Reply::Failed(Failure::Storage));
            assert_eq!(fixture.post(path, r#"{"uids":["a"]}"#), err(text));
            assert_eq!(fixture.post(path, "{"), err("unexpected EOF"));
            assert_eq!(fixture.post(path, r#"{"uids":"a"}"#).0, 400);
        }
    }

    #[test]
    fn what_v2_nodes_tell_each_other_is_read_and_changes_nothing() {
        let fixture = Fixture::silent();
        for path in ["/user/systemuids_add_to_cache", "/user/systemuids_remove_from_cache"] {
            assert_eq!(fixture.post(path, r#"{"uids":["a"]}"#), fine());
            assert_eq!(fixture.post(path, "{"), err("unexpected EOF"));
        }
    }

    #[test]
    fn the_list_is_without_the_prefix() {
        let keys = ["system_uid/a", "system_uid/b@c"];
        let keys = keys.map(|key| (key.to_owned(), Bytes::from_static(b"1"))).to_vec();
        let fixture = Fixture::replies([Reply::ClusterKeys(keys), Reply::ClusterKeys(vec![])]);
        assert_eq!(fixture.get("/user/systemuids"), (200, r#"["a","b@c"]"#.to_owned()));
        assert_eq!(fixture.get("/user/systemuids"), (200, "[]".to_owned()));
    }
}
