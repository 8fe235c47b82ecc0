//! What a side holds, read through its API: pages of rows, lists and histories. Both sides are read
//! by the same code, so that what differs is content.

use jindou_core::channel_info::kind;
use jindou_core::id::person_channel;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::peer::{Fault, Peer, encoded};

/// Rows of one data page.
const ROWS_PER_PAGE: usize = 200;
/// Conversations of one page: v2 counts its way to each page from the start.
const CONVERSATIONS_PER_PAGE: usize = 5000;
/// Messages of one page.
const MESSAGES_PER_PAGE: usize = 200;
/// Who reads histories of channels that are not of two persons. It is nobody's uid.
const READER: &str = "____import";

/// A side: its public API, and where its data pages are.
pub(super) struct Side {
    /// The public API.
    pub(super) api: Peer,
    /// The data pages; `None`: where the API is.
    pub(super) pages: Option<Peer>,
}

/// A row that pages are turned by.
pub(super) trait Dated {
    /// Unix ns.
    fn created_at(&self) -> i64;
}

#[derive(Deserialize)]
pub(super) struct UserRow {
    pub(super) uid: String,
    #[serde(default)]
    created_at: i64,
}

/// What stands for a token where tokens are hidden.
pub(super) const HIDDEN_TOKEN: &str = "******";

#[derive(Clone, Deserialize, Serialize)]
pub(super) struct DeviceRow {
    pub(super) uid: String,
    pub(super) device_flag: u64,
    #[serde(default)]
    pub(super) device_level: u8,
    #[serde(default)]
    pub(super) token: String,
    #[serde(default, skip_serializing)]
    created_at: i64,
}

#[derive(Deserialize)]
pub(super) struct ChannelRow {
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    #[serde(default)]
    pub(super) ban: u8,
    #[serde(default)]
    pub(super) disband: u8,
    #[serde(default)]
    pub(super) last_message_seq: u64,
    #[serde(default)]
    created_at: i64,
}

#[derive(Clone, Deserialize, Serialize)]
pub(super) struct ConversationRow {
    pub(super) uid: String,
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    pub(super) readed_to_msg_seq: u64,
    #[serde(default)]
    pub(super) created_at: i64,
    #[serde(default)]
    pub(super) updated_at: i64,
}

#[derive(Clone, Default, Deserialize, Serialize)]
struct Header {
    #[serde(default)]
    red_dot: u8,
    #[serde(default)]
    sync_once: u8,
}

/// A message as histories show it: what of it is copied and compared.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct MessageRow {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    setting: u8,
    message_id: i64,
    #[serde(default)]
    client_msg_no: String,
    pub(super) message_seq: u64,
    #[serde(default)]
    from_uid: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    expire: u32,
    timestamp: i64,
    #[serde(default)]
    pub(super) payload: Option<String>,
}

impl Dated for UserRow {
    fn created_at(&self) -> i64 {
        self.created_at
    }
}

impl Dated for DeviceRow {
    fn created_at(&self) -> i64 {
        self.created_at
    }
}

impl Dated for ChannelRow {
    fn created_at(&self) -> i64 {
        self.created_at
    }
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    more: u8,
    /// Go writes a list that was never filled as `null`.
    data: Option<Vec<T>>,
    /// What a node of ours could not read.
    #[serde(default)]
    errors: Vec<String>,
}

/// Which list of a channel.
pub(super) const LISTS: [&str; 3] = ["subscribers", "denylist", "allowlist"];

/// Who reads the history of a channel, and under which id. `None`: no reader leads there, for v2
/// makes the stored id of a person channel out of both uids.
pub(super) fn reader_of(id: &str, channel_type: u8) -> Option<(&str, &str)> {
    if channel_type != kind::PERSON {
        return Some((READER, id));
    }
    let (reader, peer) = id.split_once('@')?;
    (person_channel(reader, peer) == id).then_some((reader, peer))
}

impl Side {
    fn pages(&self) -> &Peer {
        self.pages.as_ref().unwrap_or(&self.api)
    }

    /// Every row of a data page, the youngest first.
    fn each<T: Dated + DeserializeOwned>(
        &self,
        path: &str,
        mut f: impl FnMut(T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut offset = 0;
        loop {
            let mut target = format!("{path}?limit={ROWS_PER_PAGE}");
            if offset != 0 {
                target = format!("{target}&offset_created_at={offset}");
            }
            let page: Page<T> = self.pages().get(&target)?;
            if let Some(error) = page.errors.first() {
                return Err(Fault::Bad(format!("GET {target}: {error}")));
            }
            let rows = page.data.unwrap_or_default();
            let last = rows.last().map(Dated::created_at);
            for row in rows {
                f(row)?;
            }
            match last {
                Some(_) if page.more == 0 => return Ok(()),
                None => return Ok(()),
                Some(last) if last > 0 && (offset == 0 || last < offset) => offset = last,
                Some(last) => {
                    let told = format!("GET {target}: the pages do not go on after {last}");
                    return Err(Fault::Bad(told));
                }
            }
        }
    }

    pub(super) fn users(&self, f: impl FnMut(UserRow) -> Result<(), Fault>) -> Result<(), Fault> {
        self.each("/cluster/users", f)
    }

    pub(super) fn devices(
        &self,
        f: impl FnMut(DeviceRow) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.each("/cluster/devices", f)
    }

    /// Channels with flags.
    pub(super) fn channels(
        &self,
        f: impl FnMut(ChannelRow) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.each("/cluster/channels", f)
    }

    /// Channels that messages were ever sent to or read from, node by node.
    pub(super) fn used_channels(
        &self,
        mut f: impl FnMut(ChannelRow) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct Node {
            id: u64,
        }

        let nodes: Page<Node> = self.pages().get("/cluster/nodes")?;
        for node in nodes.data.unwrap_or_default() {
            self.each(&format!("/cluster/nodes/{}/channels", node.id), &mut f)?;
        }
        Ok(())
    }

    /// Every conversation.
    pub(super) fn conversations(
        &self,
        mut f: impl FnMut(Vec<ConversationRow>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for page in 1_u64.. {
            let target = format!(
                "/cluster/conversations?limit={CONVERSATIONS_PER_PAGE}&current_page={page}"
            );
            let page: Page<ConversationRow> = self.pages().get(&target)?;
            let mut rows = page.data.unwrap_or_default();
            if rows.is_empty() {
                break;
            }
            for row in &mut rows {
                row.created_at = row.created_at.max(0);
                row.updated_at = row.updated_at.max(0);
            }
            // A row must not stand without the history that it counts in: commands to come would
            // be taken for read.
            rows.retain(|row| {
                !row.uid.trim().is_empty() && reader_of(&row.channel_id, row.channel_type).is_some()
            });
            f(rows)?;
        }
        Ok(())
    }

    /// Conversations of some users, from a side of ours.
    pub(super) fn conversations_of(&self, uids: &[String]) -> Result<Vec<ConversationRow>, Fault> {
        self.api.post("/migrate/conversations/read", &json!({ "uids": uids }))
    }

    pub(super) fn list(
        &self,
        id: &str,
        channel_type: u8,
        list: &str,
    ) -> Result<Vec<String>, Fault> {
        let path = format!("/cluster/channels/{}/{channel_type}/{list}", encoded(id));
        let uids: Option<Vec<String>> = self.pages().get(&path)?;
        let mut uids = uids.unwrap_or_default();
        uids.retain(|uid| !uid.trim().is_empty());
        Ok(uids)
    }

    pub(super) fn systems(&self) -> Result<Vec<String>, Fault> {
        let uids: Option<Vec<String>> = self.api.get("/user/systemuids")?;
        Ok(uids.unwrap_or_default())
    }

    /// The last seq of a channel, from a side of ours.
    pub(super) fn last_seq(&self, id: &str, channel_type: u8) -> Result<u64, Fault> {
        #[derive(Deserialize)]
        struct Last {
            message_seq: u64,
        }

        let id = encoded(id);
        let path = format!("/channel/max_message_seq?channel_id={id}&channel_type={channel_type}");
        let last: Last = self.api.get(&path)?;
        Ok(last.message_seq)
    }

    /// The messages of a channel from a seq on, in pages. A page that is too large to be read, or
    /// damaged, is read in smaller ones.
    pub(super) fn messages(
        &self,
        (id, channel_type): (&str, u8),
        mut next: u64,
        mut f: impl FnMut(Vec<MessageRow>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct History {
            messages: Option<Vec<MessageRow>>,
        }

        let Some((reader, shown)) = reader_of(id, channel_type) else {
            return Ok(());
        };
        let mut limit = MESSAGES_PER_PAGE;
        loop {
            let body = json!({
                "login_uid": reader, "channel_id": shown, "channel_type": channel_type,
                "start_message_seq": next, "end_message_seq": 0, "limit": limit, "pull_mode": 1,
                "event_summary_mode": "basic",
            });
            let page: History = match self.api.post("/channel/messagesync", &body) {
                Ok(page) => page,
                Err(Fault::Bad(_)) if limit > 1 => {
                    limit /= 8;
                    limit = limit.max(1);
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            let mut messages = page.messages.unwrap_or_default();
            if messages.is_empty() {
                return Ok(());
            }
            for message in &mut messages {
                if message.message_seq != next {
                    return Err(Fault::Bad(format!(
                        "channel {id:?} of type {channel_type}: message {next} is missing, the \
                         history goes on with {}",
                        message.message_seq
                    )));
                }
                next += 1;
                // Both spellings are seen for messages of the system.
                if message.from_uid == "____system" {
                    message.from_uid.clear();
                }
            }
            f(messages)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn person_channels_are_read_by_one_of_the_two() {
        let stored = person_channel("ann", "bob");
        let (reader, peer) = reader_of(&stored, 1).unwrap_or_default();
        assert_eq!(person_channel(reader, peer), stored);
        assert_eq!(reader_of("g", 2), Some((READER, "g")));
        assert_eq!(reader_of("ann", 1), None, "a personal channel has no messages");
        let mut turned: Vec<&str> = stored.split('@').collect();
        turned.reverse();
        assert_eq!(reader_of(&turned.join("@"), 1), None);
    }
}
