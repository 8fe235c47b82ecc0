//! Plugin routes (http-api.md §12). No plugin runs on this version, so every call of one is told so;
//! which users belong to which plugin is kept all the same, by group 0, for back ends set it long
//! before anybody asks.

use http::StatusCode;
use jindou_core::{
    id::NodeId,
    request::{ClusterWrite, Reply, Request, Target},
    shard::CLUSTER_SLOT,
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, done, value},
    api::{Api, Call},
    http::HttpResponse,
    json::{body, read, to_json},
    node::Node,
};

/// What the keys of bindings begin with; uid and plugin follow as a JSON array.
const KEY_PREFIX: &str = "plugin_user/";
/// How many bindings there may be, and the longest key: all of them fit one answer of group 0.
const BINDINGS_MAX: usize = 10_000;
const KEY_SIZE_MAX: usize = 512;

body! {
    /// POST /plugin/bind, /plugin/unbind and /user/update_plugin_no.
    BindingBody { plugin_no: String, uid: String, }
}

body! {
    /// POST /plugin/uninstall.
    UninstallBody { plugin_no: String, node_id: u64, }
}

body! {
    /// POST /pluginconfig/:plugin.
    ConfigBody { node_id: u64, }
}

/// A user's binding to a plugin. Times are Unix ns.
#[derive(Serialize)]
struct BindingJson {
    plugin_no: String,
    uid: String,
    created_at: i64,
    updated_at: i64,
}

/// The key of a binding.
fn key_of(uid: &str, plugin_no: &str) -> Option<String> {
    Some(format!("{KEY_PREFIX}{}", serde_json::to_string(&(uid, plugin_no)).ok()?))
}

/// What the keys of a user's bindings begin with: a JSON string ends where it says so.
fn prefix_of(uid: &str) -> Option<String> {
    if uid.is_empty() {
        return Some(KEY_PREFIX.to_owned());
    }
    Some(format!("{KEY_PREFIX}[{},", serde_json::to_string(uid).ok()?))
}

fn binding(key: &str, value: &[u8]) -> Option<BindingJson> {
    let (uid, plugin_no) = serde_json::from_str(key.strip_prefix(KEY_PREFIX)?).ok()?;
    let (created_at, updated_at) = serde_json::from_slice(value).ok()?;
    Some(BindingJson { plugin_no, uid, created_at, updated_at })
}

/// The bindings of a user, or all.
async fn read_bindings<N: Node>(api: &Api<N>, uid: &str) -> Result<Vec<BindingJson>, Refusal> {
    let prefix = prefix_of(uid).ok_or(Refusal::Confused)?;
    let request = Request::ReadClusterKeys { prefix };
    let reply = api.node.ask(Target::Slot(CLUSTER_SLOT), request).await;
    let Reply::ClusterKeys(keys) = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    Ok(keys.iter().filter_map(|(key, value)| binding(key, value)).collect())
}

async fn write<N: Node>(api: &Api<N>, key: String, value: Vec<u8>) -> Answer {
    let entries = vec![ClusterWrite { key, value, if_absent: false }];
    let request = Request::WriteClusterKeys { entries };
    let reply = api.node.ask(Target::Slot(CLUSTER_SLOT), request).await;
    done(&reply, "")
}

/// Reads a body that names a binding, and its key.
fn read_binding(call: &Call) -> Result<(BindingBody, String), Refusal> {
    let body: BindingBody = read(&call.body)?;
    if body.plugin_no.is_empty() || body.uid.is_empty() {
        return Err(Refusal::Rule("plugin_no and uid is required"));
    }
    let key = key_of(&body.uid, &body.plugin_no).ok_or(Refusal::Confused)?;
    if key.len() > KEY_SIZE_MAX {
        return Err(Refusal::TooLong { what: "plugin_no and uid", max: KEY_SIZE_MAX });
    }
    Ok((body, key))
}

/// GET /plugins: none runs on this node.
pub(crate) fn plugins() -> Answer {
    Ok(value::<[(); 0]>(&[]))
}

/// POST /plugin/bind and /user/update_plugin_no.
pub(crate) async fn bind<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (body, key) = read_binding(call)?;
    let known = read_bindings(api, "").await?;
    let is_it = |known: &&BindingJson| known.uid == body.uid && known.plugin_no == body.plugin_no;
    let before = known.iter().find(is_it);
    if before.is_none() && known.len() >= BINDINGS_MAX {
        return Err(Refusal::Rule("there are too many users of plugins"));
    }
    let now_ns = api.node.now().unix_ms.saturating_mul(1_000_000);
    let times = (before.map_or(now_ns, |before| before.created_at), now_ns);
    write(api, key, to_json(&times).to_vec()).await
}

/// POST /plugin/unbind. What is not bound is no error.
pub(crate) async fn unbind<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (body, key) = read_binding(call)?;
    let known = read_bindings(api, &body.uid).await?;
    if !known.iter().any(|known| known.plugin_no == body.plugin_no) {
        return done(&Reply::Done, "");
    }
    write(api, key, Vec::new()).await
}

/// GET /plugin/bind: of a user, of a plugin, or all; the newest first.
pub(crate) async fn bindings<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let plugin_no = call.query.text("plugin_no");
    let mut found = read_bindings(api, call.query.text("uid")).await?;
    found.retain(|binding| plugin_no.is_empty() || binding.plugin_no == plugin_no);
    found.sort_by_key(|binding| std::cmp::Reverse(binding.created_at));
    Ok(value(&found))
}

/// POST /plugin/uninstall.
pub(crate) async fn uninstall<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: UninstallBody = read(&call.body)?;
    if body.plugin_no.is_empty() {
        return Err(Refusal::Rule("plugin_no is required"));
    }
    check_node(api, body.node_id).await?;
    Err(Refusal::Rule("plugin not found"))
}

/// POST /pluginconfig/:plugin.
pub(crate) async fn configure<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ConfigBody = read(&call.body)?;
    if body.node_id == 0 {
        return Err(Refusal::Rule("node_id is required"));
    }
    check_node(api, body.node_id).await?;
    Err(Refusal::Rule("plugin not found"))
}

/// Refuses a node that is no member; 0 is this one.
pub(crate) async fn check_node<N: Node>(api: &Api<N>, node: u64) -> Result<(), Refusal> {
    if node == 0 || node == api.settings.node.0 {
        return Ok(());
    }
    let view = api.node.cluster().await.map_err(Refusal::Told)?;
    view.member(NodeId(node)).map(drop).ok_or(Refusal::Rule("node not found"))
}

/// Any method on /plugins/:plugin/…: the plugin is not there. The status in the body is v2's.
pub(crate) fn call() -> HttpResponse {
    #[derive(Serialize)]
    struct Body {
        msg: &'static str,
        status: u16,
    }

    let body = Body { msg: "plugin not found", status: 404 };
    HttpResponse::json(StatusCode::BAD_REQUEST, to_json(&body))
}

#[cfg(test)]
mod tests;
