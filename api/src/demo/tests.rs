#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};

use super::*;

fn addresses() -> Addresses {
    Addresses {
        ws: "ws://gw:15200".into(),
        api_url: "http://10.0.0.1:5001".into(),
        ..Addresses::default()
    }
}

fn request(method: Method, path_and_query: &str) -> HttpRequest {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("gw:15172"));
    HttpRequest {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Bytes::new(),
        peer: (Ipv4Addr::LOCALHOST, 1).into(),
    }
}

fn get(path_and_query: &str) -> HttpResponse {
    answer(&request(Method::GET, path_and_query), &addresses())
}

fn location(response: &HttpResponse) -> (u16, &str) {
    (response.status.as_u16(), response.headers[LOCATION].to_str().unwrap())
}

fn reached(query: &str) -> String {
    let policy = get(&format!("/chatdemo/?{query}")).headers[CONTENT_SECURITY_POLICY].clone();
    let policy = policy.to_str().unwrap().to_owned();
    let (_, rest) = policy.split_once("connect-src ").unwrap();
    rest.split_once(';').unwrap().0.to_owned()
}

#[test]
fn every_way_leads_to_the_page_by_relative_redirects() {
    assert_eq!(location(&get("/")), (302, "/chatdemo?apiurl=http://10.0.0.1:5001"));
    assert_eq!(location(&get("/login")), (302, "/chatdemo/?apiurl=http://10.0.0.1:5001"));
    assert_eq!(location(&get("/chatdemo")), (301, "/chatdemo/"));
    let kept = "/chatdemo?apiurl=http://GW:15001&x=%20";
    assert_eq!(location(&get(kept)), (301, "/chatdemo/?apiurl=http://GW:15001&x=%20"));
    for path in ["/chatdemo/", "/chatdemo/none/such", "/chatdemo/index.html", "/chatdemo/?apiurl=x"]
    {
        let page = get(path);
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert_eq!(page.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(page.body.starts_with(b"<!doctype html>"), "{path}");
    }
}

#[test]
fn nothing_else_is_there() {
    for path in ["/favicon.ico", "/health", "/route", "/web/", "/chatdemox", "/%zz", "//chatdemo/"]
    {
        assert_eq!(get(path), {
            let mut expected = HttpResponse::not_found();
            expected.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            expected
        });
    }
    let post = answer(&request(Method::POST, "/chatdemo/"), &addresses());
    assert_eq!(post.status, StatusCode::NOT_FOUND);
}

#[test]
fn each_file_has_its_type_and_is_sent_once() {
    for file in FILES {
        let path = format!("/chatdemo/{}", file.name);
        let first = get(&path);
        assert_eq!(first.headers[CONTENT_TYPE], file.content_type);
        assert!(!first.body.is_empty());
        let mut again = request(Method::GET, &path);
        again.headers.insert(IF_NONE_MATCH, first.headers[ETAG].clone());
        assert_eq!(answer(&again, &addresses()).status, StatusCode::NOT_MODIFIED);
    }
}

#[test]
fn the_page_reaches_the_api_of_its_address_and_the_clients_port_and_nobody_else() {
    let own = "ws://gw:15200";
    assert_eq!(
        reached("apiurl=http://gw.example:15001/x"),
        format!("'self' http://gw.example:15001 ws://gw.example:* wss://gw.example:* {own}")
    );
    assert_eq!(
        reached(""),
        format!("'self' http://10.0.0.1:5001 ws://10.0.0.1:* wss://10.0.0.1:* {own}")
    );
    for bad in [
        "apiurl=http://a%3bscript-src%20*",
        "apiurl=http://a%20b",
        "apiurl=http://*",
        "apiurl=http://a:*",
        "apiurl=http://a:",
        "apiurl=javascript://a",
        "apiurl=ws://a",
        "apiurl=http://user@a",
        "apiurl=http://a%0d%0ax",
        "apiurl=x",
    ] {
        assert_eq!(reached(bad), format!("'self' {own}"), "{bad}");
    }
}

#[test]
fn a_machine_without_an_address_is_known_by_the_browsers_name_for_it() {
    let nowhere = Addresses { api_url: "http://:5001".into(), ..Addresses::default() };
    let told = |host: &'static str| {
        let mut request = request(Method::GET, "/login");
        request.headers.insert(HOST, HeaderValue::from_static(host));
        answer(&request, &nowhere).headers[LOCATION].to_str().unwrap().to_owned()
    };
    assert_eq!(told("gw:5172"), "/chatdemo/?apiurl=http://gw:5001");
    assert_eq!(told("gw"), "/chatdemo/?apiurl=http://gw:5001");
    assert_eq!(told("a b;"), "/chatdemo/?apiurl=http://127.0.0.1:5001");
}
