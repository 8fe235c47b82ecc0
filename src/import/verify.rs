//! Reading both sides again, and counting.

use std::collections::HashSet;

use serde_json::json;

use super::peer::Fault;
use super::side::{DeviceRow, Side, reader_of};
use super::tally::{Kind, Table, Tally, hash_of};
use super::{Run, Seen};

/// Users of one request.
const UIDS_PER_REQUEST: usize = 500;

impl Run {
    /// Counts what both sides hold. Lists and histories are those of the source's channels.
    pub(super) fn verify(&mut self) -> Result<Table, Fault> {
        self.progress.stage("comparing rows", None);
        let mut table = Table { source: rows_of(&self.source)?, target: rows_of(&self.target)? };
        self.progress.stage("comparing lists", None);
        self.each_list(|run, id, channel_type, list| {
            let kind = match list {
                "subscribers" => Kind::Subscribers,
                "denylist" => Kind::Denylist,
                _ => Kind::Allowlist,
            };
            let sides = [(&run.source, &mut table.source), (&run.target, &mut table.target)];
            for (side, tally) in sides {
                for uid in side.list(id, channel_type, list)? {
                    tally.add(kind, &(id, channel_type, uid));
                }
            }
            run.progress.add(1);
            Ok(())
        })?;
        self.verify_histories(&mut table)?;
        self.verify_conversations(&mut table)?;
        Ok(table)
    }

    fn verify_histories(&mut self, table: &mut Table) -> Result<(), Fault> {
        let (mut seen, mut channels, mut total) = (Seen::default(), Vec::new(), 0_u64);
        self.source.used_channels(|channel| {
            let (id, channel_type) = (channel.channel_id, channel.channel_type);
            if reader_of(&id, channel_type).is_some() && seen.is_new(&id, channel_type) {
                total = total.saturating_add(channel.last_message_seq.saturating_mul(2));
                channels.push((id, channel_type));
            }
            Ok(())
        })?;
        self.progress.stage("comparing histories", Some(total));
        for (id, channel_type) in channels {
            let Self { source, target, progress, .. } = self;
            let done = [(source, &mut table.source), (target, &mut table.target)]
                .into_iter()
                .try_for_each(|(side, tally)| {
                    side.messages((&id, channel_type), 1, |page| {
                        progress.add(page.len() as u64);
                        for message in &page {
                            tally.add(Kind::Messages, &(&id, channel_type, message));
                        }
                        Ok(())
                    })
                });
            self.note(done)?;
        }
        Ok(())
    }

    /// The target is asked for the rows of each user that the source has rows of.
    fn verify_conversations(&mut self, table: &mut Table) -> Result<(), Fault> {
        self.progress.stage("comparing conversations", None);
        let Self { source, target, progress, .. } = self;
        let mut users: HashSet<u128> = HashSet::new();
        source.conversations(|page| {
            let mut uids = Vec::new();
            for row in page {
                progress.add(1);
                table.source.add(Kind::Conversations, &row);
                if users.insert(hash_of(&row.uid)) {
                    uids.push(row.uid);
                }
            }
            for some in uids.chunks(UIDS_PER_REQUEST) {
                for row in target.conversations_of(some)? {
                    table.target.add(Kind::Conversations, &row);
                }
            }
            Ok(())
        })
    }
}

/// The rows of a side that have a list of their own.
fn rows_of(side: &Side) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    for uid in side.systems()? {
        tally.add(Kind::Systems, &uid);
    }
    side.users(|user| {
        tally.add(Kind::Users, &user.uid);
        Ok(())
    })?;
    side.devices(|device| {
        // Ours shows of a token only that there is one.
        let DeviceRow { uid, device_flag, device_level, token, .. } = device;
        tally.add(Kind::Devices, &(uid, device_flag, device_level, !token.is_empty()));
        Ok(())
    })?;
    side.channels(|c| {
        tally.add(Kind::Channels, &json!([c.channel_id, c.channel_type, c.ban, c.disband]));
        Ok(())
    })?;
    Ok(tally)
}
