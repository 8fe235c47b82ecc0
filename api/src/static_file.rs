//! Files that the binary carries: pages for browsers, with what lets browsers keep them.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS},
};

use crate::http::HttpResponse;

/// A file, as it was built in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StaticFile {
    /// Its name below the path that it is served at.
    pub(crate) name: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) bytes: &'static [u8],
}

impl StaticFile {
    /// The file, or 304 when the browser has just this one. Browsers ask each time: names stay when
    /// contents change, so that the nodes of a cluster that is being upgraded serve the same ones.
    pub(crate) fn answer(&self, request: &HeaderMap) -> HttpResponse {
        let tag = self.tag();
        let known = request.get_all(IF_NONE_MATCH).iter().any(|tags| is_among(tags, &tag));
        let mut response = if known {
            HttpResponse::empty(StatusCode::NOT_MODIFIED)
        } else {
            let content_type = HeaderValue::from_static(self.content_type);
            HttpResponse::text(StatusCode::OK, content_type, Bytes::from_static(self.bytes))
        };
        if let Ok(tag) = HeaderValue::try_from(tag) {
            response.headers.insert(ETAG, tag);
        }
        let fixed: [(HeaderName, &'static str); 2] =
            [(CACHE_CONTROL, "no-cache"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        let fixed = fixed.map(|(name, value)| (name, HeaderValue::from_static(value)));
        response.headers.extend(fixed);
        response
    }

    /// Size and FNV-1a of the contents: the same on every node that runs the same build.
    fn tag(&self) -> String {
        let hash = self.bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("\"{:x}-{hash:016x}\"", self.bytes.len())
    }
}

/// Whether a header If-None-Match names a tag; weak ones count (RFC 9110 §13.1.2).
fn is_among(tags: &HeaderValue, tag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use http::header::CONTENT_TYPE;

    use super::*;

    const FILE: StaticFile =
        StaticFile { name: "a.js", content_type: "text/javascript", bytes: b"hello" };

    fn asked(tags: &str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(tags).unwrap());
        FILE.answer(&headers).status
    }

    #[test]
    fn a_browser_that_has_it_gets_304() {
        let first = FILE.answer(&HeaderMap::new());
        assert_eq!((first.status, &first.body[..]), (StatusCode::OK, &b"hello"[..]));
        assert_eq!(first.headers[CONTENT_TYPE], "text/javascript");
        assert_eq!(first.headers[CACHE_CONTROL], "no-cache");
        let tag = first.headers[ETAG].to_str().unwrap().to_owned();
        for tags in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            assert_eq!(asked(&tags), StatusCode::NOT_MODIFIED, "{tags}");
        }
        assert_eq!(asked("\"x\""), StatusCode::OK);
        assert_ne!(tag, StaticFile { bytes: b"hellp", ..FILE }.tag());
    }
}
