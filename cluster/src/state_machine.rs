//! Between openraft's apply and the shard: committed entries go into the shard's inbox, a batch
//! at a time, and the batch is applied when the shard says so.
//!
//! The state itself is in the state lane, with its applied position; a snapshot is that position.
//! Rows are read for a snapshot only when a peer needs them.

use std::{io, rc::Rc, time::Duration};

use futures::{Stream, TryStreamExt};
use jindou_core::effect::{Committed, Event};
use jindou_storage::{Outcome, SnapshotReader};
use openraft::{
    AsyncRuntime, EntryPayload, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};

use crate::{
    lanes::{Lanes, unexpected},
    record::entry_size,
    shared::{Shared, Transfer},
    types::{
        RaftEntry, RaftLogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, to_core,
        to_raft,
    },
    wire::{decode_stored_membership, encode_stored_membership},
};

/// The shard gets so many bytes of entries before they must have been applied.
const BATCH_SIZE_MAX: usize = 4 << 20;
/// And so many entries.
const BATCH_COUNT_MAX: usize = 256;
/// While the state lane is this far behind, nothing more is applied: a replay is faster than any
/// disk.
const STATE_QUEUE_SIZE_MAX: usize = 64 << 20;

/// What openraft moves about as a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotData {
    /// The rows of a slot of this node at one moment. Boxed, as is the next: openraft keeps a ring
    /// of 4,096 commands per group, each of which could hold one.
    Reader(Box<SnapshotReader>),
    /// Chunks from another node, all of them already with the state lane.
    Staged(Box<StagedSnapshot>),
    /// Only a position, which is all that purging the log needs.
    Position,
}

/// Names a snapshot whose chunks have come.
#[derive(Debug)]
pub(crate) struct StagedSnapshot(pub(crate) Transfer);

/// openraft's state machine of one group: see the module.
pub(crate) struct StateMachine<R: AsyncRuntime> {
    shared: Rc<Shared>,
    lanes: Rc<Lanes<R>>,
    membership: StoredMembership,
}

impl<R: AsyncRuntime> StateMachine<R> {
    pub(crate) fn new(
        shared: Rc<Shared>,
        lanes: Rc<Lanes<R>>,
        membership: StoredMembership,
    ) -> Self {
        Self { shared, lanes, membership }
    }

    /// The event for an entry. Remembers a membership; openraft asks for it after the batch.
    fn committed(&mut self, entry: RaftEntry) -> io::Result<Event> {
        let log_id = to_core(&entry.log_id);
        let body = match entry.payload {
            EntryPayload::Blank => {
                self.shared.note_blank(log_id);
                Committed::Blank
            }
            EntryPayload::Normal(bytes) => Committed::Entry(bytes.0),
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership);
                let bytes = encode_stored_membership(&stored).map_err(io::Error::other)?;
                self.membership = stored;
                Committed::Membership(bytes)
            }
        };
        Ok(Event::Committed { slot: self.shared.slot, log_id, body })
    }

    async fn wait_for_state_lane(&self) {
        while self.lanes.state.queue_size() > STATE_QUEUE_SIZE_MAX && !self.shared.is_closed() {
            R::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn open_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let slot = self.shared.slot;
        let answer = self
            .lanes
            .ask(|lanes, done| lanes.state.snapshot(slot, done))
            .await
            .map_err(io::Error::other)?;
        let Outcome::Snapshot(reader) = answer else {
            return Err(unexpected(&answer));
        };
        let Some(applied) = reader.applied else {
            return Ok(None);
        };
        let meta = SnapshotMeta {
            last_log_id: Some(to_raft(applied)),
            last_membership: membership_of(reader.membership.as_deref())?,
        };
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Reader(Box::new(reader)) }))
    }

    /// Hands all rows of a reader to the state lane.
    async fn stage(&self, mut reader: SnapshotReader) -> io::Result<()> {
        let slot = self.shared.slot;
        self.lanes
            .ask(|lanes, done| lanes.state.install_begin(slot, done))
            .await
            .map_err(io::Error::other)?;
        loop {
            let answer =
                self.lanes.ask(|_, done| reader.next(done)).await.map_err(io::Error::other)?;
            let Outcome::Chunk(chunk) = answer else {
                return Err(unexpected(&answer));
            };
            let Some(chunk) = chunk else {
                return Ok(());
            };
            self.lanes
                .ask(|lanes, done| lanes.state.install_chunk(slot, chunk, done))
                .await
                .map_err(io::Error::other)?;
        }
    }
}

/// A membership as the state lane gave it back.
pub(crate) fn membership_of(bytes: Option<&[u8]>) -> io::Result<StoredMembership> {
    bytes
        .map(decode_stored_membership)
        .transpose()
        .map(Option::unwrap_or_default)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl<R: AsyncRuntime> RaftStateMachine<TypeConfig<R>> for StateMachine<R> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder<R>;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        Ok((self.shared.applied().map(to_raft), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig<R>>>> + Unpin,
    {
        self.wait_for_state_lane().await;
        let (mut last, mut count, mut size) = (None, 0, 0);
        while let Some((entry, responder)) = entries.try_next().await? {
            last = Some(entry.log_id.index);
            count += 1;
            size += entry_size(&entry);
            let event = self.committed(entry)?;
            self.shared.emit(event);
            // The shard will see its entry come by; the proposal can't fail any more.
            if let Some(responder) = responder {
                responder.send(());
            }
            if let Some(index) = last.filter(|_| count >= BATCH_COUNT_MAX || size >= BATCH_SIZE_MAX)
            {
                self.shared.wait_applied(index).await?;
                self.wait_for_state_lane().await;
                (last, count, size) = (None, 0, 0);
            }
        }
        match last {
            Some(index) => self.shared.wait_applied(index).await,
            None => Ok(()),
        }
    }

    /// Forced, it is the state as it is now, rows included. Otherwise it is asked for by
    /// ourselves, to purge the log: the position that is durable.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder<R>> {
        if force {
            return Some(self.get_snapshot_builder().await);
        }
        let durable = to_raft(self.shared.durable.get()?);
        let membership = Some(self.membership.clone()).filter(|membership| {
            (*membership.log_id()).is_none_or(|set_at| set_at.index <= durable.index)
        })?;
        Some(SnapshotBuilder::Position(SnapshotMeta {
            last_log_id: Some(durable),
            last_membership: membership,
        }))
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<R> {
        SnapshotBuilder::Rows(Self {
            shared: self.shared.clone(),
            lanes: self.lanes.clone(),
            membership: self.membership.clone(),
        })
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        match snapshot {
            SnapshotData::Reader(reader) => self.stage(*reader).await?,
            SnapshotData::Staged(staged) => {
                let StagedSnapshot(transfer) = *staged;
                let incoming = self.shared.incoming.borrow();
                if incoming.as_ref().map(|incoming| incoming.transfer) != Some(transfer) {
                    return Err(io::Error::other("the chunks of a snapshot were given up"));
                }
            }
            SnapshotData::Position => {
                return Err(io::Error::other("a position can't be installed"));
            }
        }
        let slot = self.shared.slot;
        let answer = self
            .lanes
            .ask(|lanes, done| lanes.state.install_end(slot, done))
            .await
            .map_err(io::Error::other)?;
        let Outcome::Slot(opened) = answer else {
            return Err(unexpected(&answer));
        };
        let applied = opened.rows.applied;
        if applied.map(to_raft) != meta.last_log_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a snapshot of {slot} has rows up to {applied:?} and says {meta}"),
            ));
        }
        self.membership = membership_of(opened.membership.as_deref())?;
        self.shared.reset_applied(applied);
        self.shared.durable.set(applied);
        self.shared.emit(Event::SlotOpened { slot, rows: Box::new(opened.rows) });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.open_snapshot().await
    }
}

/// Builds one snapshot.
pub(crate) enum SnapshotBuilder<R: AsyncRuntime> {
    /// With the rows.
    Rows(StateMachine<R>),
    /// Only this position.
    Position(SnapshotMeta),
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<TypeConfig<R>> for SnapshotBuilder<R> {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        match self {
            Self::Rows(state) => Ok(state.open_snapshot().await?.unwrap_or_else(|| Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: SnapshotData::Position,
            })),
            Self::Position(meta) => {
                Ok(Snapshot { meta: meta.clone(), snapshot: SnapshotData::Position })
            }
        }
    }
}
