//! What a slot has to tell the receiver of webhooks (http-api.md §19, decision 0013): rows of its
//! state, fed to the node's sender in order by whoever leads, a bounded window at a time. A row goes
//! when the receiver has taken it.
//!
//! Whom msg.offline concerns is asked of the recipients' homes when the row enters the window:
//! nothing of it stands in the log, and whoever leads next asks again.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Shard,
    asks::{Asker, To},
    cache::Found,
    channel::plan_of,
    deliver::pair_of,
    slot::{Caller, Waiter},
    waiting::Purpose,
};
use crate::{
    channel_info::kind,
    effect::Effect,
    entry::Command,
    envelope::{Answer, Ask, Part},
    id::{ChannelId, Name, SYSTEM_UID, SlotId},
    map::Map,
    message::SharedMessage,
    notice::{Notice, NoticeHead, StoredNotice, Telling, Told, tell},
    row::{Read, Row, Rows},
};

/// Notices of one slot that may be under way.
const WINDOW_COUNT_MAX: usize = 512;
/// And what their content may take, in bytes.
const WINDOW_SIZE_MAX: usize = 512 << 10;
/// Notices that are given up in one command.
const DROP_COUNT_MAX: usize = 4_096;
/// How often the oldest are looked at, whether they are too old.
const AGE_CHECK_MS: u64 = 30_000;
/// Numbers of what has no row: messages that are not stored.
const WITHOUT_ROW: u64 = 1 << 63;

/// The notices of a slot.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// State.
    pub(crate) head: NoticeHead,
    feed: Feed,
}

/// What the leader has under way.
#[derive(Debug, Default)]
struct Feed {
    /// Which time this shard leads: answers to an earlier one count for nothing.
    life: u64,
    /// The number of the next row for the window.
    next: u64,
    is_reading: bool,
    /// From the first that is under way on, by number. What is done behind it is done again by
    /// another leader: one notice that the receiver refuses holds up no other.
    window: VecDeque<UnderWay>,
    /// How many of them are under way, and what their content takes.
    open_count: usize,
    size: usize,
    /// Messages that are not stored and under way.
    without_row: Map<u64, UnderWay>,
    next_without_row: u64,
    /// Whose recipients are being asked for.
    asking: Map<u64, Asking>,
    /// Taken up to this number, with its total; the rows have yet to go.
    done: Option<(u64, u64)>,
    is_dropping: bool,
    next_age_check_ms: u64,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    total: u64,
    /// What has to be told, or decided, until it is done.
    left: u8,
    size: usize,
}

#[derive(Debug)]
struct Asking {
    message: SharedMessage,
    recipients: Option<Vec<Name>>,
    /// Answers to come.
    left: usize,
    absent: Vec<Name>,
    has_failed: bool,
}

/// A notice of an entry that is being applied, with the message it tells of.
pub(crate) type NewNotice = (Notice, Option<SharedMessage>);

impl Notices {
    pub(crate) fn new(head: NoticeHead) -> Self {
        Self { head, feed: Feed::default() }
    }

    /// Whether something must be looked after though nothing happens.
    pub(crate) fn is_busy(&self) -> bool {
        self.feed.done.is_some() || self.head.count() > 0 || !self.feed.asking.is_empty()
    }

    /// Another leads: what is under way counts no more.
    pub(crate) fn end_feed(&mut self) {
        self.feed = Feed::default();
    }

    /// What may go.
    pub(crate) fn take_done(&mut self) -> Option<Command> {
        let (up_to, total) = self.feed.done.take()?;
        Some(Command::NoticesDone { up_to, total })
    }

    /// Apply: these go, the oldest first.
    pub(crate) fn remove(&mut self, up_to: u64, total: u64, rows: &mut Vec<Row>) {
        let end = up_to.saturating_add(1).min(self.head.next);
        if end <= self.head.first {
            return;
        }
        let gone = self.head.first..end;
        rows.extend(gone.map(|number| Row::Notice { number, row: None }));
        self.head.first = end;
        self.head.gone = total.clamp(self.head.gone, self.head.total);
        rows.push(Row::NoticeHead(self.head));
    }
}

impl Feed {
    fn has_room(&self) -> bool {
        self.open_count < WINDOW_COUNT_MAX && self.size < WINDOW_SIZE_MAX
    }

    fn find(&mut self, number: u64) -> Option<&mut UnderWay> {
        if number >= WITHOUT_ROW {
            return self.without_row.get_mut(&number);
        }
        let place = self.window.binary_search_by_key(&number, |under_way| under_way.number).ok()?;
        self.window.get_mut(place)
    }

    /// One of the window is done; what is done from the front leaves it.
    fn close(&mut self, size: usize) {
        self.open_count = self.open_count.saturating_sub(1);
        self.size = self.size.saturating_sub(size);
        while let Some(front) = self.window.front()
            && front.left == 0
        {
            self.done = Some((front.number, front.total));
            self.window.pop_front();
        }
    }
}

fn size_of(message: Option<&SharedMessage>, recipients: usize) -> usize {
    160 + message.map_or(0, |message| message.payload.len()) + 24 * recipients
}

impl Shard {
    /// What a message is told of, if it is stored as such (http-api.md §19.4, §19.5).
    pub(super) fn tells_of(&self, channel: &ChannelId) -> u8 {
        let tells = self.settings.tells;
        if channel.kind == kind::AGENT { tells & !tell::OFFLINE } else { tells }
    }

    /// Apply: numbers the notices of an entry and makes their rows. Gives what the leader feeds.
    pub(super) fn add_notices(
        &mut self,
        slot: SlotId,
        time_ms: i64,
        new: Vec<NewNotice>,
        rows: &mut Vec<Row>,
    ) -> Vec<StoredNotice> {
        let Some(state) = self.slots.get_mut(&slot).filter(|_| !new.is_empty()) else {
            return Vec::new();
        };
        let head = &mut state.notices.head;
        let mut added = Vec::with_capacity(new.len());
        for (notice, message) in new {
            // No memory for a few bytes: the process is about to end anyway.
            let Ok(bytes) = notice.encode() else { continue };
            let size = u64::try_from(bytes.len()).unwrap_or(0);
            head.total += size + crate::notice::NoticeRow::OVERHEAD;
            let (number, total) = (head.next, head.total);
            head.next += 1;
            let row = crate::notice::NoticeRow { total, time_ms, notice: bytes };
            rows.push(Row::Notice { number, row: Some(row) });
            added.push(StoredNotice { number, total, time_ms, notice: Some(notice), message });
        }
        rows.push(Row::NoticeHead(*head));
        added
    }

    /// Those that an entry has just made go at once, if nothing waits before them.
    pub(super) fn feed_new(&mut self, slot: SlotId, added: Vec<StoredNotice>) {
        if !self.leads(slot) {
            return;
        }
        for stored in added {
            let Some(state) = self.slots.get(&slot) else {
                return;
            };
            let feed = &state.notices.feed;
            if feed.next != stored.number || !feed.has_room() || self.asks.is_full() {
                return self.feed(slot);
            }
            self.begin_to_tell(slot, stored);
        }
    }

    /// This shard leads the slot now: begins with the oldest.
    pub(super) fn begin_feed(&mut self, slot: SlotId) {
        self.next_id = self.next_id.wrapping_add(1);
        let life = self.next_id;
        let next_age_check_ms = self.now.mono_ms;
        if let Some(state) = self.slots.get_mut(&slot) {
            let next = state.notices.head.first;
            state.notices.feed = Feed { life, next, next_age_check_ms, ..Feed::default() };
        }
        self.feed(slot);
    }

    /// Reads on, if there is room and something to read.
    fn feed(&mut self, slot: SlotId) {
        let (is_full, tells) = (self.asks.is_full(), self.tells_anything());
        let Some(state) = self.slots.get_mut(&slot).filter(|state| state.leading) else {
            return;
        };
        let Notices { head, feed } = &mut state.notices;
        feed.next = feed.next.max(head.first);
        let lags = feed.next < head.next;
        if !lags || !tells || feed.is_reading || is_full || !feed.has_room() {
            return;
        }
        // Not for each that is taken: half a window at a time.
        if feed.open_count > WINDOW_COUNT_MAX / 2 {
            return;
        }
        feed.is_reading = true;
        let count_max = WINDOW_COUNT_MAX - feed.open_count;
        let (first, life) = (feed.next, feed.life);
        let read = Read::Notices { first, count_max, contents: true };
        self.read(slot, read, Purpose::Notices(slot, life));
    }

    /// Notices have been read.
    pub(super) fn on_notices(&mut self, slot: SlotId, life: u64, rows: Rows) {
        let Some(feed) = self.feed_of(slot, life) else {
            return;
        };
        feed.is_reading = false;
        let Rows::Notices(stored) = rows else {
            // Looked after once more in a while.
            return self.warn(format!("{slot}: notices cannot be read"));
        };
        let mut is_any_next = false;
        for stored in stored {
            let is_next = self
                .feed_of(slot, life)
                .is_some_and(|feed| feed.next == stored.number && feed.has_room());
            if !is_next {
                break;
            }
            is_any_next = true;
            self.begin_to_tell(slot, stored);
        }
        // Others may have come meanwhile.
        if is_any_next {
            self.feed(slot);
        }
    }

    fn feed_of(&mut self, slot: SlotId, life: u64) -> Option<&mut Feed> {
        let state = self.slots.get_mut(&slot).filter(|state| state.leading)?;
        Some(&mut state.notices.feed).filter(|feed| feed.life == life)
    }

    /// The next notice enters the window.
    fn begin_to_tell(&mut self, slot: SlotId, stored: StoredNotice) {
        let StoredNotice { number, total, notice, message, .. } = stored;
        let tells = match &notice {
            Some(Notice::Stored { tells, .. }) if message.is_some() => *tells & tell::ALL,
            // The history is gone, or the row does not decode: nothing can be told.
            Some(Notice::Stored { .. }) | None => 0,
            Some(Notice::Status { .. }) => 1,
        };
        let left = u8::try_from(tells.count_ones()).unwrap_or(0);
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        let feed = &mut state.notices.feed;
        let size = size_of(message.as_ref(), 0);
        feed.next = number + 1;
        feed.size += size;
        feed.open_count += 1;
        feed.window.push_back(UnderWay { number, total, left, size });
        let life = feed.life;
        if left == 0 {
            feed.close(size);
            return self.warn(format!("{slot}: notice {number} tells of nothing that is there"));
        }
        match (notice, message) {
            (Some(Notice::Status { item }), _) => {
                self.tell(Telling { slot, life, number, what: Told::Status(item) });
            }
            (Some(Notice::Stored { tells, recipients, .. }), Some(message)) => {
                if tells & tell::STORED != 0 {
                    let what = Told::Stored(message.clone());
                    self.tell(Telling { slot, life, number, what });
                }
                if tells & tell::OFFLINE != 0 {
                    let recipients = Some(recipients).filter(|uids| !uids.is_empty());
                    self.ask_for_absent(slot, number, message, recipients);
                }
            }
            (Some(Notice::Stored { .. }) | None, _) => {}
        }
    }

    fn tell(&mut self, telling: Telling) {
        self.out.effects.push(Effect::Tell(telling));
    }

    fn tells_anything(&self) -> bool {
        self.settings.tells != 0 || self.settings.tells_status
    }

    /// The receiver has taken something.
    pub(super) fn on_told(&mut self, slot: SlotId, life: u64, number: u64) {
        let Some(feed) = self.feed_of(slot, life) else {
            return;
        };
        let Some(under_way) = feed.find(number).filter(|under_way| under_way.left > 0) else {
            return;
        };
        under_way.left -= 1;
        if number >= WITHOUT_ROW {
            if under_way.left == 0 {
                feed.without_row.swap_remove(&number);
            }
            return;
        }
        if under_way.left == 0 {
            let size = under_way.size;
            feed.close(size);
            self.feed(slot);
        }
    }

    // ---- msg.offline ----

    /// A message that is not stored is on its way. It has no row: it is told once, or not.
    pub(super) fn tell_offline_once(
        &mut self,
        slot: SlotId,
        message: SharedMessage,
        recipients: Option<Vec<Name>>,
    ) {
        let is_full = self.asks.is_full();
        let Some(state) = self.slots.get_mut(&slot).filter(|state| state.leading) else {
            return;
        };
        let feed = &mut state.notices.feed;
        if feed.without_row.len() >= WINDOW_COUNT_MAX || is_full {
            self.vars.notices_dropped += 1;
            return;
        }
        let number = WITHOUT_ROW | feed.next_without_row;
        feed.next_without_row += 1;
        let size = size_of(Some(&message), 0);
        feed.without_row.insert(number, UnderWay { number, total: 0, left: 1, size });
        self.ask_for_absent(slot, number, message, recipients);
    }

    /// Asks who of the recipients has no master session.
    fn ask_for_absent(
        &mut self,
        slot: SlotId,
        number: u64,
        message: SharedMessage,
        recipients: Option<Vec<Name>>,
    ) {
        let slots = self.settings.slot_count;
        let base = message.channel.command_base();
        let channel = base.unwrap_or_else(|| message.channel.clone());
        let plan = match &recipients {
            Some(uids) => Some(plan_of(uids.clone(), slots)),
            None if channel.kind == kind::PERSON => Some(plan_of(pair_of(&channel), slots)),
            None if channel == message.channel => {
                self.channels.get(&channel).map(|channel| channel.plan(slots))
            }
            None => None,
        };
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        let feed = &mut state.notices.feed;
        let asking = Asking { message, recipients, left: 1, absent: Vec::new(), has_failed: false };
        let life = feed.life;
        feed.asking.insert(number, asking);
        let asker = Asker::Notice { slot, life, number };
        match plan {
            Some(plan) => {
                self.ask_homes(slot, life, number, &plan);
                self.on_absent(slot, life, number, Some(&[]));
            }
            None => {
                let to = To::Slot(channel.slot(slots));
                self.ask(Ask::Recipients { channel }, to, asker);
            }
        }
    }

    fn ask_homes(&mut self, slot: SlotId, life: u64, number: u64, plan: &[Part]) {
        let count: usize = plan.iter().map(|part| part.uids.len()).sum();
        if let Some(feed) = self.feed_of(slot, life) {
            let more = 24 * count;
            if let Some(asking) = feed.asking.get_mut(&number) {
                asking.left += plan.len();
            }
            if let Some(under_way) = feed.find(number) {
                under_way.size += more;
            }
            if number < WITHOUT_ROW {
                feed.size += more;
            }
        }
        for part in plan {
            if let Some(absent) = self.absent_of(&part.uids) {
                self.on_absent(slot, life, number, Some(&absent));
            } else {
                let ask = Ask::Absent { uids: part.uids.clone() };
                self.ask(ask, To::Slot(part.slot), Asker::Notice { slot, life, number });
            }
        }
    }

    /// Who of the uids of a slot has no master session, if this is their home.
    fn absent_of(&self, uids: &[Name]) -> Option<Vec<Name>> {
        let mut absent = Vec::new();
        for uid in uids {
            let sessions = self.sessions_of(uid)?;
            if !sessions.iter().any(super::home::Presence::is_master) {
                absent.push(uid.clone());
            }
        }
        Some(absent)
    }

    /// Another slot's leader asks.
    pub(super) fn on_ask_absent(&mut self, caller: Caller, uids: &[Name]) {
        let answer = match self.absent_of(uids) {
            Some(absent) => Answer::Uids(absent.into()),
            None => Answer::NotLeader,
        };
        self.answer_ask(caller, answer);
    }

    /// Another slot's leader asks for the recipients of a channel.
    pub(super) fn on_ask_recipients(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        channel_id: &ChannelId,
    ) {
        if !self.leads_now(channel_id.slot(self.settings.slot_count)) {
            return self.answer_ask(caller, Answer::NotLeader);
        }
        let uids = match self.channels.get_or_wait(channel_id, || caller.again(ask)) {
            Found::Ready(channel) => channel.recipients(),
            Found::Loading => return,
            Found::Missing => return self.load_channel(channel_id.clone()),
        };
        self.answer_ask(caller, Answer::Uids(uids.into()));
    }

    /// An answer to a question of [`Self::ask_for_absent`].
    pub(super) fn on_notice_answer(
        &mut self,
        (slot, life, number): (SlotId, u64, u64),
        asked: &Ask,
        answer: Answer,
    ) {
        match (asked, answer) {
            (Ask::Recipients { .. }, Answer::Uids(uids)) => {
                let plan = plan_of(uids.to_vec(), self.settings.slot_count);
                self.ask_homes(slot, life, number, &plan);
                self.on_absent(slot, life, number, Some(&[]));
            }
            (_, Answer::Uids(uids)) => self.on_absent(slot, life, number, Some(&uids)),
            (
                _,
                Answer::Reply(_)
                | Answer::Welcome { .. }
                | Answer::Code(_)
                | Answer::OpensSender
                | Answer::NotLeader,
            ) => self.on_absent(slot, life, number, None),
        }
    }

    /// One answer: the uids without a master session; `None`: nobody could tell.
    fn on_absent(&mut self, slot: SlotId, life: u64, number: u64, uids: Option<&[Name]>) {
        let Some(feed) = self.feed_of(slot, life) else {
            return;
        };
        let Some(asking) = feed.asking.get_mut(&number) else {
            return;
        };
        match uids {
            Some(uids) => asking.absent.extend_from_slice(uids),
            None => asking.has_failed = true,
        }
        asking.left = asking.left.saturating_sub(1);
        let has_failed = asking.has_failed && number < WITHOUT_ROW;
        if asking.left > 0 || has_failed {
            return;
        }
        let Some(Asking { message, mut absent, .. }) = feed.asking.swap_remove(&number) else {
            return;
        };
        absent.retain(|uid| *uid != message.from && &**uid != SYSTEM_UID);
        if absent.is_empty() {
            return self.on_told(slot, life, number);
        }
        self.tell(Telling { slot, life, number, what: Told::Offline { message, uids: absent } });
    }

    // ---- now and then ----

    /// Reads on where something failed, lets rows go, gives up what is too old or too much.
    pub(super) fn look_after_notices(&mut self) {
        let now = self.now.mono_ms;
        let tells = self.tells_anything();
        let slots: Vec<SlotId> = self
            .slots
            .iter()
            .filter(|(_, state)| state.leading && state.notices.is_busy())
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            let size_max = self.settings.notices_size_max;
            let Some(state) = self.slots.get_mut(&slot) else {
                continue;
            };
            let Notices { head, feed } = &mut state.notices;
            let failed = feed.asking.iter().filter(|(_, asking)| asking.has_failed);
            let failed: Vec<u64> =
                failed.filter(|(_, asking)| asking.left == 0).map(|(number, _)| *number).collect();
            let again = failed.into_iter().filter_map(|number| {
                feed.asking.swap_remove(&number).map(|asking| (number, asking))
            });
            let again: Vec<(u64, Asking)> = again.collect();
            let is_over = head.size() > size_max || !tells;
            let is_time = feed.next_age_check_ms <= now;
            if head.count() > 0 && (is_over || is_time) && !feed.is_dropping {
                feed.is_dropping = true;
                feed.next_age_check_ms = now + AGE_CHECK_MS;
                let (first, life) = (head.first, feed.life);
                let read = Read::Notices { first, count_max: DROP_COUNT_MAX, contents: false };
                self.read(slot, read, Purpose::OldNotices(slot, life));
            }
            for (number, Asking { message, recipients, .. }) in again {
                self.ask_for_absent(slot, number, message, recipients);
            }
            self.feed(slot);
            self.let_go(slot);
        }
    }

    /// Has an entry delete the rows of what is done, if no other takes the word along.
    fn let_go(&mut self, slot: SlotId) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        let done = state.notices.feed.done;
        let Some(command) = state.notices.take_done() else {
            return;
        };
        if self.offer(slot, vec![(command, Waiter::Nobody)]).is_err()
            && let Some(state) = self.slots.get_mut(&slot)
        {
            state.notices.feed.done = done;
        }
    }

    /// The oldest notices, to see which are too old or too many.
    pub(super) fn on_old_notices(&mut self, slot: SlotId, life: u64, rows: &Rows) {
        let (tells, size_max) = (self.tells_anything(), self.settings.notices_size_max);
        let oldest_ms = self.now.unix_ms.saturating_sub(self.settings.notice_ms_max);
        let Some(state) = self.slots.get_mut(&slot).filter(|state| state.leading) else {
            return;
        };
        let Notices { head, feed } = &mut state.notices;
        if feed.life != life {
            return;
        }
        feed.is_dropping = false;
        let Rows::Notices(stored) = rows else {
            return self.warn(format!("{slot}: notices cannot be read"));
        };
        let is_given_up = |stored: &&StoredNotice| {
            let left = head.total.saturating_sub(stored.total);
            // A little more than it must be, so that it is not asked for each that comes.
            !tells || stored.time_ms < oldest_ms || left > size_max - size_max / 16
        };
        let is_over = head.size() > size_max;
        let given_up: Vec<&StoredNotice> = stored
            .iter()
            .take_while(|stored| is_over || !tells || stored.time_ms < oldest_ms)
            .take_while(is_given_up)
            .collect();
        let taken = feed.done.map_or(0, |(up_to, _)| up_to).max(head.first.saturating_sub(1));
        let lost = given_up.iter().filter(|stored| stored.number > taken).count();
        let Some((up_to, total)) = given_up.last().map(|last| (last.number, last.total)) else {
            return;
        };
        if lost == 0 {
            return;
        }
        self.vars.notices_dropped += u64::try_from(lost).unwrap_or(u64::MAX);
        let why = if !tells {
            "no receiver of webhooks is configured any more"
        } else if is_over {
            "too many wait for the receiver of webhooks"
        } else {
            "the receiver of webhooks has not taken them in time"
        };
        self.warn(format!("{slot}: {lost} notices are given up: {why}"));
        let command = Command::NoticesDone { up_to, total };
        // Refused, it is done at the next look.
        let _ = self.offer(slot, vec![(command, Waiter::Nobody)]);
    }

    // ---- user.onlinestatus ----

    /// A session began or ended at this home; the counts are those after it.
    pub(super) fn tell_status(&mut self, slot: SlotId, uid: &Name, change: StatusChange) {
        if !self.settings.tells_status {
            return;
        }
        let StatusChange { device_flag, conn, is_online } = change;
        let sessions = self.homes.get(&slot).and_then(|home| home.users.get(uid));
        let sessions = sessions.map_or(&[][..], Vec::as_slice);
        let of_device = sessions.iter().filter(|other| other.device_flag == device_flag).count();
        let online = u8::from(is_online);
        let item =
            format!("{uid}-{device_flag}-{online}-{conn}-{of_device}-{}", sessions.len()).into();
        if self.offer(slot, vec![(Command::TellStatus { item }, Waiter::Nobody)]).is_err() {
            self.vars.notices_dropped += 1;
        }
    }
}

/// A session that began or ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusChange {
    pub(crate) device_flag: u8,
    /// The connection's number, as /connz shows it.
    pub(crate) conn: u64,
    pub(crate) is_online: bool,
}
