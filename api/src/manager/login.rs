//! POST /manager/login on both ports (http-api.md §13.1).

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use jindou_core::networks::Networks;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    attempts::{Attempts, Limited},
    jwt::{self, Claims},
    users::{ManagerUser, Right},
};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    http::HttpResponse,
    json::{body, read, to_json},
    node::Node,
    secret::{Secret, same},
};

/// Who may log in, and what a log-in gives.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// `auth.users`.
    pub users: Vec<ManagerUser>,
    /// `jwt.secret`; `None`: a key that the cluster draws and keeps ([`Node::login_key`]).
    pub key: Option<Secret>,
    /// `jwt.expire`, seconds.
    pub expire_s: i64,
    /// `jwt.issuer`.
    pub issuer: String,
    /// Whose word about where a call comes from is believed.
    pub trusted_proxies: Networks,
    /// What was guessed wrong, shared by all shards.
    pub attempts: Arc<Attempts>,
}

impl Default for LoginSettings {
    /// `guest`, who reads.
    fn default() -> Self {
        let reads = Right { resource: "*".to_owned(), actions: "r".to_owned() };
        Self {
            users: vec![ManagerUser {
                name: "guest".to_owned(),
                password: Secret::new("guest"),
                rights: vec![reads],
            }],
            key: None,
            expire_s: 30 * 86_400,
            issuer: "wukongim".to_owned(),
            trusted_proxies: Networks::default(),
            attempts: Arc::default(),
        }
    }
}

body! {
    /// POST /manager/login.
    LoginBody { username: String, password: String, }
}

#[derive(Serialize)]
struct LoginJson {
    exp: i64,
    permissions: String,
    token: String,
    username: String,
}

/// POST /manager/login. Wrong guesses of an address are limited; what it costs to answer does not
/// tell whether there is such a user, or how much of the password was right.
pub(crate) async fn login<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: LoginBody = read(&call.body)?;
    if body.password.is_empty() {
        return Err(Refusal::Rule("密码不能为空"));
    }
    if body.username.is_empty() {
        return Err(Refusal::Rule("用户名不能为空"));
    }
    let settings = &api.settings.login;
    let now_ms = api.node.now().unix_ms;
    if let Err(limited) = settings.attempts.check(call.client, now_ms) {
        return Ok(too_many(limited));
    }
    let Some(user) = find(&settings.users, &body) else {
        settings.attempts.failed(call.client, now_ms);
        return Err(Refusal::Rule("用户名或密码错误"));
    };
    let key = api.login_key().await.map_err(|_| Refusal::Rule("没有配置jwt.secret"))?;
    let now_s = now_ms.div_euclid(1000);
    let exp = now_s.saturating_add(settings.expire_s);
    let (iss, username) = (settings.issuer.clone(), user.name.clone());
    let claims = Claims { iss, exp, iat: now_s, username: username.clone() };
    let token = jwt::sign(&claims, key.reveal()).ok_or(Refusal::Confused)?;
    Ok(value(&LoginJson { exp, permissions: user.permissions(), token, username }))
}

/// The user whose name and password these are. Digests are compared, of every user: their number
/// is all that the duration depends on.
fn find<'a>(users: &'a [ManagerUser], body: &LoginBody) -> Option<&'a ManagerUser> {
    let digest = |text: &[u8]| Sha256::digest(text);
    let (name, password) = (digest(body.username.as_bytes()), digest(body.password.as_bytes()));
    let mut found = None;
    for user in users {
        let is_name = same(&name, &digest(user.name.as_bytes()));
        let is_password = same(&password, &digest(user.password.reveal()));
        if is_name & is_password {
            found = Some(user);
        }
    }
    found
}

fn too_many(Limited { wait_s }: Limited) -> HttpResponse {
    #[derive(Serialize)]
    struct Body {
        msg: &'static str,
        status: u16,
    }

    let status = StatusCode::TOO_MANY_REQUESTS;
    let body = Body { msg: "登录失败次数过多，请稍后再试", status: status.as_u16() };
    let mut response = HttpResponse::json(status, to_json(&body));
    response.headers.insert(RETRY_AFTER, HeaderValue::from(wait_s));
    response
}

impl<N: Node> Api<N> {
    /// The key that signs tokens of log-ins: the configured one, else the cluster's.
    pub(crate) async fn login_key(&self) -> Result<Secret, String> {
        match &self.settings.login.key {
            Some(key) => Ok(key.clone()),
            None => self.node.login_key().await,
        }
    }
}
