//! The paths of the API port and of the manager port (http-api.md §2, §18): what is served, what
//! is known and not served yet, and what is nothing.

use http::Method;
use jindou_core::channel_info::ListChange;
use matchit::Router;

use crate::cluster::ClusterRoute;

/// What answers a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    Health,
    Alive,
    Ready,
    Route,
    RouteBatch,
    Connz,
    Varz,
    VarzSetting,
    UserToken,
    SystemUids,
    ChangeSystemUids { add: bool },
    CacheSystemUids,
    DeviceQuit,
    OnlineStatus,
    ConnRemove,
    ConnKick,
    Channel,
    ChannelInfo,
    ChannelDelete,
    SubscriberAdd,
    SubscriberRemove,
    SubscriberRemoveAll,
    Blacklist(ListChange),
    Whitelist(ListChange),
    ReadWhitelist,
    Send,
    SendBatch,
    Messages,
    Message,
    MessageByNumber,
    MessageSync,
    MaxMessageSeq,
    LastMessage,
    ClearUnread,
    SetUnread,
    DeleteConversation,
    ConversationSync,
    ConversationChannels,
    SyncByChannels,
    Cluster(ClusterRoute),
}

/// What a path says where its pattern has a name, such as `id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The text at a name; empty when the pattern has no such name.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl From<matchit::Params<'_, '_>> for Params {
    fn from(params: matchit::Params<'_, '_>) -> Self {
        Self(params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

/// What a method and path lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A handler, and what the path says to it.
    Handler(Handler, Params),
    /// A path of v2 that this version does not serve.
    NotYet,
    /// The path with one slash more or less at its end is known.
    Elsewhere(String),
    /// Nothing.
    Nothing,
}

impl Found {
    /// Whether this is a health check.
    pub(crate) fn is_health(&self) -> bool {
        matches!(self, Self::Handler(Handler::Health | Handler::Alive | Handler::Ready, _))
    }
}

const SERVED_GET: &[(&str, Handler)] = &[
    ("/health", Handler::Health),
    ("/healthz", Handler::Alive),
    ("/readyz", Handler::Ready),
    ("/route", Handler::Route),
    ("/connz", Handler::Connz),
    ("/varz", Handler::Varz),
    ("/varz/setting", Handler::VarzSetting),
    ("/user/systemuids", Handler::SystemUids),
    ("/message/byclientmsgno", Handler::MessageByNumber),
    ("/channel/whitelist", Handler::ReadWhitelist),
    ("/channel/max_message_seq", Handler::MaxMessageSeq),
    ("/channel/last_message", Handler::LastMessage),
];

const SERVED_POST: &[(&str, Handler)] = &[
    ("/route/batch", Handler::RouteBatch),
    ("/user/token", Handler::UserToken),
    ("/user/systemuids_add", Handler::ChangeSystemUids { add: true }),
    ("/user/systemuids_remove", Handler::ChangeSystemUids { add: false }),
    ("/user/systemuids_add_to_cache", Handler::CacheSystemUids),
    ("/user/systemuids_remove_from_cache", Handler::CacheSystemUids),
    ("/user/device_quit", Handler::DeviceQuit),
    ("/user/onlinestatus", Handler::OnlineStatus),
    ("/conn/remove", Handler::ConnRemove),
    ("/conn/kick", Handler::ConnKick),
    ("/channel", Handler::Channel),
    ("/channel/info", Handler::ChannelInfo),
    ("/channel/delete", Handler::ChannelDelete),
    ("/channel/subscriber_add", Handler::SubscriberAdd),
    ("/channel/subscriber_remove", Handler::SubscriberRemove),
    ("/channel/subscriber_remove_all", Handler::SubscriberRemoveAll),
    ("/channel/blacklist_add", Handler::Blacklist(ListChange::Add)),
    ("/channel/blacklist_set", Handler::Blacklist(ListChange::Set)),
    ("/channel/blacklist_remove", Handler::Blacklist(ListChange::Remove)),
    ("/channel/blacklist_remove_all", Handler::Blacklist(ListChange::Clear)),
    ("/channel/whitelist_add", Handler::Whitelist(ListChange::Add)),
    ("/channel/whitelist_set", Handler::Whitelist(ListChange::Set)),
    ("/channel/whitelist_remove", Handler::Whitelist(ListChange::Remove)),
    ("/channel/whitelist_remove_all", Handler::Whitelist(ListChange::Clear)),
    ("/message/send", Handler::Send),
    ("/message/sendbatch", Handler::SendBatch),
    ("/messages", Handler::Messages),
    ("/message", Handler::Message),
    ("/channel/messagesync", Handler::MessageSync),
    ("/conversations/clearUnread", Handler::ClearUnread),
    ("/conversations/setUnread", Handler::SetUnread),
    ("/conversations/delete", Handler::DeleteConversation),
    ("/conversation/sync", Handler::ConversationSync),
    ("/conversation/channels", Handler::ConversationChannels),
    ("/conversation/syncByChannels", Handler::SyncByChannels),
];

/// Paths that both ports have; the manager's waits for its login.
const SERVED_SHARED_GET: &[(&str, Handler)] = &[
    ("/cluster/nodes", Handler::Cluster(ClusterRoute::Nodes)),
    ("/cluster/node", Handler::Cluster(ClusterRoute::Node)),
    ("/cluster/simpleNodes", Handler::Cluster(ClusterRoute::SimpleNodes)),
    ("/cluster/info", Handler::Cluster(ClusterRoute::Info)),
    ("/cluster/slots", Handler::Cluster(ClusterRoute::Slots)),
    ("/cluster/allslot", Handler::Cluster(ClusterRoute::AllSlots)),
    ("/cluster/slots/{id}/config", Handler::Cluster(ClusterRoute::SlotConfig)),
    ("/cluster/slots/{id}/replicas", Handler::Cluster(ClusterRoute::SlotReplicas)),
    ("/cluster/slots/{id}/localReplica", Handler::Cluster(ClusterRoute::SlotLocalReplica)),
    ("/cluster/devtools/checkLogConflict", Handler::Cluster(ClusterRoute::CheckLogConflict)),
];

/// As [`SERVED_SHARED_GET`]; the last three are not v2's.
const SERVED_SHARED_POST: &[(&str, Handler)] = &[
    ("/cluster/slots/{id}/migrate", Handler::Cluster(ClusterRoute::Migrate)),
    ("/cluster/slots/{id}/election", Handler::Cluster(ClusterRoute::Elect)),
    ("/cluster/nodes/{id}/remove", Handler::Cluster(ClusterRoute::Remove)),
    ("/cluster/nodes/{id}/keep", Handler::Cluster(ClusterRoute::Keep)),
    ("/cluster/nodes/{id}/replace", Handler::Cluster(ClusterRoute::Replace)),
];

/// Paths of v2's API port that wait for later work.
const LATER_GET: &[&str] =
    &["/migrate/result", "/docs", "/docs/", "/docs/openapi.json", "/docs/health"];

const LATER_POST: &[&str] = &[
    "/user/update_plugin_no",
    "/tmpchannel/subscriber_set",
    "/message/sync",
    "/message/syncack",
    "/message/event",
    "/message/eventsync",
    "/conversation/syncMessages",
];

/// Paths that both ports have and that wait for later work.
const LATER_SHARED_GET: &[&str] = &[
    "/stress/infoList",
    "/stress/templates",
    "/tag",
    "/tags",
    "/plugins",
    "/plugin/bind",
    "/cluster/nodes/{id}/channels",
    "/cluster/messages",
    "/cluster/channels",
    "/cluster/channels/{id}/{type}/subscribers",
    "/cluster/channels/{id}/{type}/denylist",
    "/cluster/channels/{id}/{type}/allowlist",
    "/cluster/users",
    "/cluster/devices",
    "/cluster/conversations",
    "/cluster/logs",
    "/cluster/channels/{id}/{type}/config",
    "/cluster/channels/{id}/{type}/replicas",
    "/cluster/channels/{id}/{type}/localReplica",
];

const LATER_SHARED_POST: &[&str] = &[
    "/manager/login",
    "/stress/add",
    "/stress/remove",
    "/stress/start",
    "/stress/stop",
    "/stress/report",
    "/tag/remove",
    "/pluginconfig/{plugin}",
    "/plugin/bind",
    "/plugin/unbind",
    "/plugin/uninstall",
    "/cluster/message/eventsync",
    "/cluster/channels/{id}/{type}/migrate",
    "/cluster/channels/{id}/{type}/start",
    "/cluster/channels/{id}/{type}/stop",
    "/cluster/channel/status",
];

/// Paths for any method.
const LATER_SHARED_ANY: &[&str] = &["/plugins/{plugin}/", "/plugins/{plugin}/{*path}"];

/// Paths that only the manager port has, besides those served.
const LATER_MANAGER_GET: &[&str] =
    &["/metrics/app", "/metrics/cluster", "/metrics/system", "/web", "/web/", "/web/{*path}"];

/// Other handlers that the manager port has too, not served there before its login is.
const SHARED_HANDLERS: &[(bool, &str)] = &[
    (false, "/connz"),
    (false, "/varz"),
    (false, "/varz/setting"),
    (true, "/conn/remove"),
    (true, "/conn/kick"),
];

/// What stands behind a pattern.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Handler(Handler),
    NotYet,
}

/// The paths of one method.
type Table = Router<Behind>;

/// The paths of both ports.
pub(crate) struct Routes {
    get: Table,
    post: Table,
    any: Table,
    manager_get: Table,
    manager_post: Table,
}

impl Routes {
    /// Builds the tables. They are constants: a test checks that none is refused.
    pub(crate) fn new() -> Self {
        let mut routes = Self {
            get: Table::new(),
            post: Table::new(),
            any: Table::new(),
            manager_get: Table::new(),
            manager_post: Table::new(),
        };
        for (path, handler) in SERVED_GET.iter().chain(SERVED_SHARED_GET) {
            put(&mut routes.get, path, Behind::Handler(*handler));
        }
        for (path, handler) in SERVED_POST.iter().chain(SERVED_SHARED_POST) {
            put(&mut routes.post, path, Behind::Handler(*handler));
        }
        for (path, _) in SERVED_SHARED_GET {
            put(&mut routes.manager_get, path, Behind::NotYet);
        }
        for (path, _) in SERVED_SHARED_POST {
            put(&mut routes.manager_post, path, Behind::NotYet);
        }
        for path in LATER_GET.iter().chain(LATER_SHARED_GET) {
            put(&mut routes.get, path, Behind::NotYet);
        }
        for path in LATER_POST.iter().chain(LATER_SHARED_POST) {
            put(&mut routes.post, path, Behind::NotYet);
        }
        for path in LATER_SHARED_ANY {
            put(&mut routes.any, path, Behind::NotYet);
        }
        for path in LATER_MANAGER_GET.iter().chain(LATER_SHARED_GET) {
            put(&mut routes.manager_get, path, Behind::NotYet);
        }
        for path in LATER_SHARED_POST {
            put(&mut routes.manager_post, path, Behind::NotYet);
        }
        for (is_post, path) in SHARED_HANDLERS {
            let table = if *is_post { &mut routes.manager_post } else { &mut routes.manager_get };
            put(table, path, Behind::NotYet);
        }
        routes
    }

    /// What a decoded path of the API port leads to.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found {
        let table = if method == Method::GET {
            &self.get
        } else if method == Method::POST {
            &self.post
        } else {
            &self.any
        };
        for table in [table, &self.any] {
            if let Ok(found) = table.at(path) {
                return match *found.value {
                    Behind::Handler(handler) => Found::Handler(handler, found.params.into()),
                    Behind::NotYet => Found::NotYet,
                };
            }
        }
        // v2 looks for the path with or without a slash at its end, among the same method's.
        let other = match path.strip_suffix('/') {
            Some("") => return Found::Nothing,
            Some(shorter) => shorter.to_owned(),
            None => format!("{path}/"),
        };
        match table.at(&other) {
            Ok(_) => Found::Elsewhere(encode_path(&other)),
            Err(_) => Found::Nothing,
        }
    }

    /// Whether the manager port has this decoded path.
    pub(crate) fn is_managers(&self, method: &Method, path: &str) -> bool {
        let table = if method == Method::GET {
            &self.manager_get
        } else if method == Method::POST {
            &self.manager_post
        } else {
            &self.any
        };
        table.at(path).is_ok() || self.any.at(path).is_ok()
    }
}

/// Adds a path. All paths are constants of this file.
fn put(table: &mut Table, path: &str, behind: Behind) {
    let added = table.insert(path, behind);
    debug_assert!(added.is_ok(), "two routes are in each other's way: {path}");
}

/// A path as it may stand in a header.
fn encode_path(path: &str) -> String {
    use std::fmt::Write as _;

    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~!$&'()*+,;=:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a pattern that is taken for a path holds at its name.
    fn id_of(pattern: &str) -> &str {
        if pattern.contains("{id}") { "{id}" } else { "" }
    }

    #[test]
    fn every_path_of_the_tables_is_found() {
        let routes = Routes::new();
        for (path, handler) in SERVED_GET {
            assert_eq!(
                routes.find(&Method::GET, path),
                Found::Handler(*handler, Params::default())
            );
        }
        for (path, handler) in SERVED_POST {
            assert_eq!(
                routes.find(&Method::POST, path),
                Found::Handler(*handler, Params::default())
            );
        }
        for (path, handler) in SERVED_SHARED_GET {
            let Found::Handler(found, params) = routes.find(&Method::GET, path) else {
                panic!("{path} is not found");
            };
            assert_eq!((found, params.text("id")), (*handler, id_of(path)));
            assert!(routes.is_managers(&Method::GET, path));
        }
        for (path, handler) in SERVED_SHARED_POST {
            let Found::Handler(found, params) = routes.find(&Method::POST, path) else {
                panic!("{path} is not found");
            };
            assert_eq!((found, params.text("id")), (*handler, id_of(path)));
            assert!(routes.is_managers(&Method::POST, path));
        }
        for path in LATER_GET.iter().chain(LATER_SHARED_GET) {
            assert_eq!(routes.find(&Method::GET, path), Found::NotYet, "{path}");
        }
        for path in LATER_POST.iter().chain(LATER_SHARED_POST) {
            assert_eq!(routes.find(&Method::POST, path), Found::NotYet, "{path}");
        }
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(routes.find(&method, "/plugins/p/x/y"), Found::NotYet);
        }
    }

    #[test]
    fn a_slash_too_many_or_too_few_leads_elsewhere() {
        let routes = Routes::new();
        let find = |method: Method, path| routes.find(&method, path);
        let to = |path: &str| Found::Elsewhere(path.to_owned());
        assert_eq!(find(Method::GET, "/health/"), to("/health"));
        assert_eq!(find(Method::POST, "/user/token/"), to("/user/token"));
        assert_eq!(find(Method::GET, "/user/token/"), Found::Nothing);
        assert_eq!(find(Method::GET, "/docs/"), Found::NotYet);
        assert_eq!(find(Method::GET, "/"), Found::Nothing);
        assert_eq!(find(Method::GET, "//health"), Found::Nothing);
        assert_eq!(
            find(Method::GET, "/cluster/nodes/a b\r\n/channels/"),
            to("/cluster/nodes/a%20b%0D%0A/channels")
        );
    }

    #[test]
    fn other_methods_and_cases_are_nothing() {
        let routes = Routes::new();
        for (method, path) in [
            (Method::PUT, "/channel"),
            (Method::DELETE, "/channel"),
            (Method::GET, "/message/send"),
            (Method::POST, "/MESSAGE/send"),
            (Method::POST, "/message//send"),
            (Method::POST, "/message/send/x"),
            (Method::GET, "/message/send\0"),
            (Method::GET, "/../../secret"),
            (Method::GET, "/metrics"),
            (Method::HEAD, "/health"),
            (Method::POST, "/channel/max_message_seq"),
        ] {
            assert_eq!(routes.find(&method, path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn the_manager_port_has_its_own_paths() {
        let routes = Routes::new();
        assert!(routes.is_managers(&Method::GET, "/metrics/app"));
        assert!(routes.is_managers(&Method::GET, "/web/assets/a.js"));
        assert!(routes.is_managers(&Method::GET, "/connz"));
        assert!(routes.is_managers(&Method::POST, "/conn/kick"));
        assert!(!routes.is_managers(&Method::POST, "/message/send"));
        assert!(!routes.is_managers(&Method::GET, "/nope"));
    }
}
