//! The chat demo of port 5172 (operations.md §5): a page of `api/web/demo`, and the ways to it. The page
//! speaks with the HTTP API and with the client ports like any other client.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY},
};

use crate::{
    http::{HttpRequest, HttpResponse},
    query::{Query, decode_path},
    settings::Addresses,
    static_file::StaticFile,
};

/// Where the page is.
const PLACE: &str = "/chatdemo/";

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        StaticFile {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../web/demo/dist/", $name)),
        }
    };
}

/// Built by `npm run build` in `api/web/demo` and committed, so that nobody needs Node to build a node.
const PAGE: StaticFile = file!("index.html", "text/html; charset=utf-8");
const FILES: [StaticFile; 5] = [
    PAGE,
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("app.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("licences.txt", "text/plain; charset=utf-8"),
];

/// Answers a request on the demo port. `addresses`: where clients find this node.
pub(crate) fn answer(request: &HttpRequest, addresses: &Addresses) -> HttpResponse {
    let mut response = match request.method {
        Method::OPTIONS => HttpResponse::empty(StatusCode::NO_CONTENT),
        Method::GET | Method::HEAD => page(request, addresses),
        _ => HttpResponse::not_found(),
    };
    response.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn page(request: &HttpRequest, addresses: &Addresses) -> HttpResponse {
    let Ok(path) = decode_path(&request.path) else {
        return HttpResponse::not_found();
    };
    match path.as_ref() {
        "/" => with_api("/chatdemo", request, addresses),
        "/login" => with_api(PLACE, request, addresses),
        "/chatdemo" => {
            // Relative, because a gateway in front has another name (operations.md §5.1).
            let query = &request.query;
            let mark = if query.is_empty() { "" } else { "?" };
            let place = format!("{PLACE}{mark}{query}");
            HttpResponse::redirect(StatusCode::MOVED_PERMANENTLY, &place)
        }
        path => match path.strip_prefix(PLACE) {
            Some(name) => file(name, request, addresses),
            None => HttpResponse::not_found(),
        },
    }
}

/// A redirect that names the API.
fn with_api(place: &str, request: &HttpRequest, addresses: &Addresses) -> HttpResponse {
    let api = with_host(&addresses.api_url, &request.headers);
    HttpResponse::redirect(StatusCode::FOUND, &format!("{place}?apiurl={api}"))
}

/// A file of the page; whatever else is asked for is the page itself.
fn file(name: &str, request: &HttpRequest, addresses: &Addresses) -> HttpResponse {
    let file = FILES.iter().find(|file| file.name == name).unwrap_or(&PAGE);
    let mut response = file.answer(&request.headers);
    let policy = policy(&Query::parse(&request.query), &request.headers, addresses);
    let headers: [(HeaderName, HeaderValue); 2] = [
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    response.headers.extend(headers);
    response
}

/// Lets the page reach its own files, the API that its address names (this node's without), and
/// WebSockets there or where /route of this node leads; nothing else.
fn policy(query: &Query, headers: &HeaderMap, addresses: &Addresses) -> HeaderValue {
    let given = query.text("apiurl");
    let api = if given.is_empty() { &addresses.api_url } else { given };
    let api = with_host(api, headers);
    let mut reached = vec!["'self'".to_owned()];
    if let Some((scheme, host, port)) = origin(&api).filter(|(scheme, ..)| is_http(scheme)) {
        reached.push(format!("{scheme}://{host}{port}"));
        reached.push(format!("ws://{host}:*"));
        reached.push(format!("wss://{host}:*"));
    }
    for address in [&addresses.ws, &addresses.wss] {
        if let Some((scheme, host, port)) = origin(address) {
            reached.push(format!("{scheme}://{host}{port}"));
        }
    }
    let text = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        reached.join(" ")
    );
    HeaderValue::try_from(text)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'self'; base-uri 'none'"))
}

fn is_http(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

/// Scheme, host and `:port` of an address, if it is made of what such things are made of: it goes into a
/// header, and a blank or a `;` there would begin something else.
fn origin(address: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.find(':') {
        Some(colon) => authority.split_at_checked(colon)?,
        None => (authority, ""),
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    let is_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let is_good = matches!(scheme, "http" | "https" | "ws" | "wss")
        && !host.is_empty()
        && is_name(host)
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.is_empty() == port.is_empty();
    is_good.then_some((scheme, host, port))
}

/// An address whose host is not known, because this machine has no address of its own: it is that
/// under which the browser came.
fn with_host(address: &str, headers: &HeaderMap) -> String {
    let Some((scheme, port)) = address.split_once("://:") else {
        return address.to_owned();
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let address = format!("{scheme}://{host}:{port}");
    if origin(&address).is_some() { address } else { format!("{scheme}://127.0.0.1:{port}") }
}

#[cfg(test)]
mod tests;
