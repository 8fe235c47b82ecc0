//! From a request to its answer: the order of checks that every path shares (http-api.md §1.2).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal},
    channel, cluster, command_sync, connection, conversation, data, demo, docs, health, history,
    http::{HttpRequest, HttpResponse},
    json::to_json,
    list, lookup,
    manager::{self, Refused, Rights, client_ip},
    message, metrics, migrate,
    node::Node,
    plugin,
    query::{Query, decode_path},
    route,
    routes::{Found, Handler, Params, Routes},
    settings::ApiSettings,
    stream, sync_messages, system_accounts, tag, user, varz,
};

/// The API of a node, as one shard serves it. Cheap to hold per shard; not `Send`.
///
/// ```no_run
/// # async fn serve<N: jindou_api::Node>(node: N, request: jindou_api::HttpRequest) {
/// let api = jindou_api::Api::new(node, jindou_api::ApiSettings::default());
/// let response = api.handle(request).await;
/// # }
/// ```
pub struct Api<N: Node> {
    pub(crate) node: N,
    pub(crate) settings: ApiSettings,
    routes: Routes,
    rights: Rights,
}

/// A request whose path is found, with what the handlers read from it.
pub(crate) struct Call {
    pub(crate) params: Params,
    pub(crate) query: Query,
    pub(crate) body: bytes::Bytes,
    /// Where it comes from, gateways left out.
    pub(crate) client: IpAddr,
}

/// What the manager port serves without a log-in: the way in, its pages, and what Prometheus reads.
fn is_open(path: &str) -> bool {
    const FOLDERS: [&str; 3] = ["/manager/login", "/web", "/metrics"];

    FOLDERS.iter().any(|folder| {
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl<N: Node> Api<N> {
    /// An API over a shard.
    pub fn new(node: N, settings: ApiSettings) -> Self {
        let mut routes = Routes::new();
        if settings.stress_on {
            routes = routes.with_stress();
        }
        if settings.profiling_on {
            routes = routes.with_profiling();
        }
        Self { node, settings, routes, rights: Rights::new() }
    }

    /// Answers a request on the API port (5001).
    pub async fn handle(&self, request: HttpRequest) -> HttpResponse {
        let Ok(path) = decode_path(&request.path) else {
            return bad_request();
        };
        let found = self.routes.find(&request.method, &path);
        if !self.may_pass(&request.headers, &found) {
            return HttpResponse::empty(StatusCode::UNAUTHORIZED);
        }
        let mut response = if request.method == Method::OPTIONS {
            HttpResponse::empty(StatusCode::NO_CONTENT)
        } else {
            let query = Query::parse(&request.query);
            let caller = self.caller(&request, &query).await;
            let users = &self.settings.login.users;
            if self.rights.allow(&caller, users, &request.method, &path) {
                self.answer(found, &path, query, request).await
            } else {
                Refusal::NoRight.into_response()
            }
        };
        allow_origins(&mut response.headers);
        response
    }

    /// Answers a request on the manager port (5300).
    pub async fn handle_manager(&self, request: HttpRequest) -> HttpResponse {
        let Ok(path) = decode_path(&request.path) else {
            return bad_request();
        };
        let mut response = if request.method == Method::OPTIONS {
            HttpResponse::empty(StatusCode::NO_CONTENT)
        } else {
            self.answer_manager(&path, request).await
        };
        allow_origins(&mut response.headers);
        response
    }

    async fn answer_manager(&self, path: &str, request: HttpRequest) -> HttpResponse {
        let query = Query::parse(&request.query);
        let found = self.routes.find_manager(&request.method, path);
        if is_open(path) {
            return self.answer(found, path, query, request).await;
        }
        let caller = match self.manager_caller(&request, &query).await {
            Ok(caller) => caller,
            Err(refused) => return unknown_caller(refused),
        };
        let users = &self.settings.login.users;
        if found != Found::Nothing
            && !self.rights.allow_manager(&caller, users, &request.method, path)
        {
            return Refusal::NoRight.into_response();
        }
        self.answer(found, path, query, request).await
    }

    /// Answers a request on the demo port (5172).
    pub fn handle_demo(&self, request: &HttpRequest) -> HttpResponse {
        demo::answer(request, &self.settings.addresses)
    }

    /// Whether the manager token allows the request. Health checks pass without it, so that a
    /// container's check works (operations.md §2.1).
    fn may_pass(&self, headers: &HeaderMap, found: &Found) -> bool {
        !self.wants_manager_token() || found.is_health() || self.shows_manager_token(headers)
    }

    async fn answer(
        &self,
        found: Found,
        path: &str,
        query: Query,
        request: HttpRequest,
    ) -> HttpResponse {
        match found {
            Found::Nothing => HttpResponse::not_found(),
            Found::NotYet => not_implemented(),
            Found::Elsewhere(place) => {
                let place = if request.query.is_empty() {
                    place
                } else {
                    format!("{place}?{}", request.query)
                };
                let status = if request.method == Method::GET {
                    StatusCode::MOVED_PERMANENTLY
                } else {
                    StatusCode::TEMPORARY_REDIRECT
                };
                HttpResponse::redirect(status, &place)
            }
            Found::Handler(Handler::Page, _) => manager::page(path),
            Found::Handler(handler, params) => {
                let client = client_ip(&request, &self.settings.login.trusted_proxies);
                let call = Call { params, query, client, body: request.body };
                match self.dispatch(handler, &call).await {
                    Ok(response) => response,
                    Err(refusal) => refusal.into_response(),
                }
            }
        }
    }

    async fn dispatch(&self, handler: Handler, call: &Call) -> Answer {
        match handler {
            Handler::Health => health::health(self),
            Handler::Alive => health::alive(),
            Handler::Ready => health::ready(self).await,
            Handler::Route => route::route(self, call),
            Handler::RouteBatch => route::batch(self, call),
            Handler::Connz => connection::connz(self, call).await,
            Handler::Varz => varz::varz(self, call).await,
            Handler::VarzSetting => varz::setting(self),
            Handler::UserToken => user::token(self, call).await,
            Handler::SystemUids => system_accounts::list(self).await,
            Handler::ChangeSystemUids { add } => system_accounts::change(self, call, add).await,
            Handler::CacheSystemUids => system_accounts::change_cache(self, call),
            Handler::DeviceQuit => user::device_quit(self, call).await,
            Handler::OnlineStatus => user::online_status(self, call).await,
            Handler::ConnRemove => connection::end(self, call, false).await,
            Handler::ConnKick => connection::end(self, call, true).await,
            Handler::Channel => channel::create(self, call).await,
            Handler::ChannelInfo => channel::info(self, call).await,
            Handler::ChannelDelete => channel::delete(self, call).await,
            Handler::SubscriberAdd => list::subscriber_add(self, call).await,
            Handler::SubscriberRemove => list::subscriber_remove(self, call).await,
            Handler::SubscriberRemoveAll => list::subscriber_remove_all(self, call).await,
            Handler::Blacklist(change) => list::blacklist(self, call, change).await,
            Handler::Whitelist(change) => list::whitelist(self, call, change).await,
            Handler::ReadWhitelist => list::read_whitelist(self, call).await,
            Handler::Send => message::send(self, call).await,
            Handler::SendBatch => message::send_batch(self, call).await,
            Handler::CommandSync => command_sync::sync(self, call).await,
            Handler::SetRecipients => list::set_recipients(self, call).await,
            Handler::Tag => tag::tag(self, call).await,
            Handler::SyncMessages => sync_messages::sync_messages(self, call).await,
            Handler::CommandAck => command_sync::ack(self, call).await,
            Handler::Messages => lookup::messages(self, call).await,
            Handler::Message => lookup::message(self, call).await,
            Handler::MessageByNumber => lookup::by_client_msg_no(self, call).await,
            Handler::MessageSync => history::sync(self, call).await,
            Handler::Event => stream::event(self, call).await,
            Handler::EventSync => stream::event_sync(self, call).await,
            Handler::MaxMessageSeq => history::max_message_seq(self, call).await,
            Handler::LastMessage => history::last_message(self, call).await,
            Handler::ClearUnread => conversation::clear_unread(self, call).await,
            Handler::SetUnread => conversation::set_unread(self, call).await,
            Handler::DeleteConversation => conversation::delete(self, call).await,
            Handler::ConversationSync => conversation::sync(self, call).await,
            Handler::ConversationChannels => conversation::channels(self, call).await,
            Handler::SyncByChannels => conversation::sync_by_channels(self, call).await,
            Handler::Cluster(route) => cluster::answer(self, call, route).await,
            Handler::Data(route) => data::answer(self, call, route).await,
            Handler::Login => manager::login(self, call).await,
            Handler::Metrics => Ok(metrics::metrics(self).await),
            // What Prometheus has kept; without one there is nothing (operations.md §2.5.6).
            Handler::Series => Ok(HttpResponse::json(StatusCode::OK, "[]".into())),
            Handler::Page => Ok(manager::page("/web/")),
            Handler::MigrateResult => migrate::result(),
            Handler::Import(route) => migrate::answer(self, call, route).await,
            Handler::Docs(page) => docs::answer(self, page),
            Handler::Plugins => plugin::plugins(),
            Handler::PluginCall => Ok(plugin::call()),
            Handler::PluginBindings => plugin::bindings(self, call).await,
            Handler::PluginBind => plugin::bind(self, call).await,
            Handler::PluginUnbind => plugin::unbind(self, call).await,
            Handler::PluginUninstall => plugin::uninstall(self, call).await,
            Handler::PluginConfigure => plugin::configure(self, call).await,
            Handler::Tags => tag::tags(),
            Handler::TagRemove => tag::remove(self, call).await,
        }
    }
}

/// A known v2 path that this version does not serve.
fn not_implemented() -> HttpResponse {
    HttpResponse::json(
        StatusCode::NOT_IMPLEMENTED,
        bytes::Bytes::from_static(br#"{"msg":"not implemented yet","status":501}"#),
    )
}

/// A path that is no path.
fn bad_request() -> HttpResponse {
    HttpResponse::text(
        StatusCode::BAD_REQUEST,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        bytes::Bytes::from_static(b"400 Bad Request"),
    )
}

/// What the manager port answers to who is not known (http-api.md §18).
fn unknown_caller(refused: Refused) -> HttpResponse {
    #[derive(Serialize)]
    struct Body {
        error: String,
    }

    HttpResponse::json(StatusCode::UNAUTHORIZED, to_json(&Body { error: refused.to_string() }))
}

/// The headers that let a browser's page of any origin call the API.
fn allow_origins(headers: &mut HeaderMap) {
    const ALLOWED: [(HeaderName, HeaderValue); 4] = [
        (http::header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        (
            http::header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, \
                 token, accept, origin, Cache-Control, X-Requested-With, appid, noncestr, sign, \
                 timestamp",
            ),
        ),
        (
            http::header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, OPTIONS, GET, PUT,DELETE,PATCH"),
        ),
    ];
    headers.extend(ALLOWED);
}

#[cfg(test)]
mod tests;
