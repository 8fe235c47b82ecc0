//! Copying, kind by kind.

use jindou_core::channel_info::kind;
use serde::de::IgnoredAny;
use serde_json::json;

use super::peer::Fault;
use super::side::{ConversationRow, DeviceRow, HIDDEN_TOKEN, LISTS, MessageRow, Side, reader_of};
use super::{Run, Seen};

/// Rows of one request.
const ROWS_PER_REQUEST: usize = 500;
/// Uids of one request.
const UIDS_PER_REQUEST: usize = 1000;
/// About how many bytes of content one request has.
const CONTENT_PER_REQUEST: usize = 1 << 20;

impl Run {
    /// Copies everything, and tells how many histories no reader leads to.
    pub(super) fn copy(&mut self) -> Result<u64, Fault> {
        self.copy_systems()?;
        self.copy_devices()?;
        self.copy_channels()?;
        let unreachable = self.copy_histories()?;
        self.copy_conversations()?;
        Ok(unreachable)
    }

    fn copy_systems(&mut self) -> Result<(), Fault> {
        self.progress.stage("system accounts", None);
        let uids = self.source.systems()?;
        for some in uids.chunks(UIDS_PER_REQUEST) {
            let body = json!({ "uids": some });
            let _: IgnoredAny = self.target.api.post("/user/systemuids_add", &body)?;
            self.progress.add(some.len() as u64);
        }
        Ok(())
    }

    fn copy_devices(&mut self) -> Result<(), Fault> {
        self.progress.stage("devices", None);
        let Self { source, target, progress, .. } = self;
        let (mut waiting, mut hidden) = (Vec::new(), 0_u64);
        source.devices(|device| {
            if device.token == HIDDEN_TOKEN {
                hidden += 1;
                return Ok(());
            }
            waiting.push(device);
            if waiting.len() >= ROWS_PER_REQUEST {
                progress.add(waiting.len() as u64);
                write_devices(target, &std::mem::take(&mut waiting))?;
            }
            Ok(())
        })?;
        progress.add(waiting.len() as u64);
        write_devices(target, &waiting)?;
        if hidden > 0 {
            let what = format!("the source hides the tokens of {hidden} devices: not copied");
            self.problems.push(what);
        }
        Ok(())
    }

    /// Flags, and the lists of channels with flags, of channels in use, and of users.
    fn copy_channels(&mut self) -> Result<(), Fault> {
        self.progress.stage("channels", None);
        let mut problems = Vec::new();
        let Self { source, target, progress, .. } = self;
        source.channels(|channel| {
            let body = json!({
                "channel_id": channel.channel_id, "channel_type": channel.channel_type,
                "ban": channel.ban, "disband": channel.disband,
            });
            match target.api.post::<IgnoredAny>("/channel/info", &body) {
                Ok(_) => progress.add(1),
                Err(Fault::Bad(what)) => problems.push(what),
                Err(fault) => return Err(fault),
            }
            Ok(())
        })?;
        for problem in problems {
            self.note(Err(Fault::Bad(problem)))?;
        }
        self.progress.stage("lists", None);
        self.each_list(|run, id, channel_type, list| {
            let uids = run.source.list(id, channel_type, list)?;
            for some in uids.chunks(UIDS_PER_REQUEST) {
                let body = json!({
                    "channel_id": id, "channel_type": channel_type, "list": list, "uids": some,
                });
                let _: IgnoredAny = run.target.api.post("/migrate/list", &body)?;
                run.progress.add(some.len() as u64);
            }
            Ok(())
        })
    }

    /// Does something for each list of each channel of the source that may have one.
    pub(super) fn each_list(
        &mut self,
        mut f: impl FnMut(&mut Self, &str, u8, &'static str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut seen = Seen::default();
        self.each_channel(|run, id, channel_type| {
            // A slash in an id ends it, for the routes of lists of both sides.
            let has_lists = !(channel_type == kind::PERSON && id.contains('@') || id.contains('/'));
            if has_lists && seen.is_new(id, channel_type) {
                for list in LISTS {
                    let done = f(run, id, channel_type, list);
                    run.note(done)?;
                }
            }
            Ok(())
        })
    }

    /// The channels of the source: with flags, in use, and each user's own. Some come twice. Rows
    /// are gathered page by page, for whoever is called may write.
    fn each_channel(
        &mut self,
        mut f: impl FnMut(&mut Self, &str, u8) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut found = Vec::new();
        self.source.channels(|c| keep(&mut found, c.channel_id, c.channel_type))?;
        self.source.used_channels(|c| keep(&mut found, c.channel_id, c.channel_type))?;
        self.source.users(|user| keep(&mut found, user.uid, kind::PERSON))?;
        for (id, channel_type) in found {
            f(self, &id, channel_type)?;
        }
        Ok(())
    }

    /// Copies what the target has not got of each history.
    fn copy_histories(&mut self) -> Result<u64, Fault> {
        let (mut channels, mut total, mut unreachable) = (Vec::new(), 0_u64, 0);
        self.source.used_channels(|channel| {
            if reader_of(&channel.channel_id, channel.channel_type).is_some() {
                total = total.saturating_add(channel.last_message_seq);
                channels.push((channel.channel_id, channel.channel_type));
            } else if channel.last_message_seq > 0 {
                unreachable += 1;
            }
            Ok(())
        })?;
        self.progress.stage("histories", Some(total));
        for (id, channel_type) in channels {
            let done = self.copy_history(&id, channel_type);
            self.note(done)?;
        }
        Ok(unreachable)
    }

    fn copy_history(&mut self, id: &str, channel_type: u8) -> Result<(), Fault> {
        let Self { source, target, progress, .. } = self;
        let last = target.last_seq(id, channel_type)?;
        progress.add(last);
        source.messages((id, channel_type), last.saturating_add(1), |page| {
            let mut rest = page.as_slice();
            while !rest.is_empty() {
                let (some, after) = rest.split_at(fitting(rest));
                write_messages(target, (id, channel_type), some)?;
                progress.add(some.len() as u64);
                rest = after;
            }
            Ok(())
        })
    }

    fn copy_conversations(&mut self) -> Result<(), Fault> {
        self.progress.stage("conversations", None);
        let Self { source, target, progress, .. } = self;
        source.conversations(|page| {
            for some in page.chunks(ROWS_PER_REQUEST) {
                write_conversations(target, some)?;
                progress.add(some.len() as u64);
            }
            Ok(())
        })
    }
}

fn keep(found: &mut Vec<(String, u8)>, id: String, channel_type: u8) -> Result<(), Fault> {
    found.push((id, channel_type));
    Ok(())
}

/// How many of the first messages fit one request; at least one.
fn fitting(messages: &[MessageRow]) -> usize {
    let mut size = 0;
    let beyond = messages.iter().position(|message| {
        size += message.payload.as_ref().map_or(0, String::len);
        size > CONTENT_PER_REQUEST
    });
    beyond.unwrap_or(messages.len()).max(1)
}

fn write_devices(target: &Side, devices: &[DeviceRow]) -> Result<(), Fault> {
    if !devices.is_empty() {
        let body = json!({ "devices": devices });
        let _: IgnoredAny = target.api.post("/migrate/devices", &body)?;
    }
    Ok(())
}

fn write_conversations(target: &Side, rows: &[ConversationRow]) -> Result<(), Fault> {
    let body = json!({ "conversations": rows });
    let _: IgnoredAny = target.api.post("/migrate/conversations", &body)?;
    Ok(())
}

fn write_messages(
    target: &Side,
    (id, channel_type): (&str, u8),
    messages: &[MessageRow],
) -> Result<(), Fault> {
    #[derive(serde::Deserialize)]
    struct Last {
        last_message_seq: u64,
    }

    let body = json!({ "channel_id": id, "channel_type": channel_type, "messages": messages });
    let last: Last = target.api.post("/migrate/messages", &body)?;
    let wanted = messages.last().map_or(0, |message| message.message_seq);
    if last.last_message_seq < wanted {
        return Err(Fault::Bad(format!(
            "channel {id:?} of type {channel_type}: the target ends at {} where {wanted} was \
             written",
            last.last_message_seq
        )));
    }
    Ok(())
}
