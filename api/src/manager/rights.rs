//! Which right a route asks for (http-api.md §13.3, operations.md §4.3). Reading asks for none
//! beside being let in.

use http::Method;
use matchit::Router;

use super::{Caller, ManagerUser};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: it reads, or is the way in.
    Nothing,
    /// The right to write on a resource. On the API port whoever is not known may do it: back ends
    /// do, and v2 does not ask for more.
    Known(&'static str),
    /// The right to write on a resource, on both ports.
    Always(&'static str),
}

use Need::{Always, Known, Nothing};

/// POST routes by pattern.
const POST: &[(&str, Need)] = &[
    ("/manager/login", Nothing),
    ("/cluster/message/eventsync", Nothing),
    ("/cluster/channel/status", Nothing),
    ("/stress/report", Nothing),
    ("/conn/remove", Known("connRemove")),
    ("/conn/kick", Known("connKick")),
    ("/tag/remove", Known("tagRemove")),
    ("/stress/add", Known("stress")),
    ("/stress/remove", Known("stress")),
    ("/stress/start", Known("stress")),
    ("/stress/stop", Known("stress")),
    ("/cluster/slots/{id}/migrate", Always("slotMigrate")),
    ("/cluster/slots/{id}/election", Always("slotElection")),
    ("/cluster/nodes/{id}/remove", Always("nodeChange")),
    ("/cluster/nodes/{id}/keep", Always("nodeChange")),
    ("/cluster/nodes/{id}/replace", Always("nodeChange")),
    ("/cluster/channels/{id}/{type}/migrate", Always("clusterchannelMigrate")),
    ("/cluster/channels/{id}/{type}/start", Always("clusterchannelStart")),
    ("/cluster/channels/{id}/{type}/stop", Always("clusterchannelStop")),
    ("/migrate/messages", Always("import")),
    ("/migrate/conversations", Always("import")),
    ("/migrate/conversations/read", Always("import")),
    ("/migrate/devices", Always("import")),
    ("/migrate/list", Always("import")),
    ("/pluginconfig/{plugin}", Always("pluginConfigUpdate")),
    ("/plugin/bind", Always("pluginUserAdd")),
    ("/plugin/unbind", Always("pluginUserDelete")),
    ("/plugin/uninstall", Always("pluginUninstall")),
];

/// What a plugin does with a call, only it knows: every method but GET counts as writing.
const PLUGIN_CALL: &str = "/plugins/";

/// The rights that routes ask for.
pub(crate) struct Rights {
    post: Router<Need>,
}

impl Rights {
    /// Builds the table: a test checks that no pattern is refused.
    pub(crate) fn new() -> Self {
        let mut post = Router::new();
        for (pattern, need) in POST {
            let added = post.insert(*pattern, *need);
            debug_assert!(added.is_ok(), "two routes are in each other's way: {pattern}");
        }
        Self { post }
    }

    /// Whether a caller may use a decoded path that the API port has.
    pub(crate) fn allow(
        &self,
        caller: &Caller,
        users: &[ManagerUser],
        method: &Method,
        path: &str,
    ) -> bool {
        self.judge(caller, users, method, path, Nothing)
    }

    /// The same for the manager port: what is not named there is for those who may write
    /// everything.
    pub(crate) fn allow_manager(
        &self,
        caller: &Caller,
        users: &[ManagerUser],
        method: &Method,
        path: &str,
    ) -> bool {
        self.judge(caller, users, method, path, Always("*"))
    }

    fn judge(
        &self,
        caller: &Caller,
        users: &[ManagerUser],
        method: &Method,
        path: &str,
        unnamed: Need,
    ) -> bool {
        if method == Method::GET || method == Method::HEAD {
            return true;
        }
        let need = match self.post.at(path) {
            Ok(found) if method == Method::POST => *found.value,
            Ok(_) | Err(_) if path.starts_with(PLUGIN_CALL) => Known("pluginCall"),
            Ok(_) | Err(_) => unnamed,
        };
        match need {
            Nothing => true,
            Known(resource) => caller.may_write(users, resource, true),
            Always(resource) => caller.may_write(users, resource, false),
        }
    }

    /// Whether a pattern of a POST route is named.
    #[cfg(test)]
    pub(crate) fn names(pattern: &str) -> bool {
        POST.iter().any(|(named, _)| *named == pattern)
    }
}
