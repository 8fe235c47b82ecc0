//! What /web of the manager port shows: one page for every path below it, so that links into a
//! single-page application work (operations.md §4.1).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS},
};

use crate::http::HttpResponse;

const INDEX: &[u8] = include_bytes!("pages/index.html");
const LOGO: &[u8] = include_bytes!("pages/logo.png");

/// GET /web, /web/ and everything below, by decoded path.
pub(crate) fn page(path: &str) -> HttpResponse {
    match path {
        "/web" | "/web/index.html" => {
            HttpResponse::redirect(StatusCode::MOVED_PERMANENTLY, "/web/")
        }
        "/web/logo.png" => file("image/png", LOGO),
        _ => file("text/html; charset=utf-8", INDEX),
    }
}

fn file(content_type: &'static str, bytes: &'static [u8]) -> HttpResponse {
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        // Nodes behind one address may have different versions.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let content_type = HeaderValue::from_static(content_type);
    let mut response = HttpResponse::text(StatusCode::OK, content_type, Bytes::from_static(bytes));
    response.headers.extend(HEADERS);
    response
}
