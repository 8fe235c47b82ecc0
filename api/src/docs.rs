//! What the API port says of itself: /docs (http-api.md §16). Shut in mode release.

use std::collections::BTreeMap;

use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::{
    answer::{Answer, value},
    api::Api,
    http::HttpResponse,
    json::to_json,
    node::Node,
    routes,
};

/// A page of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocsPage {
    Index,
    Folder,
    OpenApi,
    Health,
}

#[derive(Serialize)]
struct ShutJson {
    error: &'static str,
    message: &'static str,
    mode: &'static str,
    suggestion: &'static str,
}

#[derive(Serialize)]
struct ShutHealthJson {
    description: &'static str,
    mode: &'static str,
    service: &'static str,
    status: &'static str,
}

#[derive(Serialize)]
struct HealthJson {
    description: &'static str,
    endpoints: BTreeMap<&'static str, &'static str>,
    service: &'static str,
    status: &'static str,
}

/// Answers a page.
pub(crate) fn answer<N: Node>(api: &Api<N>, page: DocsPage) -> Answer {
    Ok(match (page, api.settings.release) {
        (DocsPage::Health, true) => value(&ShutHealthJson {
            description: "the documentation is not served in mode release",
            mode: "release",
            service: "docs",
            status: "disabled",
        }),
        (DocsPage::Health, false) => value(&HealthJson {
            description: "the routes of this API",
            endpoints: BTreeMap::from([("docs", "/docs"), ("openapi", "/docs/openapi.json")]),
            service: "docs",
            status: "ok",
        }),
        (DocsPage::Index | DocsPage::Folder | DocsPage::OpenApi, true) => HttpResponse::json(
            StatusCode::FORBIDDEN,
            to_json(&ShutJson {
                error: "Forbidden",
                message: "the documentation is not served in mode release",
                mode: "release",
                suggestion: "set mode to debug on a node that is not in production",
            }),
        ),
        (DocsPage::Index, false) => index(),
        (DocsPage::Folder, false) => HttpResponse::redirect(StatusCode::MOVED_PERMANENTLY, "/docs"),
        (DocsPage::OpenApi, false) => open_api(&api.settings.version.version),
    })
}

/// The routes as a page.
fn index() -> HttpResponse {
    const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Jindou API</title></head>\n\
         <body><h1>Jindou API</h1>\n<p>The same for programs: <a href=\"/docs/openapi.json\">openapi.json</a></p>\n<ul>\n",
    );
    for (method, path) in routes::served() {
        // Constants of ours: nothing to escape.
        page.push_str("<li><code>");
        page.push_str(&method.to_ascii_uppercase());
        page.push(' ');
        page.push_str(path);
        page.push_str("</code></li>\n");
    }
    page.push_str("</ul></body></html>\n");
    HttpResponse::text(StatusCode::OK, HTML, page)
}

#[derive(Serialize)]
struct OpenApiJson<'a> {
    openapi: &'static str,
    info: InfoJson<'a>,
    paths: BTreeMap<&'static str, BTreeMap<&'static str, OperationJson>>,
}

#[derive(Serialize)]
struct InfoJson<'a> {
    title: &'static str,
    version: &'a str,
}

#[derive(Serialize)]
struct OperationJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<ParameterJson>,
    responses: BTreeMap<&'static str, ResponseJson>,
}

#[derive(Serialize)]
struct ParameterJson {
    name: &'static str,
    #[serde(rename = "in")]
    place: &'static str,
    required: bool,
    schema: SchemaJson,
}

#[derive(Serialize)]
struct SchemaJson {
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct ResponseJson {
    description: &'static str,
}

/// The routes as OpenAPI 3.
fn open_api(version: &str) -> HttpResponse {
    let mut paths: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (method, path) in routes::served() {
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = names
            .map(|name| ParameterJson {
                name,
                place: "path",
                required: true,
                schema: SchemaJson { kind: "string" },
            })
            .collect();
        let responses = BTreeMap::from([
            ("200", ResponseJson { description: "done, or refused with a status in the body" }),
            ("400", ResponseJson { description: "refused; msg says why" }),
        ]);
        paths.entry(path).or_default().insert(method, OperationJson { parameters, responses });
    }
    let info = InfoJson { title: "Jindou", version };
    value(&OpenApiJson { openapi: "3.0.3", info, paths })
}
