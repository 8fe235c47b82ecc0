//! The paths of the API port and of the manager port (http-api.md §2, §18): what is served, what
//! is known and not served yet, and what is nothing.

use http::Method;
use jindou_core::channel_info::ListChange;
use matchit::Router;

use crate::{cluster::ClusterRoute, data::DataRoute, docs::DocsPage, migrate::ImportRoute};

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
    CommandSync,
    CommandAck,
    SetRecipients,
    Tag,
    SyncMessages,
    MessageByNumber,
    MessageSync,
    Event,
    EventSync,
    MaxMessageSeq,
    LastMessage,
    ClearUnread,
    SetUnread,
    DeleteConversation,
    ConversationSync,
    ConversationChannels,
    SyncByChannels,
    Cluster(ClusterRoute),
    Login,
    Metrics,
    Series,
    Page,
    MigrateResult,
    Import(ImportRoute),
    Docs(DocsPage),
    Plugins,
    PluginCall,
    PluginBindings,
    PluginBind,
    PluginUnbind,
    PluginUninstall,
    PluginConfigure,
    Tags,
    TagRemove,
    Data(DataRoute),
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
    ("/user/systemuids", Handler::SystemUids),
    ("/message/byclientmsgno", Handler::MessageByNumber),
    ("/channel/whitelist", Handler::ReadWhitelist),
    ("/channel/max_message_seq", Handler::MaxMessageSeq),
    ("/channel/last_message", Handler::LastMessage),
    ("/migrate/result", Handler::MigrateResult),
    ("/docs", Handler::Docs(DocsPage::Index)),
    ("/docs/", Handler::Docs(DocsPage::Folder)),
    ("/docs/openapi.json", Handler::Docs(DocsPage::OpenApi)),
    ("/docs/health", Handler::Docs(DocsPage::Health)),
];

const SERVED_POST: &[(&str, Handler)] = &[
    ("/route/batch", Handler::RouteBatch),
    ("/user/token", Handler::UserToken),
    ("/user/systemuids_add", Handler::ChangeSystemUids { add: true }),
    ("/user/systemuids_remove", Handler::ChangeSystemUids { add: false }),
    ("/user/systemuids_add_to_cache", Handler::CacheSystemUids),
    ("/user/systemuids_remove_from_cache", Handler::CacheSystemUids),
    ("/user/device_quit", Handler::DeviceQuit),
    ("/user/update_plugin_no", Handler::PluginBind),
    ("/user/onlinestatus", Handler::OnlineStatus),
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
    ("/tmpchannel/subscriber_set", Handler::SetRecipients),
    ("/conversation/syncMessages", Handler::SyncMessages),
    ("/message/sync", Handler::CommandSync),
    ("/message/syncack", Handler::CommandAck),
    ("/messages", Handler::Messages),
    ("/message", Handler::Message),
    ("/channel/messagesync", Handler::MessageSync),
    ("/message/event", Handler::Event),
    ("/message/eventsync", Handler::EventSync),
    ("/conversations/clearUnread", Handler::ClearUnread),
    ("/conversations/setUnread", Handler::SetUnread),
    ("/conversations/delete", Handler::DeleteConversation),
    ("/conversation/sync", Handler::ConversationSync),
    ("/conversation/channels", Handler::ConversationChannels),
    ("/conversation/syncByChannels", Handler::SyncByChannels),
];

/// Paths that both ports have.
const SERVED_SHARED_GET: &[(&str, Handler)] = &[
    ("/connz", Handler::Connz),
    ("/varz", Handler::Varz),
    ("/varz/setting", Handler::VarzSetting),
    ("/plugins", Handler::Plugins),
    ("/plugin/bind", Handler::PluginBindings),
    ("/tag", Handler::Tag),
    ("/tags", Handler::Tags),
    ("/cluster/nodes", Handler::Cluster(ClusterRoute::Nodes)),
    ("/cluster/node", Handler::Cluster(ClusterRoute::Node)),
    ("/cluster/simpleNodes", Handler::Cluster(ClusterRoute::SimpleNodes)),
    ("/cluster/info", Handler::Cluster(ClusterRoute::Info)),
    ("/cluster/slots", Handler::Cluster(ClusterRoute::Slots)),
    ("/cluster/allslot", Handler::Cluster(ClusterRoute::AllSlots)),
    ("/cluster/slots/{id}/config", Handler::Cluster(ClusterRoute::SlotConfig)),
    ("/cluster/slots/{id}/replicas", Handler::Cluster(ClusterRoute::SlotReplicas)),
    ("/cluster/slots/{id}/localReplica", Handler::Cluster(ClusterRoute::SlotLocalReplica)),
    ("/cluster/logs", Handler::Cluster(ClusterRoute::Logs)),
    ("/cluster/devtools/checkLogConflict", Handler::Cluster(ClusterRoute::CheckLogConflict)),
    ("/cluster/channels/{id}/{type}/subscribers", Handler::Data(DataRoute::Subscribers)),
    ("/cluster/channels/{id}/{type}/denylist", Handler::Data(DataRoute::Denylist)),
    ("/cluster/channels/{id}/{type}/allowlist", Handler::Data(DataRoute::Allowlist)),
    ("/cluster/channels/{id}/{type}/config", Handler::Data(DataRoute::Config)),
    ("/cluster/channels/{id}/{type}/replicas", Handler::Data(DataRoute::Replicas)),
    ("/cluster/channels/{id}/{type}/localReplica", Handler::Data(DataRoute::LocalReplica)),
    ("/cluster/channels", Handler::Data(DataRoute::Channels)),
    ("/cluster/nodes/{id}/channels", Handler::Data(DataRoute::NodeChannels)),
    ("/cluster/users", Handler::Data(DataRoute::Users)),
    ("/cluster/devices", Handler::Data(DataRoute::Devices)),
    ("/cluster/conversations", Handler::Data(DataRoute::Conversations)),
    ("/cluster/messages", Handler::Data(DataRoute::Messages)),
];

/// As [`SERVED_SHARED_GET`]; the last eight are not v2's. Each names the right that it asks for in
/// `manager/rights.rs`.
const SERVED_SHARED_POST: &[(&str, Handler)] = &[
    ("/manager/login", Handler::Login),
    ("/cluster/channel/status", Handler::Data(DataRoute::Status)),
    ("/plugin/bind", Handler::PluginBind),
    ("/plugin/unbind", Handler::PluginUnbind),
    ("/plugin/uninstall", Handler::PluginUninstall),
    ("/pluginconfig/{plugin}", Handler::PluginConfigure),
    ("/tag/remove", Handler::TagRemove),
    ("/cluster/channels/{id}/{type}/migrate", Handler::Cluster(ClusterRoute::ChannelMigrate)),
    ("/cluster/channels/{id}/{type}/start", Handler::Cluster(ClusterRoute::ChannelStart)),
    ("/cluster/channels/{id}/{type}/stop", Handler::Cluster(ClusterRoute::ChannelStop)),
    ("/conn/remove", Handler::ConnRemove),
    ("/conn/kick", Handler::ConnKick),
    ("/cluster/message/eventsync", Handler::EventSync),
    ("/cluster/slots/{id}/migrate", Handler::Cluster(ClusterRoute::Migrate)),
    ("/cluster/slots/{id}/election", Handler::Cluster(ClusterRoute::Elect)),
    ("/cluster/nodes/{id}/remove", Handler::Cluster(ClusterRoute::Remove)),
    ("/cluster/nodes/{id}/keep", Handler::Cluster(ClusterRoute::Keep)),
    ("/cluster/nodes/{id}/replace", Handler::Cluster(ClusterRoute::Replace)),
    ("/migrate/messages", Handler::Import(ImportRoute::Messages)),
    ("/migrate/conversations", Handler::Import(ImportRoute::Conversations)),
    ("/migrate/conversations/read", Handler::Import(ImportRoute::ReadConversations)),
    ("/migrate/devices", Handler::Import(ImportRoute::Devices)),
    ("/migrate/list", Handler::Import(ImportRoute::List)),
];

/// Paths that both ports have for any method.
const SERVED_SHARED_ANY: &[(&str, Handler)] = &[
    ("/plugins/{plugin}/", Handler::PluginCall),
    ("/plugins/{plugin}/{*path}", Handler::PluginCall),
];

/// Paths that only the manager port has.
const SERVED_MANAGER_GET: &[(&str, Handler)] = &[
    ("/metrics", Handler::Metrics),
    ("/metrics/app", Handler::Series),
    ("/metrics/cluster", Handler::Series),
    ("/metrics/system", Handler::Series),
    ("/web", Handler::Page),
    ("/web/", Handler::Page),
    ("/web/{*path}", Handler::Page),
];

/// Paths of both ports that are there only with `stress`, and wait for later work.
const STRESS_GET: &[&str] = &["/stress/infoList", "/stress/templates"];
const STRESS_POST: &[&str] =
    &["/stress/add", "/stress/remove", "/stress/start", "/stress/stop", "/stress/report"];

/// Paths of the API port that are there only with `pprofOn`, and wait for later work.
const PROFILING_GET: &[&str] = &["/debug/pprof", "/debug/pprof/", "/debug/pprof/{*path}"];

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
        for (path, handler) in SERVED_GET {
            put(&mut routes.get, path, Behind::Handler(*handler));
        }
        for (path, handler) in SERVED_POST {
            put(&mut routes.post, path, Behind::Handler(*handler));
        }
        for (path, handler) in SERVED_SHARED_GET {
            put(&mut routes.get, path, Behind::Handler(*handler));
            put(&mut routes.manager_get, path, Behind::Handler(*handler));
        }
        for (path, handler) in SERVED_SHARED_POST {
            put(&mut routes.post, path, Behind::Handler(*handler));
            put(&mut routes.manager_post, path, Behind::Handler(*handler));
        }
        for (path, handler) in SERVED_MANAGER_GET {
            put(&mut routes.manager_get, path, Behind::Handler(*handler));
        }
        for (path, handler) in SERVED_SHARED_ANY {
            put(&mut routes.any, path, Behind::Handler(*handler));
        }
        routes
    }

    /// With the routes of `stress`.
    pub(crate) fn with_stress(mut self) -> Self {
        self.later_shared(STRESS_GET, STRESS_POST);
        self
    }

    /// With the routes of `pprofOn`.
    pub(crate) fn with_profiling(mut self) -> Self {
        for path in PROFILING_GET {
            put(&mut self.get, path, Behind::NotYet);
        }
        self
    }

    fn later_shared(&mut self, get: &[&str], post: &[&str]) {
        for path in get {
            put(&mut self.get, path, Behind::NotYet);
            put(&mut self.manager_get, path, Behind::NotYet);
        }
        for path in post {
            put(&mut self.post, path, Behind::NotYet);
            put(&mut self.manager_post, path, Behind::NotYet);
        }
    }

    /// What a decoded path of the API port leads to.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found {
        self.look_up(&self.get, &self.post, method, path)
    }

    /// What a decoded path of the manager port leads to.
    pub(crate) fn find_manager(&self, method: &Method, path: &str) -> Found {
        self.look_up(&self.manager_get, &self.manager_post, method, path)
    }

    fn look_up(&self, get: &Table, post: &Table, method: &Method, path: &str) -> Found {
        let table = if method == Method::GET {
            get
        } else if method == Method::POST {
            post
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
}

/// The patterns of the API port that are served, with their methods, for its documentation.
pub(crate) fn served() -> impl Iterator<Item = (&'static str, &'static str)> {
    let get = SERVED_GET.iter().chain(SERVED_SHARED_GET).map(|(path, _)| ("get", *path));
    let post = SERVED_POST.iter().chain(SERVED_SHARED_POST).map(|(path, _)| ("post", *path));
    get.chain(post)
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
    use crate::manager::Rights;

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
            assert_eq!(routes.find_manager(&Method::GET, path), Found::Handler(found, params));
        }
        for (path, handler) in SERVED_SHARED_POST {
            let Found::Handler(found, params) = routes.find(&Method::POST, path) else {
                panic!("{path} is not found");
            };
            assert_eq!((found, params.text("id")), (*handler, id_of(path)));
            assert_eq!(routes.find_manager(&Method::POST, path), Found::Handler(found, params));
            assert!(Rights::names(path), "{path} names no right");
        }
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let found = routes.find(&method, "/plugins/p/x/y");
            assert!(matches!(found, Found::Handler(Handler::PluginCall, _)), "{found:?}");
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
        let find = |method, path| routes.find_manager(&method, path);
        for (path, handler) in SERVED_MANAGER_GET.iter().filter(|(path, _)| !path.contains('{')) {
            assert_eq!(
                find(Method::GET, path),
                Found::Handler(*handler, Params::default()),
                "{path}"
            );
            assert_eq!(routes.find(&Method::GET, path), Found::Nothing, "{path}");
        }
        let Found::Handler(Handler::Page, _) = find(Method::GET, "/web/assets/a.js") else {
            panic!("a page below /web is not found");
        };
        for (method, path) in [
            (Method::POST, "/message/send"),
            (Method::POST, "/user/token"),
            (Method::GET, "/health"),
            (Method::GET, "/docs"),
            (Method::GET, "/nope"),
            (Method::GET, "/"),
            (Method::GET, "/manager/login"),
            (Method::POST, "/metrics"),
        ] {
            assert_eq!(find(method, path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn stress_and_profiling_are_there_when_switched_on() {
        let off = Routes::new();
        let on = Routes::new().with_stress().with_profiling();
        for path in STRESS_GET {
            assert_eq!(off.find(&Method::GET, path), Found::Nothing, "{path}");
            assert_eq!(off.find_manager(&Method::GET, path), Found::Nothing, "{path}");
            assert_eq!(on.find(&Method::GET, path), Found::NotYet, "{path}");
            assert_eq!(on.find_manager(&Method::GET, path), Found::NotYet, "{path}");
        }
        for path in STRESS_POST {
            assert_eq!(off.find(&Method::POST, path), Found::Nothing, "{path}");
            assert_eq!(on.find_manager(&Method::POST, path), Found::NotYet, "{path}");
            assert!(Rights::names(path), "{path} names no right");
        }
        for path in ["/debug/pprof/", "/debug/pprof/heap"] {
            assert_eq!(off.find(&Method::GET, path), Found::Nothing, "{path}");
            assert_eq!(on.find(&Method::GET, path), Found::NotYet, "{path}");
            assert_eq!(on.find_manager(&Method::GET, path), Found::Nothing, "{path}");
        }
    }
}
