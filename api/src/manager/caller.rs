//! Who calls: told by the manager token, by a token of a log-in, or by where the call comes from.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use jindou_core::networks::Networks;

use super::{
    jwt::{self, JwtError},
    users::ManagerUser,
};
use crate::{api::Api, http::HttpRequest, node::Node, query::Query};

/// The header that carries `managerToken`.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// What a gateway adds when it speaks for others.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Has shown the manager token: may do everything.
    Manager,
    /// Has shown a token of a log-in of this user, who may be configured no more.
    User(String),
    /// Sits on this machine, and no manager token is set: may do everything.
    Local,
    /// Nobody known.
    Anyone,
}

/// Why nobody is let in: what the manager port says (http-api.md §18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Nothing was shown.
    #[error("Authorization header is required")]
    Missing,
    /// What was shown is no good.
    #[error("Invalid token: {0}")]
    Invalid(JwtError),
    /// This node can't say: it has not got the key yet.
    #[error("the key of log-ins is not known yet")]
    NoKey,
}

/// The token of a log-in that a request shows, in a header or else in the query.
fn shown<'a>(headers: &'a HeaderMap, query: &'a Query) -> &'a str {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let text = header.filter(|text| !text.is_empty()).unwrap_or(query.text("Authorization"));
    text.strip_prefix("Bearer ").unwrap_or(text).trim()
}

impl<N: Node> Api<N> {
    /// Whether `managerToken` is set.
    pub(crate) fn wants_manager_token(&self) -> bool {
        !self.settings.manager_token.trim().is_empty()
    }

    /// Whether the request shows the manager token that is set.
    pub(crate) fn shows_manager_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(TOKEN).map_or(&b""[..], HeaderValue::as_bytes);
        let wanted = self.settings.manager_token.as_bytes();
        self.wants_manager_token() && crate::secret::same(given, wanted)
    }

    /// Who calls the API port. What was shown and is no good makes nobody of the caller, and is no
    /// reason to refuse (http-api.md §1.2).
    pub(crate) async fn caller(&self, request: &HttpRequest, query: &Query) -> Caller {
        if self.shows_manager_token(&request.headers) {
            return Caller::Manager;
        }
        match self.user(request, query).await {
            Ok(name) => Caller::User(name),
            Err(_) if self.is_local(request) => Caller::Local,
            Err(_) => Caller::Anyone,
        }
    }

    /// Who calls the manager port; nobody gets in unknown.
    pub(crate) async fn manager_caller(
        &self,
        request: &HttpRequest,
        query: &Query,
    ) -> Result<Caller, Refused> {
        if self.shows_manager_token(&request.headers) {
            return Ok(Caller::Manager);
        }
        self.user(request, query).await.map(Caller::User)
    }

    /// The user whose token is shown. Whether there is such a user still, rights tell.
    async fn user(&self, request: &HttpRequest, query: &Query) -> Result<String, Refused> {
        let token = shown(&request.headers, query);
        if token.is_empty() {
            return Err(Refused::Missing);
        }
        let key = self.login_key().await.map_err(|_| Refused::NoKey)?;
        let now_s = self.node.now().unix_ms.div_euclid(1000);
        let claims = jwt::verify(token, key.reveal(), now_s).map_err(Refused::Invalid)?;
        Ok(claims.username)
    }

    /// Whether a program on this machine calls; not a page in its browser, and not a gateway there
    /// that speaks for others. With a manager token set, that is what counts.
    fn is_local(&self, request: &HttpRequest) -> bool {
        const FOR_OTHERS: [&str; 4] = ["origin", "forwarded", "x-forwarded-for", "x-real-ip"];

        !self.wants_manager_token()
            && request.peer.ip().to_canonical().is_loopback()
            && !FOR_OTHERS.iter().any(|name| request.headers.contains_key(*name))
    }
}

/// Where a request comes from: the other end of the connection, or whom a gateway names that is
/// believed (`trustedProxies`).
pub(crate) fn client_ip(request: &HttpRequest, trusted: &Networks) -> IpAddr {
    let peer = request.peer.ip().to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let values = request.headers.get_all(FORWARDED_FOR).iter();
    let hops: Vec<IpAddr> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|hop| hop.trim().parse().ok())
        .map(|hop: IpAddr| hop.to_canonical())
        .collect();
    // Each gateway adds whom it heard: from the end, the first that is no gateway of ours.
    if let Some(client) = hops.iter().rev().find(|hop| !trusted.contains(**hop)) {
        return *client;
    }
    let real = request.headers.get(REAL_IP).and_then(|value| value.to_str().ok());
    let real = real.and_then(|text| text.trim().parse().ok());
    hops.first().copied().or(real).unwrap_or(peer)
}

impl Caller {
    /// Whether a right to write on `resource` is the caller's. `is_open`: whoever is not known may
    /// do it too, as in v2.
    pub(super) fn may_write(&self, users: &[ManagerUser], resource: &str, is_open: bool) -> bool {
        match self {
            Self::Manager | Self::Local => true,
            Self::User(name) => {
                users.iter().any(|user| user.name == *name && user.may(resource, 'w'))
            }
            Self::Anyone => is_open,
        }
    }
}
