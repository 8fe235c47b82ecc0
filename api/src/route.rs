//! Where clients connect: /route and /route/batch (http-api.md §4). Every node answers with its own
//! addresses; any node takes any user.

use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    json::read,
    node::Node,
};

#[derive(Serialize)]
struct Addresses<'a> {
    tcp_addr: &'a str,
    ws_addr: &'a str,
    wss_addr: &'a str,
}

#[derive(Serialize)]
struct Batch<'a> {
    #[serde(flatten)]
    addresses: Addresses<'a>,
    uids: Option<Vec<String>>,
}

fn addresses<'a, N: Node>(api: &'a Api<N>, call: &Call) -> Addresses<'a> {
    let own = &api.settings.addresses;
    if call.query.signed("intranet") == 1 {
        return Addresses { tcp_addr: &own.intranet_tcp, ws_addr: "", wss_addr: "" };
    }
    Addresses { tcp_addr: &own.tcp, ws_addr: &own.ws, wss_addr: &own.wss }
}

/// GET /route.
pub(crate) fn route<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    Ok(value(&addresses(api, call)))
}

/// POST /route/batch: one element, with the uids of the body.
pub(crate) fn batch<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let uids: Option<Vec<String>> =
        read(&call.body).map_err(|_| Refusal::Rule("数据格式有误！"))?;
    api.settings.check_count("uids", uids.as_ref().map_or(0, Vec::len))?;
    Ok(value(&[Batch { addresses: addresses(api, call), uids }]))
}
