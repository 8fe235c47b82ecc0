//! Tags (http-api.md §11): v2's cache of who gets the messages of a channel. Here recipients are read
//! from the channel each time, so there is nothing to show, and nothing to forget.

use crate::{
    answer::{Answer, ok, value},
    api::{Api, Call},
    json::{body, read},
    node::Node,
    plugin::check_node,
};

body! {
    /// POST /tag/remove.
    RemoveBody { tag_key: String, channel_id: String, channel_type: u8, node_id: u64, }
}

/// GET /tags.
pub(crate) fn tags() -> Answer {
    Ok(value::<[(); 0]>(&[]))
}

/// POST /tag/remove: `OK` always, but for a node that is no member.
pub(crate) async fn remove<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: RemoveBody = read(&call.body)?;
    check_node(api, body.node_id).await?;
    Ok(ok())
}
