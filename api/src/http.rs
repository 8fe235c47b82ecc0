//! A request and its answer as plain data: whoever speaks HTTP fills and empties these.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};

/// One HTTP request, its body read completely. The HTTP layer bounds the sizes of head and body.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The path as on the request line, still percent-encoded, without the query.
    pub path: String,
    /// What follows the `?`, still encoded; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty when there is none.
    pub body: Bytes,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

/// One HTTP response. `content-length` and the connection headers are the HTTP layer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What v2 writes for JSON (http-api.md §1.4).
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

impl HttpResponse {
    /// An answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// An answer with a JSON body.
    pub(crate) fn json(status: StatusCode, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        Self { status, headers, body }
    }

    /// An answer with a text of a content type.
    pub(crate) fn text(
        status: StatusCode,
        content_type: HeaderValue,
        body: impl Into<Bytes>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        Self { status, headers, body: body.into() }
    }

    /// What v2 answers to unknown paths and wrong methods (http-api.md §1.1).
    pub(crate) fn not_found() -> Self {
        Self::text(
            StatusCode::NOT_FOUND,
            HeaderValue::from_static("text/plain"),
            Bytes::from_static(b"404 page not found"),
        )
    }

    /// A redirect to a path of this server.
    pub(crate) fn redirect(status: StatusCode, location: &str) -> Self {
        let mut response = Self::empty(status);
        if let Ok(value) = HeaderValue::try_from(location) {
            response.headers.insert(LOCATION, value);
        }
        response
    }
}
